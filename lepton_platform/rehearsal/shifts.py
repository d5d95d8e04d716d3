"""What a rehearsal sends: real inputs that the workspace has never seen, as it is used to them and as they become."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.packages import fetch_members
from lepton_platform.data.records import ID, PROBLEM, content_id
from lepton_platform.pipeline.params import section
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.rehearsal.client import Row
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part

# Sentences of the Sentiment Labelled Sentences (Kotzias et al. 2015), half of them praise, as `sentiment` carries them
_SENTENCES = {
    "package/test/fixtures/amazon.json": "bc5eb0cac49fc45987301f1dc2d02cf5ca356ba6c882be179dce77d74e666ed9",
    "package/test/fixtures/yelp.json": "9f3f47983f21eeb819380767b74bfa648eca208f156241111454b3e122773ff7",
}


@dataclass(frozen=True)
class Shift:
    """``about``: what changes, in words. ``rows``: labelled inputs of the new kind, in an order that tells nothing."""

    about: str
    rows: Callable[[Settings], list[Row]]
    truth: str | None = None  # the column of truths of a task whose rows have no one label


def unseen(settings: Settings, task: str) -> list[Row]:
    """Labelled inputs of the source whose groups the workspace's sample has none of, in the order of a hash."""
    source, preprocess = load_part(task, "source"), load_part(task, "preprocess")
    params: Any = section(settings.workspace, task, "source", source.SourceParams)
    whole = params.model_copy(update={"limit": None, "limit_groups": None})
    known = set(Dataset(settings.path(get_stage("raw").path(task))).read([source.GROUP])[source.GROUP].to_pylist())
    rows = [
        (record[ID], Row(record[preprocess.CONTENT], record[preprocess.LABEL]))
        for record in source.records(whole, settings.cache_dir)
        if not record.get(PROBLEM) and record[source.GROUP] not in known
    ]
    return [row for _, row in sorted(rows, key=lambda one: content_id("rehearsal", one[0]))]


def _of_products_and_restaurants(settings: Settings) -> list[Row]:
    folder = fetch_members("sentiment", "5.0.2", _SENTENCES, settings.cache_dir, client="npm")
    rows = [row for name in _SENTENCES for row in _sentences(folder / name)]
    return sorted(rows, key=lambda row: content_id("rehearsal", row.content))


def _sentences(path: Path) -> Iterator[Row]:
    for line in json.loads(path.read_text(encoding="utf-8")):
        if line["text"].strip():
            yield Row(line["text"], "fresh" if line["class"] else "rotten")


@cache
def shifts() -> Mapping[str, Shift]:
    return {
        "sentiment": Shift("sentences about products and restaurants instead of films", _of_products_and_restaurants),
    }


def shift_of(task: str) -> Shift:
    """``StageFailed`` names the tasks that can be rehearsed."""
    if task not in shifts():
        raise StageFailed(f"There is no rehearsal of {task}. Those there are: {', '.join(shifts())}.")
    return shifts()[task]
