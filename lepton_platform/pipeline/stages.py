"""The one table of stages. Dagster's assets are built from it, ``dvc.yaml`` is rendered from it.

A stage leaves ONE folder, ``<folder>/<task>/<name>``; its version is the DVC hash of that folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """One step of the graph; ``function`` is ``module:name``, imported only when it runs."""

    name: str
    function: str
    description: str
    params: str  # its section of the task's parameters
    reads_all_params: bool = False  # it also reads the sections of all other stages
    folder: Literal["data", "models", "reports"] = "data"
    inputs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()  # modules of the task's folder that the function is given
    files: tuple[tuple[str, str], ...] = ()  # (keyword, path): workspace files that it reads beside its inputs
    kinds: tuple[str, ...] = ()  # shown as icons by Dagster
    check: str | None = None  # the blocking check that it is, in Dagster's words
    ships_code: bool = False  # its output holds code of this package
    heavy: bool = False  # runs as a child process, one at a time on a GPU
    metrics: str | None = None  # the file of the output that `dvc metrics` reads
    curves: str | None = None  # the folder of the output whose tables `dvc plots` draws

    def path(self, task: str) -> str:
        """The output's folder, relative to the workspace."""
        return f"{self.folder}/{task}/{self.name}"

    def sections(self) -> list[str]:
        """The sections of the task's parameters that its result depends on."""
        return [stage.params for stage in STAGES] if self.reads_all_params else [self.params]

    def dvc_name(self, task: str) -> str:
        return f"{task}-{self.name}"


STAGES: tuple[Stage, ...] = (
    Stage(
        name="raw",
        function="lepton_platform.data.raw:raw",
        description="Records as they come from the source, checked by SHA-256, as Parquet.",
        params="source",
        parts=("source",),
        files=(("labels", "data/{task}/labels.jsonl"), ("edits", "data/{task}/edits.jsonl")),
        kinds=("parquet",),
    ),
    Stage(
        name="clean",
        function="lepton_platform.data.clean:clean",
        description="Duplicates, broken encodings and contradictions set aside; rows in = rows out + quarantined.",
        params="clean",
        inputs=("raw",),
        parts=("preprocess",),
        kinds=("parquet",),
    ),
    Stage(
        name="contract",
        function="lepton_platform.data.contracts:contract",
        description="What the data must be: an expectation suite; a failure stops everything downstream.",
        params="contract",
        folder="reports",
        inputs=("clean",),
        parts=("contract",),
        kinds=("greatexpectations", "duckdb"),
        check="expectations",
    ),
    Stage(
        name="features",
        function="lepton_platform.features.materialize:features",
        description="Feature views of every row, keyed by entity and time.",
        params="features",
        inputs=("clean", "contract"),
        parts=("preprocess",),
        kinds=("feast", "parquet"),
    ),
    Stage(
        name="dataset",
        function="lepton_platform.features.training_set:dataset",
        description="Training, validation and test rows, point in time; no group in two splits.",
        params="dataset",
        inputs=("clean", "features"),
        parts=("preprocess",),
        kinds=("feast", "duckdb"),
    ),
    Stage(
        name="model",
        function="lepton_platform.training.train:model",
        description="The trained network, as safetensors, with its learning curve.",
        params="train",
        folder="models",
        inputs=("dataset",),
        parts=("model",),
        kinds=("pytorch",),
        heavy=True,
        curves="curves",
    ),
    Stage(
        name="quality",
        function="lepton_platform.training.quality:quality",
        description="Metrics with bootstrap intervals on rows never seen; the gate against the yardstick.",
        params="quality",
        folder="reports",
        inputs=("dataset", "model"),
        parts=("model", "metrics"),
        kinds=("pytorch", "scikitlearn"),
        metrics="headline.json",
        check="beats_yardstick",
    ),
    Stage(
        name="compressed",
        function="lepton_platform.compression.compress:compressed",
        description="The model as int8 ONNX, within a point of the float model.",
        params="compress",
        folder="models",
        inputs=("dataset", "model", "quality"),
        parts=("model", "metrics"),
        kinds=("onnx",),
        metrics="headline.json",
        check="parity",
    ),
    Stage(
        name="reference",
        function="lepton_platform.monitoring.reference:reference",
        description="What the service will be compared with: signals of training rows and held-out answers; what chance makes.",
        params="reference",
        folder="models",
        inputs=("dataset", "compressed"),
        parts=("drift",),
        kinds=("parquet",),
    ),
    Stage(
        name="bento",
        function="lepton_platform.serving.bento:bento",
        description="A Bento named by its content, with the manifest of everything that it was made of.",
        params="serve",
        folder="models",
        inputs=("contract", "features", "dataset", "model", "quality", "compressed", "reference"),
        parts=("api", "preprocess"),
        kinds=("bentoml",),
        reads_all_params=True,
        ships_code=True,
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}


def stage_names() -> list[str]:
    return [stage.name for stage in STAGES]


def get_stage(name: str) -> Stage:
    """The stage of that name; ``KeyError`` names the ones there are."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise KeyError(f"There is no stage '{name}'. The stages are: {', '.join(stage_names())}.") from None


def upto(last: str | None) -> Iterator[Stage]:
    """The stages in order, to ``last`` and including it."""
    if last is not None:
        get_stage(last)
    for stage in STAGES:
        yield stage
        if stage.name == last:
            return


def downstream(name: str) -> list[str]:
    """The stages that take what ``name`` leaves, at any distance, in order."""
    reached = {name}
    for stage in STAGES:
        if reached & set(stage.inputs):
            reached.add(stage.name)
    return [stage.name for stage in STAGES if stage.name in reached - {name}]


def behind(states: Mapping[str, str]) -> dict[str, list[str]]:
    """The stages upstream of each that are not fresh, nearest last: what they leave next may make it stale."""
    found: dict[str, list[str]] = {}
    for stage in STAGES:
        upstream = {name for parent in stage.inputs for name in (parent, *found[parent])}
        found[stage.name] = [s.name for s in STAGES if s.name in upstream and states[s.name] != "fresh"]
    return found


def metrics_files(task: str) -> list[str]:
    """The files of figures that the task's stages leave, relative to the workspace."""
    return [f"{stage.path(task)}/{stage.metrics}" for stage in STAGES if stage.metrics]
