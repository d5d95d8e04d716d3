"""What a rehearsal sends: real inputs that the workspace has never seen, as it is used to them and as they become."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from lepton_platform.data.clean import CleanParams
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.packages import fetch_members
from lepton_platform.data.records import ID, PROBLEM, content_id
from lepton_platform.pipeline.params import section
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.rehearsal.client import Row
from lepton_platform.rehearsal.weather import as_file, dusk, fog, others_boxes, pieces
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part

# Sentences of the Sentiment Labelled Sentences (Kotzias et al. 2015), half of them praise, as `sentiment` carries them
_SENTENCES = {
    "package/test/fixtures/amazon.json": "bc5eb0cac49fc45987301f1dc2d02cf5ca356ba6c882be179dce77d74e666ed9",
    "package/test/fixtures/yelp.json": "9f3f47983f21eeb819380767b74bfa648eca208f156241111454b3e122773ff7",
}


@dataclass(frozen=True)
class Sizes:
    """Rows: as usual; of the new kind with what is true of them; of the new kind that only the figures are made of.

    ``clients`` ask at a time while a canary takes its share.
    """

    ordinary: int
    labelled: int
    probe: int
    clients: int = 4

    @property
    def total(self) -> int:
        return self.ordinary + self.labelled + self.probe


Both = tuple[list[Row], list[Row]]


def shuffled(rows: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    """The rows' truths in another order, the same every time."""
    truths = [row[column] for row in rows]
    random.Random(0).shuffle(truths)
    return truths


@dataclass(frozen=True)
class Shift:
    """``about``: what changes, in words. ``rows``: what is asked as usual, and labelled inputs of the new kind.

    Both come in an order that tells nothing. ``truth``: the source's column. ``mixed``: rows and that column → for each
    row the truth of another; ``reads``: the columns that it needs besides.
    """

    about: str
    rows: Callable[[Settings], Both]
    sizes: Sizes
    truth: str = "label"
    mixed: Callable[[Sequence[Mapping[str, Any]], str], list[Any]] = shuffled
    reads: tuple[str, ...] = ()


def unseen(settings: Settings, task: str, most: int) -> list[Row]:
    """Labelled inputs of the source whose groups the workspace's sample has none of, in the order of a hash.

    At most so many, of those that the stage ``clean`` would keep.
    """
    source, preprocess = load_part(task, "source"), load_part(task, "preprocess")
    params: Any = section(settings.workspace, task, "source", source.SourceParams)
    whole = params.model_copy(update={"limit": None, "limit_groups": None})
    known = set(Dataset(settings.path(get_stage("raw").path(task))).read([source.GROUP])[source.GROUP].to_pylist())
    others = [
        record
        for record in source.records(whole, settings.cache_dir)
        if not record.get(PROBLEM) and record[source.GROUP] not in known
    ]
    others.sort(key=lambda record: content_id("rehearsal", record[ID]))
    limits = section(settings.workspace, task, "clean", CleanParams)
    kept = (record for record in others if _is_clean(record, preprocess, limits))
    truth = shift_of(task).truth
    return [Row(record[preprocess.CONTENT], record[truth]) for record in islice(kept, most)]


def _is_clean(record: Mapping[str, Any], preprocess: Any, limits: Any) -> bool:
    if getattr(preprocess, "usable", lambda _: None)(record) is not None:
        return False
    try:
        size = preprocess.size(preprocess.normalise(record[preprocess.CONTENT]))
    except ValueError:
        return False
    return limits.min_size <= size <= limits.max_size


def _of_products_and_restaurants(settings: Settings) -> Both:
    folder = fetch_members("sentiment", "5.0.2", _SENTENCES, settings.cache_dir, client="npm")
    rows = [row for name in _SENTENCES for row in _sentences(folder / name)]
    usual = unseen(settings, "sentiment", SHIFTS["sentiment"].sizes.ordinary)
    return usual, sorted(rows, key=lambda row: content_id("rehearsal", row.content))


def _sentences(path: Path) -> Iterator[Row]:
    for line in json.loads(path.read_text(encoding="utf-8")):
        if line["text"].strip():
            yield Row(line["text"], "fresh" if line["class"] else "rotten")


def _black_on_white(settings: Settings) -> Both:
    from lepton_platform.data.images import decode, encode_png

    usual, others = _two_parts(settings, "digits")
    return usual, [Row(encode_png(255 - decode(row.content)), row.truth) for row in others]


def _called_in(settings: Settings) -> Both:
    from lepton_platform.rehearsal.sounds import called_in, music

    usual, others = _two_parts(settings, "prompts")
    played = music(settings.cache_dir)
    places = range(0, len(played), max(1, len(played) // max(1, len(others))))
    return usual, [Row(called_in(row.content, played, at), row.truth) for row, at in zip(others, places, strict=False)]


def _two_parts(settings: Settings, task: str) -> Both:
    sizes = SHIFTS[task].sizes
    rows = unseen(settings, task, sizes.total)
    return rows[: sizes.ordinary], rows[sizes.ordinary :]


def _at_dusk_in_fog(settings: Settings) -> Both:
    """Pieces of the tiles that the workspace's sample has left out: on a clear day, and the same once more."""
    from lepton_platform.data.images import decode
    from lepton_platform.tasks.trees import source

    params: Any = section(settings.workspace, "trees", "source", source.SourceParams)
    whole = params.model_copy(update={"tiles_per_photo": None, "spread": False})
    ids = set(Dataset(settings.path(get_stage("raw").path("trees"))).read([ID])[ID].to_pylist())
    tiles = list(source.records(whole, settings.cache_dir))
    known = [tile for tile in tiles if tile[ID] in ids]
    others = [tile for tile in tiles if tile[ID] not in ids]
    clear = [Row(as_file(photo), boxes) for tile in others for photo, boxes in pieces(tile, known)]
    clear.sort(key=lambda row: content_id("rehearsal", sha256(row.content).hexdigest()))
    return clear, [Row(as_file(fog(dusk(decode(row.content)))), row.truth) for row in clear]


SHIFTS: Mapping[str, Shift] = {
    "sentiment": Shift(
        "sentences about products and restaurants instead of films",
        _of_products_and_restaurants,
        Sizes(ordinary=200, labelled=1_200, probe=800),
    ),
    "digits": Shift("black ink on white paper", _black_on_white, Sizes(ordinary=200, labelled=800, probe=400)),
    "prompts": Shift(
        "callers on a telephone line, with music behind at 5 dB",
        _called_in,
        Sizes(ordinary=50, labelled=180, probe=150, clients=3),
        truth="text",
    ),
    "trees": Shift(
        "photos taken at dusk and in fog",
        _at_dusk_in_fog,
        Sizes(ordinary=24, labelled=72, probe=42, clients=2),
        truth="boxes",
        mixed=others_boxes,
        reads=("width", "height"),
    ),
}


def shift_of(task: str) -> Shift:
    """``StageFailed`` names the tasks that can be rehearsed."""
    if task not in SHIFTS:
        raise StageFailed(f"There is no rehearsal of {task}. Those there are: {', '.join(SHIFTS)}.")
    return SHIFTS[task]
