"""Where the recordings come from: the prompts of a telephone system, or a user's own by one setting.

============ ==========================================================================================
packaged     568 English prompts of one voice, 25 minutes at 16 kHz, with their texts (Debian's packages
             asterisk-core-sounds-en 1.6.1, CC-BY-SA-3.0)
table        CSV, JSON Lines or Parquet with a text and the recording, as bytes or as a path below ``recordings``
librispeech  LibriSpeech's folders: ``<speaker>/<chapter>/<speaker>-<chapter>.trans.txt`` and a .flac each
common_voice Common Voice's folder: ``validated.tsv`` and ``clips``
============ ==========================================================================================

Every recording is a record. What cannot be learnt from (tones, silence, texts that nobody says) comes as it is: the
stage clean sets it aside and says why. A text without a recording, or the other way round, is one with its problem.
Of files in codecs that the service does not read (G.722, AAC …) the row holds the sound as FLAC.
"""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from lepton_platform.data import raw, recordings
from lepton_platform.data.archives import members
from lepton_platform.data.audio_conversion import as_recording
from lepton_platform.data.media_files import as_bytes
from lepton_platform.data.packages import fetch_archive, fetch_member
from lepton_platform.data.recordings import Recording
from lepton_platform.data.records import (
    ID,
    PROBLEM,
    TIME,
    ContentIds,
    Record,
    as_text,
    hashed_time,
    keep_groups,
    parse_time,
)
from lepton_platform.data.tables import is_local
from lepton_platform.data.transcripts import normalise
from lepton_platform.stage import StageFailed

SCHEMA = pa.schema(
    [
        ("audio", pa.binary()),
        ("text", pa.string()),
        ("sentence", pa.string()),
        ("speaker", pa.string()),
        ("file", pa.string()),
    ]
)
GROUP = "sentence"  # the text as it is compared: what is learnt by heart from one split is of no use in another

_VERSION = "1.6.1-1"
_SOUNDS, _SOUNDS_SHA256 = (
    "asterisk-core-sounds-en-g722",
    "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
)
_TEXTS, _TEXTS_SHA256 = (
    "asterisk-core-sounds-en",
    "436538195b7c7361bd227036686f1a4039f694648c76573bdaca956655d34450",
)
_TEXTS_FILE = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
_FOLDER, _SUFFIX = "usr/share/asterisk/sounds/en_US_f_Allison/", ".g722"
_VOICE = "Allison"

_ONLY = {  # kind → settings that no other kind uses
    "table": ("audio", "text", "speaker", "recordings", "time", "time_format", "id", "delimiter"),
    "common_voice": ("clips",),
}


