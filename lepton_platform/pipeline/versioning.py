"""DVC's one door: the version of what a stage left, whether it is still true, and recording a new one."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lepton_platform.pipeline.stages import STAGES, Stage
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

State = Literal["fresh", "stale", "missing"]
LOCK_WAIT_S = 120.0


def init(workspace: Path) -> None:
    """Make the workspace a DVC repository; inside git it is a sub-repository of its own.

    One that was made before there was git is told of it: its ``no_scm`` is taken out.
    """
    in_git = any((folder / ".git").exists() for folder in (workspace, *workspace.parents))
    config = workspace / ".dvc" / "config"
    if not (workspace / ".dvc").is_dir():
        from dvc.repo import Repo

        at_top = (workspace / ".git").exists()
        Repo.init(str(workspace), no_scm=not in_git, subdir=in_git and not at_top).close()
        config.write_text(CONFIG.format(scm="" if in_git else NO_SCM), "utf-8")
        (workspace / ".dvcignore").write_text(IGNORE, "utf-8")
    elif in_git and config.is_file() and NO_SCM in (written := config.read_text("utf-8")):
        config.write_text(written.replace(NO_SCM, ""), "utf-8")
    ignored = workspace / ".dvc" / ".gitignore"
    if (
        not ignored.exists()
    ):  # without git DVC writes none, and a later `git init` and `git add` would take in its cache
        ignored.write_text(IGNORED_BY_GIT, "utf-8")


NO_SCM = "    no_scm = True\n"
IGNORED_BY_GIT = "/config.local\n/tmp\n/cache\n"
CONFIG = """\
[core]
{scm}    analytics = false
    check_update = false
    autostage = false
[cache]
    type = "reflink,hardlink,copy"
"""
IGNORE = "__pycache__\n*.pyc\n.*.new-*\n.*.old-*\n"


def tree_hash(path: Path) -> str:
    """The DVC hash of a file or folder as it lies there, by DVC's own code; no repository is opened."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem
    from dvc_objects.fs.memory import MemoryFileSystem

    store = HashFileDB(MemoryFileSystem(), f"memory://lepton-{os.getpid()}", hash_name="md5")
    _, _, found = build(store, str(path), LocalFileSystem(), "md5", dry_run=True)
    return str(found.hash_info.value)


def _hash(entry: "Output") -> str:
    return str(entry.hash_info.value) if entry.hash_info else ""


