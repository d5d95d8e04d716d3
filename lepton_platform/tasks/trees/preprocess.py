"""How an aerial photo is cleaned and turned into features: what training AND the service run.

Cheap to import: the service reads it at its start.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lepton_platform.data import images
from lepton_platform.data.image_statistics import STATISTICS, descriptors, statistics
from lepton_platform.data.images import as_png as normalise
from lepton_platform.data.images import decode
from lepton_platform.features.views import Column, Entity, FeatureView, Given

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["decode", "identity", "normalise", "shingles", "size", "usable"]

CONTENT = "image"  # what is learnt from: a picture's file, after cleaning a PNG
LABEL = None  # a photo has many boxes and no label of its own
LABELS = ("tree",)
GROUP = "photo"  # tiles of a photo resemble each other, and overlap
REQUIRED = ("image", "width", "height", "boxes", "photo", "core")
IMPUTE: Mapping[str, str] = {}
RANGES: Mapping[str, tuple[float, float]] = {}
TILE_PX = 400  # the side of the smaller photos
MARGIN_PX = 48  # half of what the largest trees measure, so that each is seen whole by the tile that counts it


def size(content: bytes) -> int:
    """Pixels: what ``clean.min_size`` and ``max_size`` count."""
    width, height = images.size_of(content)
    return width * height


def identity(content: bytes) -> str:
    """Pictures with the same identity have the same pixels: a PNG of ``normalise`` has nothing else in it."""
    return hashlib.sha256(content).hexdigest()


def shingles(content: bytes) -> set[str]:
    """Where brightness rises and falls, coarsely: the sets whose overlap says how alike two pictures are."""
    return images.shingles(decode(content))


def usable(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A reason and a detail where a box of the row cannot be right; every box is looked at, the first fault is told."""
    seen: dict[tuple[Any, ...], int] = {}
    for number, box in enumerate(row["boxes"], start=1):
        fault = _fault(box, row["width"], row["height"])
        corners = tuple(round(box[name] or 0) for name in ("x1", "y1", "x2", "y2"))
        first = seen.setdefault((*corners, box["label"]), number)
        if fault is None and first != number:
            fault = "box_duplicate", f"it is box {first} once more"
        if fault is not None:
            reason, detail = fault
            return reason, f"box {number} of {len(row['boxes'])} ({_shown(box)}): {detail}"
    return None


def _fault(box: Mapping[str, Any], width: int, height: int) -> tuple[str, str] | None:
    corners = [box[name] for name in ("x1", "y1", "x2", "y2")]
    if not all(value is not None and math.isfinite(value) for value in corners):
        return "box_malformed", "its corners are not four numbers"
    x1, y1, x2, y2 = corners
    if box["label"] not in LABELS:
        return "unknown_label", f"{box['label']!r} is none of {', '.join(LABELS)}"
    if x2 < x1 or y2 < y1:
        return "box_inverted", "its right or lower edge comes before the other"
    if x1 == x2 or y1 == y2:
        return "box_empty", "it has no area"
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        return "box_outside", f"it leaves the picture of {width} by {height} pixels"
    return None


def _shown(box: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name} {box[name]:g}" if box[name] is not None else f"{name} –" for name in ("x1", "y1", "x2", "y2")
    )


def statistics_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    return statistics([decode(data) for data in rows[CONTENT].to_pylist()])


def descriptor_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    import pyarrow as pa

    found = descriptors([decode(data) for data in rows[CONTENT].to_pylist()])
    return {"descriptor": pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])}


_TILE = Entity("tile_id", "id", "A photo, or a tile of one, by its stable id.")
FEATURE_VIEWS = (
    FeatureView(
        name="image_statistics",
        entity=_TILE,
        columns=tuple(
            Column(name, "int64" if name in ("width", "height") else "float32", said)
            for name, said in STATISTICS.items()
        ),
        function=statistics_of,
        reads=(CONTENT,),
        description="What can be measured in a photo: light, colours, sharpness, vegetation, damage.",
        owner="trees",
    ),
    FeatureView(
        name="image_descriptor",
        entity=_TILE,
        columns=(
            Column("descriptor", "float32[]", "Colours, edges, patterns and detail, of length one; nothing learnt."),
        ),
        function=descriptor_of,
        reads=(CONTENT,),
        description="What a photo looks like, by a fixed recipe.",
        owner="trees",
    ),
)
