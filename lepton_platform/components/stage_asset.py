"""A stage of the table as a Dagster asset: same function, same files, and the DVC hash as its data version."""

import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from lepton_platform.components.dead_runs import mark_killed, mark_process
from lepton_platform.components.live import LABELS
from lepton_platform.components.metadata import check_metadata, outcome_metadata
from lepton_platform.pipeline.code import code_hash
from lepton_platform.pipeline.params import stage_params
from lepton_platform.pipeline.run import Outcome, execute, quiet, run_recorded
from lepton_platform.pipeline.stages import STAGES, Stage, get_stage
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.settings import Settings, get_settings
from lepton_platform.stage import Progress, StageFailed, StageResult

GPU_POOL = "gpu"
FORCE_TAG = "lepton/force"


@cache
def _open_versions(settings_id: int) -> Versions:
    """One open DVC repository a process: opening it costs a second, asking it milliseconds."""
    return Versions(get_settings())


def open_versions() -> Versions:
    return _open_versions(id(get_settings()))


def code_version(stage: Stage, task: str) -> str:
    """Changes when the stage's code or its parameters do: Dagster then shows the asset as out of date."""
    import hashlib

    values = stage_params(get_settings().workspace, task, stage.sections())
    whole = json.dumps([code_hash(stage, task), values], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _in_child(context: dg.AssetExecutionContext, progress: Progress) -> Any:
    """Something with the signature of ``execute`` that runs it in a child process through Pipes."""

    def call(settings: Settings, task: str, stage: Stage, _: Progress) -> StageResult:
        command = [sys.executable, "-m", "lepton_platform.pipeline.child", stage.name, task, str(os.getpid())]
        reader = _Reader(context, progress)
        client = dg.PipesSubprocessClient(cwd=str(settings.workspace), message_reader=reader.reader)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster calls a preview of its own
            try:
                client.run(context=context, command=command)
            except DagsterPipesExecutionError as error:
                _killed(context, stage, task, str(error))
                raise
        return reader.result(stage, task)

    return call


def _killed(context: dg.AssetExecutionContext, stage: Stage, task: str, said: str) -> None:
    """``StageFailed`` where a signal ended the child, and a note on the run that this was not what it did."""
    ended = re.search(r"code -(\d+)$", said)  # Dagster keeps the code nowhere else
    if ended is not None:
        mark_killed(context.instance, context.run.run_id)
        raise StageFailed(
            f"The child process of {task}/{stage.name} was ended from outside ({signal.strsignal(int(ended[1]))}), as "
            "the system does where memory is short. The next run goes on from its last checkpoint."
        )


class _Reader:
    """Collects what the child says: progress at once, its result at the end."""

    def __init__(self, context: dg.AssetExecutionContext, progress: Progress) -> None:
        self.context, self.progress, self.parts, self.last = context, progress, "", {}
        self.reader = _Messages(self)

    def take(self, payload: Mapping[str, Any]) -> None:
        if "progress" in payload:
            step = payload["progress"]
            self.progress(step["done"], step["total"], step["values"])
        elif "part" in payload:
            self.parts += payload["part"]
            if payload["last"]:
                self.last, self.parts = json.loads(self.parts), ""

    def result(self, stage: Stage, task: str) -> StageResult:
        if "failed" in self.last:
            raise StageFailed(self.last["failed"]["message"], self.last["failed"]["details"])
        if "result" not in self.last:
            raise StageFailed(f"The child process of {task}/{stage.name} ended without a result; see its output above.")
        return StageResult(**self.last["result"])


class _Messages(dg.PipesTempFileMessageReader):
    """Pipes' own reader of a temporary file, which hands custom messages over while the child runs."""

    def __init__(self, taker: _Reader) -> None:
        super().__init__()
        self.taker = taker

    def read_messages(self, handler: Any) -> Any:
        handle, taker = handler.handle_message, self.taker

        def tee(message: Any) -> None:
            if message.get("method") == "report_custom_message":
                taker.take((message.get("params") or {}).get("payload") or {})
            else:
                handle(message)

        handler.handle_message = tee
        return super().read_messages(handler)


def _log_progress(context: dg.AssetExecutionContext, shown: Progress) -> Progress:
    """To whoever watches, and a line to Dagster's log at each tenth of the way."""
    tenth = -1

    def progress(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        nonlocal tenth
        shown(done, total, values)
        if total and done * 10 // total > tenth:
            tenth = done * 10 // total
            figures = " ".join(f"{name}={value:.4g}" for name, value in (values or {}).items())
            context.log.info(f"{done}/{total} {figures}".rstrip())

    return progress


def _nobody(task: str, stage: str) -> Progress:
    return quiet


#: (task, stage) → progress; `lepton run` puts its bars here.
watcher: Callable[[str, str], Progress] = _nobody


def _results(context: dg.AssetExecutionContext, stage: Stage, outcome: Outcome) -> Iterator[Any]:
    key = dg.AssetKey([outcome.task, stage.name])
    metadata = outcome_metadata(get_settings(), stage, outcome)
    checks = []
    if stage.check:
        figures = check_metadata(outcome.result)
        checks = [dg.AssetCheckResult(check_name=stage.check, asset_key=key, passed=True, metadata=figures)]
    yield dg.MaterializeResult(
        asset_key=key, metadata=metadata, data_version=dg.DataVersion(outcome.version), check_results=checks
    )


def _run(context: dg.AssetExecutionContext, stage: Stage, task: str) -> Iterator[Any]:
    settings = get_settings()
    mark_process(context.instance, context.run.run_id)
    progress = _log_progress(context, watcher(task, stage.name))
    call = _in_child(context, progress) if stage.heavy else execute
    force = context.run.tags.get(FORCE_TAG) == "true"
    versions = open_versions()
    try:
        outcome = run_recorded(
            settings, versions, task, stage, run_id=context.run.run_id, force=force, call=call, progress=progress
        )
    except StageFailed as failure:
        yield from _failed(stage, task, failure)
        return
    yield from _results(context, stage, outcome)


def _failed(stage: Stage, task: str, failure: StageFailed) -> Iterator[Any]:
    """A check that says no is recorded as such, with what it found; then the step fails and stops what follows."""
    found = check_metadata(StageResult(metadata=failure.details))
    if stage.check:
        yield dg.AssetCheckResult(
            check_name=stage.check,
            asset_key=dg.AssetKey([task, stage.name]),
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=failure.message,
            metadata=found,
        )
    raise dg.Failure(description=failure.message, metadata=found, allow_retries=False)


def stage_asset(stage: Stage, task: str, owners: list[str]) -> dg.AssetsDefinition:
    """The asset ``[task, stage]``."""
    check_specs = []
    operated = [name for name, _ in stage.files if name == LABELS]  # files that an asset of live.py writes
    key = dg.AssetKey([task, stage.name])
    if stage.check:
        check_specs = [dg.AssetCheckSpec(stage.check, asset=key, blocking=True, description=stage.description)]

    @dg.multi_asset(
        name=f"{task}_{stage.name}",
        specs=[
            dg.AssetSpec(
                key=key,
                deps=[dg.AssetKey([task, name]) for name in (*stage.inputs, *operated)],
                description=stage.description,
                group_name=task,
                owners=owners,
                kinds={*stage.kinds},
                code_version=code_version(stage, task),
                tags={"lepton/stage": stage.name},
            )
        ],
        check_specs=check_specs,
        pool=GPU_POOL if stage.heavy else None,
    )
    def run(context: dg.AssetExecutionContext):
        yield from _run(context, stage, task)

    return run


def stage_keys(task: str, last: str | None = None) -> list[dg.AssetKey]:
    names = [stage.name for stage in STAGES]
    if last is not None:
        names = names[: names.index(get_stage(last).name) + 1]
    return [dg.AssetKey([task, name]) for name in names]