class SourceParams(raw.SourceParams):
    """Where the recordings come from. What a kind does not use may not be set."""

    kind: Literal["packaged", "table", "librispeech", "common_voice"] = "packaged"
    path: str | list[str] = Field(
        "", description="table: a file or files. librispeech, common_voice: the folder as it is unpacked."
    )
    audio: str = Field("audio", description="table: the column with the recording, its bytes or its path.")
    text: str = Field("text", description="table: the column with what is said in it.")
    speaker: str | None = Field(None, description="table: the column that tells who speaks.")
    recordings: str = Field("", description="table: the folder that paths in it count from.")
    clips: str = Field("validated.tsv", description="common_voice: which of its lists of clips.")
    time: str | None = Field(None, description="table: the column with the time of the recording.")
    time_format: str | None = Field(None, description="How `time` is written, for strptime; ISO 8601 if not given.")
    id: str | None = Field(None, description="table: the column with a stable, unique id.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="table: CSV's; a comma if not given.")

    @model_validator(mode="after")
    def _has_a_path(self) -> "SourceParams":
        if (self.kind != "packaged") != bool(self.path):
            raise ValueError("'path' goes with kind: table, librispeech or common_voice, and only with them")
        if self.kind != "table" and not isinstance(self.path, str):
            raise ValueError(f"kind {self.kind} takes one path")
        unused = {name for kind, names in _ONLY.items() if kind != self.kind for name in names} & self.model_fields_set
        if unused:
            raise ValueError(f"kind {self.kind} does not use {', '.join(sorted(unused))}")
        return self

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


def files(params: SourceParams) -> list[str]:
    """The files and folders of the workspace that are read; none for what is pinned or lies behind an address."""
    if params.kind == "packaged":
        return []
    return [path for path in (*params.paths, *filter(None, [params.recordings])) if is_local(path)]


def records(params: SourceParams, cache: Path) -> Iterator[Record]:
    """Every recording, in the source's order. Those that ``limit`` leaves out are not even read."""
    found = list(_recordings(params, cache))
    sentences = [_sentence(recording.text) for recording in found]
    wanted = keep_groups(sentences, params.limit_groups, params.limit)
    ids = ContentIds()
    for recording, sentence, keep in zip(found, sentences, wanted, strict=True):
        if keep:
            yield _record(recording, sentence, params, ids)


def labelled(line: Mapping[str, Any]) -> Record:
    """A line of feedback: ``audio`` (or ``input``) with its bytes under ``$base64``, and ``text``, what is said in it."""
    text = as_text(line.get("text"), "text")
    if not text or not text.strip():
        raise ValueError("a recording needs its text")
    speaker = as_text(line.get("speaker"), "speaker")
    data = as_bytes(line.get("audio", line.get("input")), "audio", recordings.RECORDINGS.noun)
    return {"audio": data, "text": text, "sentence": _sentence(text), "speaker": speaker, "file": None}


def _sentence(text: str | None) -> str | None:
    """The group: the text as it is compared; as it is written where nothing of it would be left ("[beep]")."""
    return (normalise(text) or text.strip() or None) if text else None


def _recordings(params: SourceParams, cache: Path) -> Iterable[Recording]:
    if params.kind == "packaged":
        return _prompts(cache)
    if params.kind == "librispeech":
        return recordings.librispeech(str(params.path))
    if params.kind == "common_voice":
        return recordings.common_voice(str(params.path), params.clips)
    others = [column for column in (params.time, params.id) if column]
    return recordings.manifest(
        params.paths, params.audio, params.text, params.speaker, others, params.recordings, params.delimiter
    )


def _record(recording: Recording, sentence: str | None, params: SourceParams, ids: ContentIds) -> Record:
    """The row. Its id is of the file as it came and of what is said in it, whoever decodes it."""
    problems = [recording.problem] if recording.problem else []
    data = audio = time = None
    try:
        data = recording.read()
        audio = None if data is None else as_recording(data, recording.file or "")
    except ValueError as error:
        audio = data  # clean sets it aside as it is
        problems.append(f"{recording.where}: {error}")
    own = recording.values.get(params.id) if params.id else None
    if params.id and own is None:
        problems.append(f"{recording.where}: {params.id}: no id")
    content = sha256(data).hexdigest() if data is not None else recording.where
    identity = str(own) if own is not None else ids(params.kind, sentence or "", content)
    try:
        time = parse_time(recording.values[params.time], params.time_format) if params.time else hashed_time(identity)
    except ValueError as error:
        problems.append(f"{recording.where}: {params.time}: {error}")
    return {
        ID: identity,
        TIME: time,
        "audio": audio,
        "text": recording.text,
        "sentence": sentence,
        "speaker": recording.speaker,
        "file": recording.file,
        PROBLEM: "; ".join(problems) or None,
    }


def _prompts(cache: Path) -> Iterator[Recording]:
    """The packaged voice's prompts by name, then the texts that have no recording."""
    texts_gz, archive = _packages(cache)
    texts = _texts(gzip.decompress(texts_gz.read_bytes()).decode("utf-8"))
    for member, data in members(archive, _FOLDER, _SUFFIX):
        file = member.removeprefix(_FOLDER)
        text = texts.pop(file.removesuffix(_SUFFIX), None)
        problem = None if text else f"{file}: {_TEXTS} has no text of it"
        yield Recording(file, file, data, text, _VOICE, problem=problem)
    for name, text in texts.items():
        file = f"{name}{_SUFFIX}"
        yield Recording(file, file, None, text, _VOICE, problem=f"{file}: {_SOUNDS} has no recording of it")


def _packages(cache: Path) -> tuple[Path, Path]:
    """The file of texts and the archive of prompts."""
    try:
        texts = fetch_member(_TEXTS, _VERSION, _TEXTS_SHA256, _TEXTS_FILE, cache, "apt")
        return texts, fetch_archive(_SOUNDS, _VERSION, _SOUNDS_SHA256, cache, "apt")
    except StageFailed as failed:
        raise StageFailed(
            f"{failed.message} To learn from recordings of your own instead: in the section source of params.yaml set "
            "kind (table, librispeech or common_voice) and path.",
            failed.details,
        ) from None


def _texts(lines: str) -> dict[str, str]:
    """Name → text of ``name: text``, a line each; a line that begins with a semicolon is a comment."""
    pairs = (line.partition(":") for line in lines.splitlines() if ":" in line and not line.startswith(";"))
    return {name.strip(): text.strip() for name, _, text in pairs}
