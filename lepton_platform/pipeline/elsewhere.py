"""What can be told of a version that the ledger saw nobody make: another machine did, and `dvc pull` brought it here."""

import json
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lepton_platform.pipeline.stages import Stage
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.stage import StageFailed

_COMMIT = "commit "


@dataclass(frozen=True)
class Elsewhere:
    """``metrics``: the few figures that the stage left beside its result. ``commit``: the first whose dvc.lock names the
    version, and ``committed_at`` when that was made; ``None`` outside git, and where it is not committed.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    commit: str | None = None
    committed_at: str | None = None


def made_elsewhere(versions: Versions, wanted: Collection[tuple[Stage, str]]) -> dict[str, Elsewhere]:
    """Version → what DVC's cache and git know of it. Asked for nothing, it reads nothing."""
    if not wanted:
        return {}
    commits = first_commits(versions.workspace, {version for _, version in wanted})
    return {
        version: Elsewhere(_metrics(versions, stage, version), *commits.get(version, ())) for stage, version in wanted
    }


def _metrics(versions: Versions, stage: Stage, version: str) -> dict[str, float]:
    """Of the version, whatever lies in the workspace; none where the cache does not hold it."""
    if stage.metrics is None:
        return {}
    try:
        told = json.loads(versions.files(version)[stage.metrics].read_bytes())
    except (StageFailed, KeyError, OSError, ValueError):
        return {}
    return {name: float(value) for name, value in told.items() if isinstance(value, int | float)}


def first_commits(workspace: Path, wanted: Collection[str]) -> dict[str, tuple[str, str]]:
    """Version → hash and time of the commit that brought it into dvc.lock, from one reading of that file's history.

    A clone with a shortened history knows the earliest that it has.
    """
    command = [
        "git",
        "-C",
        str(workspace),
        "log",
        "--reverse",
        f"--format={_COMMIT}%H %cI",
        "-p",
        "-U0",
        "--",
        "dvc.lock",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, tuple[str, str]] = {}
    commit = at = ""
    for line in answer.stdout.splitlines():
        if line.startswith(_COMMIT):
            commit, at = line.removeprefix(_COMMIT).split(" ", 1)
        elif line.startswith("+") and (version := line.split()[-1]) in wanted:
            found.setdefault(version, (commit, at))
    return found
