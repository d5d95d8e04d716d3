"""Champion against challenger: both answer the same frozen rows, each with its own code, as they would be served."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lepton_platform.serving import offline
from lepton_platform.serving.params import RolloutParams
from lepton_platform.stage import StageFailed

LABEL = "label"  # of the test rows


@dataclass(frozen=True)
class Comparison:
    """Accuracies on the same ``rows``; ``difference`` is challenger - champion with its 95 % interval."""

    rows: int
    champion: float
    challenger: float
    difference: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verdict(found: Comparison, max_loss: float) -> tuple[bool, str]:
    """May the challenger be promoted, and why.

    Two conditions, both on the interval of the paired difference: it must not be shown to be worse (the interval
    lies below zero), and it must be shown not to be worse by more than ``max_loss`` (non-inferiority; a test that
    is too small to show that promotes nobody).
    """
    figures = (
        f"{found.challenger:.4f} against the champion's {found.champion:.4f} on the same {found.rows:,} rows, "
        f"difference {found.difference:+.4f}, 95 % interval [{found.low:+.4f}, {found.high:+.4f}]"
    )
    if found.high < 0:
        return False, f"Refused: worse than the champion. Accuracy {figures}."
    if found.low < -max_loss:
        return False, f"Refused: it may be worse by more than {max_loss:g}. Accuracy {figures}."
    better = "better" if found.low > 0 else "not worse"
    return True, f"Promoted: {better} than the champion. Accuracy {figures}."


def compare(champion: Path, challenger: Path, test: Path, params: RolloutParams) -> Comparison:
    """Let both Bentos answer the rows of ``test`` (a data set with labels) and compare them row by row."""
    from lepton_platform.training.bootstrap import paired_difference

    rows = _rows(test, params.max_rows)
    right = [_right(answers(bento, rows), rows) for bento in (challenger, champion)]
    groups = [row[params.group] for row in rows] if params.group else None
    difference, low, high = paired_difference(right[0], right[1], groups)
    mean = [sum(scores) / len(scores) for scores in right]
    return Comparison(len(rows), mean[1], mean[0], difference, low, high)


def _rows(test: Path, most: int) -> list[dict[str, Any]]:
    from lepton_platform.data.dataset import Dataset

    rows = sorted(Dataset(test).read().to_pylist(), key=lambda row: row["id"])[:most]
    if not rows:
        raise StageFailed(f"{test} holds no test rows to compare on.")
    return rows


def _right(given: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[float]:
    """1.0 for a right answer; an input that the service would refuse is a wrong one."""
    return [float(answer.get(LABEL) == row[LABEL]) for answer, row in zip(given, rows, strict=True)]


def answers(bento: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Bento's answers to rows, in order, from a process that runs the Bento's own code."""
    lines = "".join(json.dumps(row, default=str) + "\n" for row in rows)
    command = [sys.executable, "-m", offline.__name__, str(bento.resolve())]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, input=lines, cwd=bento / "src", env=quiet, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise StageFailed(f"The Bento in {bento} could not answer the test rows:\n{last}")
    return [json.loads(line) for line in done.stdout.splitlines()]
