"""Pictures with one label each, as people have them: a folder a label, or a table that names or holds the pictures.

What is wrong with one picture costs that picture only, by its ``problem``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_platform.data.annotations import SUFFIXES
from lepton_platform.data.media_files import Medium, media_rows, read_content
from lepton_platform.data.tables import located
from lepton_platform.stage import StageFailed

PICTURES = Medium("picture", "source.pictures")


@dataclass(frozen=True)
class Labelled:
    """``data``: the file's bytes. ``values``: the other columns that were asked for. ``where``: for a person to find it."""

    where: str
    data: bytes | None
    label: Any
    values: dict[str, Any]
    problem: str | None = None


def pictures_by_label(folder: str) -> list[tuple[str, str, Path]]:
    """(label, name, file) of ``folder/<label>/…/<picture>``, sorted; the name is the path within ``folder``."""
    root = Path(located(folder))
    found = sorted(path for path in root.glob("*/**/*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise StageFailed(f"{folder} holds no <label>/<picture>, with pictures in {', '.join(SUFFIXES)}.")
    names = [path.relative_to(root) for path in found]
    return [(name.parts[0], name.as_posix(), path) for name, path in zip(names, found, strict=True)]


def manifest(
    paths: Sequence[str],
    image: str,
    label: str,
    others: Sequence[str] = (),
    pictures: str = "",
    delimiter: str | None = None,
) -> Iterator[Labelled]:
    """The rows of CSV, JSON Lines or Parquet files whose column ``image`` has a picture's bytes, or its path.

    Paths count from the folder ``pictures``. Bytes come as a binary column or as a model hub's struct of ``bytes``
    and ``path``.
    """
    for row in media_rows(paths, image, (label, *others), PICTURES, pictures, delimiter):
        data, problem = None, row.problem
        if row.content is not None:
            try:
                data = read_content(row.content, noun=PICTURES.noun)
            except ValueError as error:
                problem = f"{row.where}: {image}: {error}"
        values = {name: row.values[name] for name in others}
        yield Labelled(row.where, data, row.values[label], values, problem)
