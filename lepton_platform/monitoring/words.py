"""What people said of answers, joined to them: the one join that every figure about labelled answers is made by.

Words come late, twice, on ids that nobody knows, and contradict each other. They are joined as of a time: the last word
on an answer counts, what was said later does not, so that the same words as of the same time always say the same. Plain
rows in and out: the log's tables and the gateway's lines are joined by the same code.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Word:
    """Said of the answer ``on``: that ``truth``, a JSON value, is true. ``id``: the word's own, where it has one."""

    on: str
    at: datetime
    truth: Any
    id: str = ""


@dataclass(frozen=True)
class Said:
    """The last truth that an answer was given, the id of that word, and whether there had been another truth."""

    truth: Any
    contradicted: bool
    id: str = ""


@dataclass(frozen=True)
class Counts:
    """What became of the words that were said until ``as_of``: each is in one of these, but for ``later``.

    ``labelled``: answers of the window, each with its last word. ``repeated``: words that another on the same id
    replaced; ``contradicted`` of the labelled ones had been given another truth. ``outside``: on answers of other
    hours or models. ``unknown``: on ids that the log does not know. ``later``: words after ``as_of``.
    """

    labelled: int = 0
    repeated: int = 0
    outside: int = 0
    unknown: int = 0
    contradicted: int = 0
    later: int = 0

    @property
    def words(self) -> int:
        """Said until ``as_of``."""
        return self.labelled + self.repeated + self.outside + self.unknown


def last_words(words: Iterable[Word]) -> dict[str, Said]:
    """By answer. Of two words at one instant that with the greater id (or truth) wins: the order plays no part."""
    said: dict[str, Said] = {}
    for on, _, own, text in sorted((w.on, w.at, w.id, json.dumps(w.truth, sort_keys=True)) for w in words):
        value, before = json.loads(text), said.get(on)
        said[on] = Said(value, before is not None and (before.contradicted or before.truth != value), own)
    return said


@dataclass(frozen=True)
class Words:
    """What was known at a time. ``said``: by answer; ``told``: words until then; ``later``: those after it."""

    said: Mapping[str, Said]
    told: int
    later: int

    @classmethod
    def of(cls, words: Iterable[Word], as_of: datetime) -> "Words":
        every = list(words)
        told = [word for word in every if word.at <= as_of]
        return cls(last_words(told), len(told), len(every) - len(told))

    def on(
        self, answers: Iterable[Row], *, since: datetime, until: datetime, model: str | None = None
    ) -> tuple[list[tuple[Row, Said]], Counts]:
        """Answers given in [since, until) by ``model`` (``None``: by any), each with its last word; no answer twice.

        ``answers``: rows with ``id``, ``at`` (a time) and ``model``, which at least hold all that was spoken of.
        """
        found: list[tuple[Row, Said]] = []
        known: set[str] = set()
        for row in answers:
            if row["id"] not in self.said or row["id"] in known:
                continue
            known.add(row["id"])
            if since <= row["at"] < until and model in (None, row.get("model")):
                found.append((row, self.said[row["id"]]))
        return found, Counts(
            labelled=len(found),
            repeated=self.told - len(self.said),
            outside=len(known) - len(found),
            unknown=len(self.said) - len(known),
            contradicted=sum(said.contradicted for _, said in found),
            later=self.later,
        )
