"""How far answers agree with what people said since: a quick figure, kept up to date as labels come.

It is told a minute after a label, of every Bento, and it is not the served quality, which the check judges by the task's
own figure and writes into its book (``monitoring.quality``). Words are joined to answers as they are there; an answer is
compared as two versions' are (``serving.agreement``): of labels, the share that is right.

An hour of feedback is read again only when its files have changed, and an answer is looked up once: with a million
answers and thousands of labels a look costs what is new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lepton_platform.monitoring.words import Row, Said, Word, Words
from lepton_platform.serving.agreement import pair
from lepton_platform.serving.log_reader import FEEDBACK, compacted, find, hours, read_rows, segments

DAYS = 7  # of answers that count, and of labels that are looked at
MOST_NEW = 500  # answers that a look looks up, a task; the others wait for the next
Stamp = tuple[tuple[str, int, int], ...]
By = Literal["model", "deployment"]
_OWN = ("id", "prediction_id", "at")  # of a word in the log; the rest is what is true


@dataclass(frozen=True)
class Agreed:
    """``labelled`` answers that people said the truth of; ``agreed``: the sum of how far they agree with it, 0 to 1 each."""

    agreed: float = 0.0
    labelled: int = 0

    @property
    def share(self) -> float:
        return self.agreed / self.labelled

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's, which is for answers that are right or wrong: of those that agree in part it is wider than need be."""
        from lepton_platform.monitoring.performance import wilson

        return wilson(self.agreed, self.labelled, confidence)


@dataclass(frozen=True)
class _Compared:
    """An answer with a word on it: that word's id; who answered when; how far it agrees. ``row``: none of an unknown one."""

    word: str
    row: Row | None
    agreed: float


class Labelled:
    """``of`` is called again and again, from one thread at a time."""

    def __init__(self, predictions: Path) -> None:
        self.predictions = predictions
        self._read: dict[tuple[str, str], tuple[Stamp, Sequence[Word]]] = {}  # task, hour → its words
        self._compared: dict[tuple[str, str], _Compared] = {}  # task, answer

    def of(self, task: str, since: datetime, by: By = "model", now: datetime | None = None) -> dict[str, Agreed]:
        """By Bento tag or deployment: answers given since then that people have said the truth of."""
        first, until = since.astimezone(UTC).strftime("%Y-%m-%dT%H"), now or datetime.now(UTC)
        told = [word for hour in hours(self.predictions, task) if hour >= first for word in self._words(task, hour)]
        words = Words.of(told, until)
        known = self._compare(task, words.said)
        rows = [one.row for one in known.values() if one.row is not None]
        found: dict[str, Agreed] = {}
        for row, _ in words.on(rows, since=since, until=until)[0]:
            before = found.get(row[by], Agreed())
            found[row[by]] = Agreed(before.agreed + known[row["id"]].agreed, before.labelled + 1)
        self._forget(task, first, words.said)
        return found

    def _words(self, task: str, hour: str) -> Sequence[Word]:
        paths = [*segments(self.predictions, task, hour, FEEDBACK), compacted(self.predictions, task, hour, FEEDBACK)]
        stamp = tuple((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in paths if p.is_file())
        known = self._read.get((task, hour))
        if known is None or known[0] != stamp:
            rows = read_rows(self.predictions, task, hour, FEEDBACK) if stamp else []
            known = self._read[task, hour] = stamp, [_word(row) for row in rows]
        return known[1]

    def _compare(self, task: str, said: Mapping[str, Said]) -> dict[str, _Compared]:
        """Each answer with its last word, as far as ``MOST_NEW`` goes."""
        found, left = {}, MOST_NEW
        for answer, word in said.items():
            known = self._compared.get((task, answer))
            if known is None or known.word != word.id:
                if left == 0:
                    continue
                left -= 1
                known = self._compared[task, answer] = self._look_up(task, answer, word)
            found[answer] = known
        return found

    def _look_up(self, task: str, answer: str, word: Said) -> _Compared:
        row = find(self.predictions, task, answer)
        if row is None:
            return _Compared(word.id, None, 0.0)
        who = {name: str(row.get(name, "")) for name in ("id", "model", "deployment")}
        return _Compared(word.id, {**who, "at": datetime.fromisoformat(row["at"])}, pair(row, word.truth))

    def _forget(self, task: str, first: str, said: Mapping[str, Any]) -> None:
        for key in [key for key in self._read if key[0] == task and key[1] < first]:
            del self._read[key]
        for key in [key for key in self._compared if key[0] == task and key[1] not in said]:
            del self._compared[key]


def _word(row: Row) -> Word:
    truth = {name: value for name, value in row.items() if name not in _OWN}
    return Word(row["prediction_id"], datetime.fromisoformat(row["at"]), truth, row["id"])
