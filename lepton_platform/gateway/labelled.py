"""How many answers were right, of those that people said the truth of: kept up to date as labels come.

An hour of feedback is read again only when its files have changed, and an answer is looked up once: with a million
answers and thousands of labels a look costs what is new.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lepton_platform.gateway.agreement import pair
from lepton_platform.serving.ids import hour_of
from lepton_platform.serving.log_reader import FEEDBACK, compacted, find, hours, read_rows, segments

DAYS = 7  # of answers that count, and of labels that are looked at
MOST_NEW = 500  # answers that a look looks up, a task; the others wait for the next
RIGHT = 0.5  # agreement with what people said from which an answer counts as right: of boxes, half
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Right:
    """Answers that people said the truth of, and those that were right."""

    right: int = 0
    labelled: int = 0


class Labelled:
    """``of`` is called again and again, from one thread at a time."""

    def __init__(self, predictions: Path) -> None:
        self.predictions = predictions
        self._read: dict[tuple[str, str], tuple[Stamp, dict[str, dict[str, Any]]]] = {}  # task, hour → its words
        self._judged: dict[tuple[str, str], tuple[str, str | None, bool]] = {}  # task, answer → word, Bento, right

    def of(self, task: str, now: datetime | None = None) -> dict[str, Right]:
        """By Bento tag: answers of the last ``DAYS``, the last word on each; words on unknown answers do not count."""
        since = ((now or datetime.now(UTC)) - timedelta(days=DAYS)).astimezone(UTC).strftime("%Y-%m-%dT%H")
        words: dict[str, dict[str, Any]] = {}
        for hour in hours(self.predictions, task):
            if hour >= since:
                words |= self._words(task, hour)
        left = MOST_NEW
        found: dict[str, Right] = {}
        for answer, word in words.items():
            if (hour_of(answer) or "") < since:
                continue
            known = self._judged.get((task, answer))
            if known is None or known[0] != word["id"]:
                if left == 0:
                    continue
                left -= 1
                known = self._judged[task, answer] = (word["id"], *self._judge(task, answer, word))
            if known[1] is not None:
                before = found.get(known[1], Right())
                found[known[1]] = Right(before.right + known[2], before.labelled + 1)
        self._forget(task, since, words)
        return found

    def _words(self, task: str, hour: str) -> Mapping[str, dict[str, Any]]:
        """An hour's last words by answer."""
        paths = [*segments(self.predictions, task, hour, FEEDBACK), compacted(self.predictions, task, hour, FEEDBACK)]
        stamp = tuple((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in paths if p.is_file())
        known = self._read.get((task, hour))
        if known is None or known[0] != stamp:
            rows = read_rows(self.predictions, task, hour, FEEDBACK) if stamp else []
            known = self._read[task, hour] = stamp, {row["prediction_id"]: row for row in rows}
        return known[1]

    def _judge(self, task: str, answer: str, word: Mapping[str, Any]) -> tuple[str | None, bool]:
        row = find(self.predictions, task, answer)
        if row is None:
            return None, False
        return str(row.get("model", "")), pair(row, word) >= RIGHT

    def _forget(self, task: str, since: str, words: Mapping[str, Any]) -> None:
        for key in [key for key in self._read if key[0] == task and key[1] < since]:
            del self._read[key]
        for key in [key for key in self._judged if key[0] == task and key[1] not in words]:
            del self._judged[key]


def interval(found: Right) -> tuple[float, float]:
    """Of the share that is right, 95 % (Wilson 1927)."""
    from lepton_platform.monitoring.performance import wilson

    return wilson(found.right, found.labelled)
