"""Champion against challenger: both answer the same frozen rows, each with its own code, as they would be served.

How good the answers are, the task's evaluator says: it is the one that the stage ``quality`` asked.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lepton_platform.serving import offline
from lepton_platform.serving.agreement import agreement
from lepton_platform.serving.params import RolloutParams
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa

    from lepton_platform.training.bootstrap import Interval
    from lepton_platform.training.evaluation import Sampling


class Judge(Protocol):
    """What is asked of a task's evaluator (``training.evaluation.Evaluator``)."""

    @property
    def headline_name(self) -> str: ...

    def served(self, rows: "pa.Table", answers: Sequence[Mapping[str, Any]]) -> "pa.Table": ...

    def headline(self, answers: "pa.Table") -> float: ...

    def compare(self, one: "pa.Table", other: "pa.Table", sampling: "Sampling") -> "Interval": ...


@dataclass(frozen=True)
class Comparison:
    """The ``figure`` that decides, of both on the same ``rows``.

    ``difference`` is challenger - champion, with its 95 % interval. ``disagreement``: how far their answers differ, 0 to
    1, as it is measured where both serve.
    """

    rows: int
    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    figure: str = "accuracy"
    disagreement: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


TEST = "on the same"  # rows; so a verdict names those that it is about
RECENT = "on the latest labelled production"


def verdict(found: Comparison, max_loss: float, where: str = TEST) -> tuple[bool, str]:
    """May the challenger be promoted, and why.

    Two conditions, both on the interval of the paired difference: it must not be shown to be worse (the interval
    lies below zero), and it must be shown not to be worse by more than ``max_loss`` (non-inferiority; a test that
    is too small to show that promotes nobody).
    """
    figures = (
        f"{found.figure[:1].upper()}{found.figure[1:]} {found.challenger:.4f} against the champion's "
        f"{found.champion:.4f} {_counted(where, found.rows)}, difference {found.difference:+.4f}, "
        f"95 % interval [{found.low:+.4f}, {found.high:+.4f}]"
    )
    if found.high < 0:
        return False, f"Refused: worse than the champion. {figures}."
    if found.low < -max_loss:
        return False, f"Refused: it may be worse by more than {max_loss:g}. {figures}."
    better = "better" if found.low > 0 else "not worse"
    return True, f"Promoted: {better} than the champion. {figures}."


def _counted(where: str, rows: int) -> str:
    """``on the same 1,900 rows``, ``on the latest 300 labelled production rows``."""
    words = where.split()
    return " ".join([*words[:3], f"{rows:,}", *words[3:], "rows"])


def compare(champion: Path, challenger: Path, test: Path, params: RolloutParams, judge: Judge) -> Comparison:
    """Let both Bentos answer the rows of ``test`` (a data set with what is true) and compare them row by row."""
    return _compare(champion, challenger, _rows(test, params.max_rows), judge)


def compare_recent(
    champion: Path, challenger: Path, production: Path, params: RolloutParams, judge: Judge
) -> Comparison | None:
    """The same on the latest labelled rows of the service, which neither has learnt from; ``None`` of too few."""
    if not production.is_dir():
        return None
    rows = _latest(production, params.recent_rows)
    return _compare(champion, challenger, rows, judge) if rows.num_rows >= params.min_recent_rows else None


def _compare(champion: Path, challenger: Path, rows: "pa.Table", judge: Judge) -> Comparison:
    from lepton_platform.training.bootstrap import REPEATS
    from lepton_platform.training.evaluation import Sampling

    with ThreadPoolExecutor(2) as pool:  # each in a process that computes on one core
        said = list(pool.map(lambda bento: answers(bento, _each(rows)), (challenger, champion)))
    new, old = (judge.served(rows, one) for one in said)
    found = judge.compare(new, old, Sampling(REPEATS, seed=0))
    figures = judge.headline(old), judge.headline(new)
    apart = 1 - agreement(*said)
    return Comparison(rows.num_rows, *figures, found.estimate, found.low, found.high, judge.headline_name, apart)


def _rows(test: Path, most: int) -> "pa.Table":
    """The first by id, in the data set's order."""
    from lepton_platform.data.dataset import Dataset

    wanted = sorted(Dataset(test).read(["id"])["id"].to_pylist())[:most]
    if not wanted:
        raise StageFailed(f"{test} holds no test rows to compare on.")
    return _with_ids(test, wanted)


def _latest(production: Path, most: int) -> "pa.Table":
    """The latest by their time, in the data set's order."""
    from lepton_platform.data.dataset import Dataset

    times = Dataset(production).read(["id", "event_time"]).to_pylist()
    times.sort(key=lambda row: (row["event_time"], row["id"]))
    return _with_ids(production, [row["id"] for row in times[-most:]])


def _with_ids(test: Path, wanted: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    from lepton_platform.data.dataset import Dataset

    tables = (pa.Table.from_batches([batch]) for batch in Dataset(test).batches())
    return pa.concat_tables([table.filter(pc.field("id").isin(wanted)) for table in tables])


def _each(rows: "pa.Table") -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches(100):
        yield from batch.to_pylist()


def answers(bento: Path, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The Bento's answers to rows, in order, from a process that runs the Bento's own code.

    An input that it refuses has ``{"error": …}``.
    """
    command = [sys.executable, "-m", offline.__name__, str(bento.resolve())]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as lines:  # pictures would fill the memory twice
        lines.writelines(map(offline.write_line, rows))
        lines.seek(0)
        done = subprocess.run(
            command, stdin=lines, cwd=bento / "src", env=quiet, capture_output=True, text=True, check=False
        )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise StageFailed(f"The Bento in {bento} could not answer the test rows:\n{last}")
    return [json.loads(line) for line in done.stdout.splitlines()]
