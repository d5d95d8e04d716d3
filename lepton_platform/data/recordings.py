"""Recordings with what is said in them, as people have them: a table, LibriSpeech's folders, Common Voice's.

What is wrong with one recording costs that recording only, by its ``problem``. No sound is read before it is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_platform.data.audio import MAX_FILE_BYTES
from lepton_platform.data.media_files import Content, Medium, file_within, media_rows, read_content
from lepton_platform.data.records import as_text
from lepton_platform.data.tables import located
from lepton_platform.stage import StageFailed

RECORDINGS = Medium("recording", "source.recordings")
_IN_FOLDER = Medium("recording", "source.path")
_NOT_UTF8 = "bytes that are not utf-8"


@dataclass(frozen=True)
class Recording:
    """``content``: the file's bytes, or where it lies; ``file``: its name; ``where``: for a person to find the row."""

    where: str
    file: str | None = None
    content: Content | None = None
    text: str | None = None  # as people wrote it
    speaker: str | None = None
    values: dict[str, Any] = field(default_factory=dict)  # the other columns that were asked for
    problem: str | None = None

    def read(self) -> bytes | None:
        """The file's bytes, none where the table has none; ``ValueError`` where they cannot be had or are too many."""
        return None if self.content is None else read_content(self.content, MAX_FILE_BYTES, RECORDINGS.noun)


def manifest(
    paths: Sequence[str],
    audio: str,
    text: str,
    speaker: str | None = None,
    others: Sequence[str] = (),
    recordings: str = "",
    delimiter: str | None = None,
) -> Iterator[Recording]:
    """The rows of CSV, JSON Lines or Parquet files: column ``audio`` has a recording's bytes, or its path.

    Paths count from the folder ``recordings``. Bytes come as a binary column or as a model hub's struct of ``bytes``
    and ``path``.
    """
    columns = [text, *filter(None, [speaker]), *others]
    for row in media_rows(paths, audio, columns, RECORDINGS, recordings, delimiter):
        said, problem = None, row.problem
        try:
            said = as_text(row.values[text], text)
        except ValueError as error:
            problem = problem or f"{row.where}: {error}"
        voice = row.values[speaker] if speaker else None
        values = {name: row.values[name] for name in others}
        yield Recording(row.where, row.name, row.content, said, None if voice is None else str(voice), values, problem)


def librispeech(folder: str) -> Iterator[Recording]:
    """``…/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt``, a line each of ``<name> <TEXT>``, beside ``<name>.flac``.

    A recording that no line names is a row with its problem.
    """
    root = Path(located(folder))
    transcripts = sorted(root.rglob("*.trans.txt"))
    if not transcripts:
        raise StageFailed(f"{folder} holds no <speaker>/<chapter>/<speaker>-<chapter>.trans.txt, as LibriSpeech does.")
    named: set[Path] = set()
    for path in transcripts:
        for found in _chapter(path, root):
            if isinstance(found.content, Path):
                named.add(found.content)
            yield found
    for path in sorted(set(root.rglob("*.flac")) - named):
        name = path.relative_to(root).as_posix()
        speaker = path.stem.split("-")[0]
        yield Recording(name, name, path, None, speaker, problem=f"{name}: no line of a .trans.txt has its text")


def _chapter(path: Path, root: Path) -> Iterator[Recording]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path.relative_to(root).as_posix()} line {number}"
        name, _, text = line.decode("utf-8", "replace").strip().partition(" ")
        content = problem = None
        try:
            content = file_within(path.parent, f"{name}.flac", _IN_FOLDER)
            if not _is_utf8(line):
                raise ValueError(_NOT_UTF8)
        except ValueError as error:
            problem = f"{where}: {error}"
        file = (path.parent.relative_to(root) / f"{name}.flac").as_posix()
        yield Recording(where, file, content, text.strip() or None, name.split("-")[0], problem=problem)


def common_voice(folder: str, table: str = "validated.tsv") -> Iterator[Recording]:
    """``table``, with the columns path, sentence and client_id, beside the folder ``clips`` that paths count from."""
    root = Path(located(folder))
    try:
        lines = (root / table).read_bytes().split(b"\n")
    except OSError as error:
        raise StageFailed(f"{folder} has no {table}, as Common Voice does ({error.strerror or error}).") from None
    header = _cells(lines[0].decode("utf-8-sig", "replace"))
    wanted = ("path", "sentence", "client_id")
    if missing := [name for name in wanted if name not in header]:
        raise StageFailed(f"{folder}/{table} has no column {', '.join(missing)}. It has: {', '.join(header)}.")
    places = [header.index(name) for name in wanted]
    for number, line in enumerate(lines[1:], start=1):
        if line.strip():
            yield _clip(line, f"{Path(table).name} row {number}", len(header), places, root / "clips")


def _clip(line: bytes, where: str, width: int, places: list[int], clips: Path) -> Recording:
    cells = _cells(line.decode("utf-8", "replace"))
    name, text, speaker = (cells[at] if at < len(cells) else "" for at in places)
    name = name if "." in name else f"{name}.mp3"  # the first releases left it out
    content = problem = None
    try:
        if len(cells) != width:
            raise ValueError(f"{len(cells)} cells under {width} headings")
        content = file_within(clips, name, _IN_FOLDER)
        if not _is_utf8(line):
            raise ValueError(_NOT_UTF8)
    except ValueError as error:
        problem = f"{where}: {error}"
    return Recording(where, f"{clips.name}/{name}", content, text.strip() or None, speaker or None, problem=problem)


def _cells(line: str) -> list[str]:
    """The cells of a line: quotation marks are part of a sentence there, and need not come in pairs."""
    return line.rstrip("\r").split("\t")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