def _write_lock(entry: "PipelineStage") -> None:
    """Record the stage in ``dvc.lock``: whole or not at all, and the stages in the order of ``dvc.yaml``.

    DVC's own ``dump`` writes in place, which a kill would cut short, and appends, so that the bytes would tell in
    which order independent stages happened to end.
    """
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import dumps_yaml, load_yaml

    pipeline = Path(entry.dvcfile.path)
    lock = pipeline.with_suffix(".lock")
    held: dict[str, Any] = load_yaml(lock) if lock.exists() else {"schema": "2.0"}
    stages: dict[str, Any] = held.get("stages", {}) | dict(to_lockfile(entry))
    order = {name: place for place, name in enumerate(load_yaml(pipeline)["stages"])}
    ordered = {name: stages[name] for name in sorted(stages, key=lambda n: (order.get(n, len(order)), n))}
    text = dumps_yaml(held | {"stages": ordered})
    if not lock.exists() or lock.read_text(encoding="utf-8") != text:
        fresh = lock.with_name(f".{lock.name}.new-{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(lock)


@dataclass(frozen=True)
class Recorded:
    """A stage as ``dvc.lock`` knows it and the workspace holds it; ``version`` is ``None`` where it never ran."""

    state: State
    version: str | None


def _missing(entry: "PipelineStage") -> list[str]:
    """What the stage reads and is not there, as dvc.yaml names it."""
    return [dep.def_path for dep in entry.deps if not dep.exists]


def _state(entry: "PipelineStage") -> State:
    out = entry.outs[0]
    if not out.hash_info or not out.exists:
        return "missing"
    return "stale" if entry.changed() else "fresh"


class Versions:
    """The workspace's DVC repository, kept open for a run. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.workspace = settings.workspace
        self._repo: Repo | None = None

    def __enter__(self) -> "Versions":
        return self

    def __exit__(self, *_: object) -> None:
        if self._repo is not None:
            self._repo.close()
            self._repo = None

    @property
    def repo(self) -> "Repo":
        if self._repo is None:
            from dvc.exceptions import NotDvcRepoError
            from dvc.repo import Repo

            logging.getLogger("dvc").setLevel(logging.ERROR)
            try:
                self._repo = Repo(str(self.workspace))
            except NotDvcRepoError:
                raise StageFailed(
                    f"{self.workspace} is not a DVC repository. `lepton init {self.workspace}` makes it one."
                ) from None
        return self._repo

    def _stage(self, stage: Stage, task: str) -> "PipelineStage":
        from dvc.stage.exceptions import StageNotFound

        try:
            target = f"{self.workspace / 'dvc.yaml'}:{stage.dvc_name(task)}"
            return next(iter(self.repo.stage.collect(target)))  # pyright: ignore[reportReturnType]
        except StageNotFound:
            raise StageFailed(
                f"dvc.yaml has no stage {stage.dvc_name(task)}. `lepton versioning render` brings it up to date."
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold DVC's lock, waiting for another writer; the stages are read anew on both sides."""
        from dvc.lock import LockError

        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                self.repo.lock.lock()
                break
            except LockError:
                if time.monotonic() > deadline:
                    raise StageFailed(
                        f"Another process has held DVC's lock in {self.workspace} for {LOCK_WAIT_S:.0f} s. "
                        "Wait for it to end (`dvc repro`, `lepton run`), then run again."
                    ) from None
                time.sleep(0.2)
        try:
            self.repo._reset()
            yield
        finally:
            self.repo._reset()
            self.repo.lock.unlock()

    def version(self, stage: Stage, task: str) -> str | None:
        """The DVC hash recorded in ``dvc.lock`` for what the stage left."""
        return _hash(self._stage(stage, task).outs[0]) or None

    def inputs(self, stage: Stage, task: str) -> dict[str, str]:
        """What ``dvc.lock`` says was read: path → DVC hash, parameters left out."""
        found = self._stage(stage, task).deps
        return {d.def_path: d.hash_info.value for d in found if d.hash_info and isinstance(d.hash_info.value, str)}

    def state(self, stage: Stage, task: str) -> State:
        """``missing``: never run or its files are gone. ``stale``: inputs, code, parameters or files differ."""
        with self._locked():
            return _state(self._stage(stage, task))

    def recorded(self, tasks: Iterable[str]) -> dict[str, dict[str, Recorded]]:
        """Task → stage → its own state (what `dvc status` says) and the version in ``dvc.lock``.

        ``dvc.yaml`` and ``dvc.lock`` are read once for all: DVC parses both for every stage that is asked for.
        See ``stages.behind`` for what follows from a state.
        """
        with self._locked():
            loaded: Any = self.repo.stage.load_file(str(self.workspace / "dvc.yaml"))
            entries = {entry.name: entry for entry in loaded}
            return {task: {s.name: self._recorded(entries, s, task) for s in STAGES} for task in tasks}

    def _recorded(self, entries: Mapping[str, Any], stage: Stage, task: str) -> Recorded:
        entry = entries.get(stage.dvc_name(task)) or self._stage(stage, task)
        return Recorded(_state(entry), _hash(entry.outs[0]) or None)

    def restore(self, stage: Stage, task: str) -> bool:
        """Bring back what the stage left when it last ran on exactly this; ``False`` if it never did.

        What was altered or added by hand in its folder is removed, as `dvc repro` does.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        with self._locked():
            entry = self._stage(stage, task)
            if _missing(entry):
                return False
            try:  # it hashes the dependencies itself; hashed before, every stage would look cached
                self._restore(entry)
            except RunCacheNotFoundError:
                return False
            entry.save(run_cache=False)
            entry.commit()
            _write_lock(entry)
            return True

    def _restore(self, entry: "PipelineStage") -> None:
        from dvc.exceptions import ConfirmRemoveError

        try:
            self.repo.stage_cache.restore(entry)
        except ConfirmRemoveError:
            entry.remove_outs()
            self.repo.stage_cache.restore(entry)

    def read_hashes(self, stage: Stage, task: str) -> dict[str, str]:
        """Hash what the stage is about to read, code and parameters included; ``StageFailed`` names what is not there."""
        with self._locked():
            entry = self._stage(stage, task)
            missing = _missing(entry)
            if missing:
                raise StageFailed(
                    f"{task}/{stage.name} reads {', '.join(missing)}, and there is no such file. Relative paths count "
                    f"from the workspace, {self.workspace}."
                )
            entry.save_deps()
            return {str(dep): _hash(dep) for dep in entry.deps}

    def record(
        self, stage: Stage, task: str, read: dict[str, str], note: Callable[[str], None] = lambda version: None
    ) -> str:
        """Write what the stage left into DVC's cache and ``dvc.lock``; returns its version.

        ``note`` is told the version before ``dvc.lock`` is: who is killed in between runs the stage again, and no
        version stands in the lock whose making was not noted.

        ``StageFailed`` where an input has changed since ``read``: the output would be filed under a wrong past.
        """
        with self._locked():
            entry = self._stage(stage, task)
            entry.save()
            after = {str(dep): _hash(dep) for dep in entry.deps}
            changed = sorted(name for name in after if after[name] != read.get(name))
            if changed:
                raise StageFailed(
                    f"{', '.join(changed)} changed while {task}/{stage.name} was running, so its result was not "
                    "recorded. Run again."
                )
            entry.commit()
            note(_hash(entry.outs[0]))
            _write_lock(entry)
            return _hash(entry.outs[0])

    def files(self, version: str) -> dict[str, Path]:
        """The files of an earlier version, from DVC's cache: name in the folder → where its bytes lie.

        ``StageFailed`` where the cache no longer holds them (``dvc gc``, or another machine made them).
        """
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        store = self.repo.cache.local
        try:
            tree = Tree.load(store, HashInfo("md5", version))
        except Exception:
            raise StageFailed(
                f"DVC's cache does not hold {version}. `dvc fetch` brings it from the remote, where there is one."
            ) from None
        return {"/".join(key): Path(store.oid_to_path(str(info.value))) for key, (_, info) in tree.iteritems() if info}
