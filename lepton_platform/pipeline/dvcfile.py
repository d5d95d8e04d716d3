"""``dvc.yaml``, rendered from the table of stages; a test and ``lepton versioning check`` say when it is old.

In the repository's own root the code is a dependency file by file. In another workspace, where the package is
installed elsewhere, its hashes stand in ``code.yaml`` and DVC tracks them as parameters.
"""

import inspect
from pathlib import Path
from typing import Any

import yaml

from lepton_platform.pipeline.code import ROOT, code_hash, stage_files
from lepton_platform.pipeline.params import section, workspace_tasks
from lepton_platform.pipeline.stages import STAGES, Stage, get_stage, metrics_files
from lepton_platform.root import MARKER
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part, task_names

HEADER = "# Rendered from lepton_platform/pipeline/stages.py by `lepton versioning render`; do not edit.\n"
CODE_HEADER = "# Hashes of the code that each stage runs, written by `lepton versioning render`; do not edit.\n"
DVC_FILE, CODE_FILE = "dvc.yaml", "code.yaml"


def holds_code(workspace: Path) -> bool:
    """Does the package lie in this workspace, so that its files can be dependencies?"""
    return ROOT.resolve() == workspace.resolve()


def source_files(workspace: Path, task: str, stage: Stage) -> list[str]:
    """Files of the workspace, named by the task's parameters, that the stage reads (a user's own data)."""
    if "source" not in stage.parts:
        return []
    source = load_part(task, "source")
    if not hasattr(source, "files"):
        return []
    model = inspect.signature(source.files, eval_str=True).parameters["params"].annotation
    return [str(path) for path in source.files(section(workspace, task, stage.params, model))]


def dependencies(workspace: Path, task: str, stage: Stage) -> list[str]:
    """What the stage reads, in dvc.yaml's order: inputs, files, code."""
    inputs = [get_stage(name).path(task) for name in stage.inputs]
    files = [path.format(task=task) for _, path in stage.files]
    code = [path.as_posix() for path in stage_files(stage, task)] if holds_code(workspace) else []
    return [*inputs, *files, *source_files(workspace, task, stage), *code]


def render_stage(workspace: Path, task: str, stage: Stage) -> dict[str, Any]:
    params: list[Any] = [f"{task}.{section}" for section in stage.sections()]
    if not holds_code(workspace):
        params.append({CODE_FILE: [stage.dvc_name(task)]})
    return {
        "desc": stage.description,
        "cmd": f"lepton stage {stage.name} {task}",
        "deps": dependencies(workspace, task, stage),
        "params": params,
        "outs": [stage.path(task)],
    }


def curve_plots(task: str) -> list[dict[str, Any]]:
    """What `dvc plots` draws of a task's training: the losses over the steps, and the validation's first measure.

    The files are those of ``training/curves.py``; which measure it is stands in the file, as its last column.
    """
    plots: list[dict[str, Any]] = []
    for stage in STAGES:
        if stage.curves:
            training, validation = (f"{stage.path(task)}/{stage.curves}/{n}.csv" for n in ("training", "validation"))
            loss = {"x": "step", "y": {training: "loss", validation: "loss"}, "title": f"{task}: loss"}
            measure = {"x": "step", "title": f"{task}: validation"}
            plots += [{f"{task}-loss": loss}, {validation: measure}]
    return plots


def render(workspace: Path) -> dict[str, str]:
    """The files that DVC reads, by name, as they should be; ``StageFailed`` names a task that is not installed."""
    tasks = workspace_tasks(workspace)
    unknown = [task for task in tasks if task not in task_names()]
    if unknown:
        raise StageFailed(
            f"{workspace / MARKER} has a section {unknown[0]!r}, and there is no such task. "
            f"The tasks are: {', '.join(task_names())}."
        )
    stages = {s.dvc_name(t): render_stage(workspace, t, s) for t in tasks for s in STAGES}
    metrics = [path for task in tasks for path in metrics_files(task)]
    plots = [plot for task in tasks for plot in curve_plots(task)]
    body = {"stages": stages, **({"metrics": metrics} if metrics else {}), **({"plots": plots} if plots else {})}
    files = {DVC_FILE: HEADER + yaml.safe_dump(body, sort_keys=False, width=120)}
    if not holds_code(workspace):
        hashes = {s.dvc_name(t): code_hash(s, t) for t in tasks for s in STAGES}
        files[CODE_FILE] = CODE_HEADER + yaml.safe_dump(hashes, sort_keys=False)
    return files


def stale_files(workspace: Path) -> list[str]:
    """The names of the rendered files that differ from what the table says."""
    return list(_stale(workspace))


def _stale(workspace: Path) -> dict[str, str]:
    """The same, each with what it should be."""

    def current(name: str) -> str | None:
        path = workspace / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    return {name: content for name, content in render(workspace).items() if current(name) != content}


def write(workspace: Path) -> list[str]:
    """Bring the rendered files up to date, atomically; returns the names of those that changed.

    Files that stages read beside their inputs are made, empty, for a task that has none yet.
    """
    stale = _stale(workspace)
    for task in workspace_tasks(workspace):
        for path in (workspace / path.format(task=task) for stage in STAGES for _, path in stage.files):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    for name, content in stale.items():
        beside = workspace / f".{name}.tmp"
        beside.write_text(content, encoding="utf-8")
        beside.replace(workspace / name)
    return list(stale)
