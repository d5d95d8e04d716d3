"""Run one stage: bind its function's arguments, fill a folder beside the target, rename it into place.

Killed at any instant, the next run sweeps what was left half-done and completes with the same bytes.
"""

import fcntl
import hashlib
import importlib
import inspect
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_platform.pipeline.code import code_hash
from lepton_platform.pipeline.ledger import Attempt, Ledger, git_commit, now
from lepton_platform.pipeline.params import check_sections, parse, stage_params
from lepton_platform.pipeline.stages import Stage, get_stage
from lepton_platform.pipeline.versioning import Versions, tree_hash
from lepton_platform.root import MARKER
from lepton_platform.settings import Settings
from lepton_platform.stage import Params, Progress, StageFailed, StageResult
from lepton_platform.tasks import load_part


def quiet(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Outcome:
    """How running a stage ended. ``ran`` is false where its result was already there."""

    task: str
    stage: str
    version: str
    ran: bool
    seconds: float
    result: StageResult


@contextmanager
def exclusive(settings: Settings, stage: Stage, task: str) -> Iterator[None]:
    """One process at a time on a stage's output, whichever face it comes from."""
    with alone(settings, stage.dvc_name(task)):
        yield


@contextmanager
def alone(settings: Settings, name: str) -> Iterator[None]:
    """One process at a time on what has this name in the workspace; the kernel frees it on a kill."""
    folder = settings.state_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sweep(target: Path) -> None:
    """Remove what a killed run left beside ``target``; the caller holds the stage's lock."""
    for left in (*target.parent.glob(f".{target.name}.new-*"), *target.parent.glob(f".{target.name}.old-*")):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``target`` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    fresh = target.parent / f".{target.name}.new-0"
    fresh.mkdir()
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if target.exists():
        old = target.parent / f".{target.name}.old-0"
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        fresh.rename(target)


class _Binding:
    """What a stage function may ask for by name, made only when it does."""

    def __init__(self, settings: Settings, task: str, stage: Stage, progress: Progress) -> None:
        self.settings, self.task, self.stage, self.progress = settings, task, stage, progress
        module, name = stage.function.split(":")
        self.function = getattr(importlib.import_module(module), name)
        self.signature = inspect.signature(self.function, eval_str=True)
        check_sections(settings.workspace, task, stage.sections())
        self.sections = stage_params(settings.workspace, task, stage.sections())
        self.inputs = {n: settings.path(get_stage(n).path(task)) for n in stage.inputs}
        self.files = {n: settings.path(p.format(task=task)) for n, p in stage.files}
        self.parts = {f"{p}_part" if p in stage.inputs else p: p for p in stage.parts}

    def params(self) -> Params:
        model = self.signature.parameters["params"].annotation
        return parse(self.sections[self.stage.params], model, f"{MARKER}: {self.task}.{self.stage.params}")

    def fingerprint(self) -> str:
        """What the result depends on: inputs, parameters, code."""
        read = {name: tree_hash(path) for name, path in {**self.inputs, **self.files}.items() if path.exists()}
        whole = json.dumps([read, self.sections, code_hash(self.stage, self.task)], sort_keys=True, default=str)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def scratch(self) -> Path:
        folder = self.settings.state_dir / "scratch" / f"{self.stage.dvc_name(self.task)}-{self.fingerprint()}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def previous(self) -> dict[str, Any] | None:
        done = Ledger(self.settings).last_done(self.task, self.stage.name)
        return None if done is None else {"version": done.version, "rows": done.rows, **done.metrics}

    def value(self, name: str, out: Path) -> Any:
        if name in self.inputs or name in self.files:
            return self.inputs.get(name) or self.files[name]
        if name in self.parts:
            return load_part(self.task, self.parts[name])
        simple = {"out": out, "cache": self.settings.cache_dir, "progress": self.progress, "task": self.task}
        if name in simple:
            return simple[name]
        if name == "versions":
            return {n: tree_hash(path) for n, path in self.inputs.items()}
        if name in {"params", "scratch", "previous"}:
            return getattr(self, name)()
        if name == "all_params":
            return self.sections
        raise TypeError(f"{self.stage.function} asks for '{name}', which a stage is not given.")

    def arguments(self, out: Path) -> dict[str, Any]:
        return {name: self.value(name, out) for name in self.signature.parameters}


def execute(settings: Settings, task: str, stage: Stage, progress: Progress = quiet) -> StageResult:
    """Run the stage's function on what lies in the workspace and leave its folder in place; nothing is recorded."""
    bound = _Binding(settings, task, stage, progress)
    for name, path in bound.inputs.items():
        if not path.is_dir():
            raise StageFailed(
                f"{task}/{stage.name} reads what {task}/{name} leaves, and {path} is not there. "
                f"`lepton run {task} --upto {stage.name}` runs what is missing."
            )
    with replaced(settings.path(stage.path(task))) as out:
        result = bound.function(**bound.arguments(out))
    if "scratch" in bound.signature.parameters:
        shutil.rmtree(bound.scratch(), ignore_errors=True)
    return result


def _attempt(settings: Settings, task: str, stage: Stage, face: str, run_id: str | None) -> dict[str, Any]:
    return {
        "task": task,
        "stage": stage.name,
        "face": face,
        "run_id": run_id,
        "git_commit": git_commit(settings.workspace),
        "started_at": now(),
        "code": code_hash(stage, task),
        "params": stage_params(settings.workspace, task, stage.sections()),
    }


@contextmanager
def _failures_recorded(settings: Settings, attempt: dict[str, Any], started: float) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        details = error.details if isinstance(error, StageFailed) else {}
        seconds = time.monotonic() - started
        failed = Attempt(**attempt, state="failed", seconds=seconds, metadata=details, message=str(error))
        Ledger(settings).write(failed)
        raise


def run_for_dvc(settings: Settings, task: str, stage: Stage, progress: Progress = quiet) -> StageResult:
    """Run the stage as ``dvc repro`` asks: DVC records the result itself, the ledger notes how it came about."""
    attempt, started = _attempt(settings, task, stage, "dvc", None), time.monotonic()
    with exclusive(settings, stage, task), _failures_recorded(settings, attempt, started):
        result = execute(settings, task, stage, progress)
    inputs = {n: tree_hash(settings.path(get_stage(n).path(task))) for n in stage.inputs}
    _write(settings, attempt, started, result, tree_hash(settings.path(stage.path(task))), inputs)
    return result


def _write(
    settings: Settings, attempt: dict[str, Any], started: float, result: StageResult, version: str, inputs: Mapping
) -> None:
    done = Attempt(
        **attempt,
        state="done",
        version=version,
        seconds=time.monotonic() - started,
        rows=result.rows,
        inputs=dict(inputs),
        metrics=dict(result.metrics),
        metadata=dict(result.metadata),
    )
    Ledger(settings).write(done)


def known_result(settings: Settings, task: str, stage: Stage, version: str) -> StageResult:
    """What the ledger remembers of the run that left this version."""
    maker = Ledger(settings).maker(task, stage.name, version)
    return StageResult(maker.rows, maker.metrics, maker.metadata) if maker else StageResult()


def run_recorded(
    settings: Settings,
    versions: Versions,
    task: str,
    stage: Stage,
    *,
    run_id: str | None = None,
    force: bool = False,
    call: Any = execute,
    progress: Progress = quiet,
) -> Outcome:
    """Run the stage unless its result is there, and record it in DVC and in the ledger: Dagster's face.

    ``call`` runs the function: ``execute`` here, or something with its signature that runs a child process.
    """
    started = time.monotonic()
    with exclusive(settings, stage, task):
        if not force and (versions.state(stage, task) == "fresh" or versions.restore(stage, task)):
            version = versions.version(stage, task) or ""
            seconds = time.monotonic() - started
            return Outcome(task, stage.name, version, False, seconds, known_result(settings, task, stage, version))
        attempt = _attempt(settings, task, stage, "dagster", run_id)
        with _failures_recorded(settings, attempt, started):
            read = versions.read_hashes(stage, task)
            result = call(settings, task, stage, progress)
            inputs = {n: versions.version(get_stage(n), task) or "" for n in stage.inputs}
            version = versions.record(
                stage, task, read, lambda version: _write(settings, attempt, started, result, version, inputs)
            )
        return Outcome(task, stage.name, version, True, time.monotonic() - started, result)
