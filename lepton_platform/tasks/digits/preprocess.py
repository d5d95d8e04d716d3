"""How a picture of a digit is cleaned and turned into features: what training AND the service run.

Cheap to import: the service reads it at its start.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lepton_platform.data import images
from lepton_platform.data.image_statistics import STATISTICS, descriptors, statistics
from lepton_platform.data.images import as_png as normalise
from lepton_platform.data.images import decode
from lepton_platform.features.views import Column, Entity, FeatureView, Given

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["decode", "identity", "normalise", "shingles", "size"]

CONTENT = "image"  # what is learnt from: a picture's file, after cleaning a PNG
LABEL = "label"
LABELS = tuple("0123456789")
GROUP = "id"  # nobody knows which digits one hand wrote
REQUIRED = ("image", "label")
IMPUTE: Mapping[str, str] = {}
RANGES: Mapping[str, tuple[float, float]] = {}
CELLS = 4  # a digit is told by what is where: 4 by 4 parts of it


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


def statistics_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    return statistics([decode(data) for data in rows[CONTENT].to_pylist()], MEASURED)


def descriptor_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    import pyarrow as pa

    found = descriptors([decode(data) for data in rows[CONTENT].to_pylist()], CELLS)
    return {"descriptor": pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])}


MEASURED = ("width", "height", "brightness", "contrast", "sharpness", "fine_detail", "texture", "bright_share")
_DIGIT = Entity("digit_id", "id", "One picture of a digit, by its stable id.")
FEATURE_VIEWS = (
    FeatureView(
        name="image_statistics",
        entity=_DIGIT,
        columns=tuple(
            Column(name, "int64" if name in ("width", "height") else "float32", STATISTICS[name]) for name in MEASURED
        ),
        function=statistics_of,
        reads=(CONTENT,),
        description="What can be measured in a digit's picture.",
        owner="digits",
    ),
    FeatureView(
        name="image_descriptor",
        entity=_DIGIT,
        columns=(Column("descriptor", "float32[]", "Edges, patterns and detail, of length one; nothing learnt."),),
        function=descriptor_of,
        reads=(CONTENT,),
        description="What a digit looks like, by a fixed recipe.",
        owner="digits",
    ),
)
