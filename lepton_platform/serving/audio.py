"""Tasks whose input is a recording: the request's reading, its limits, what a network is fed, the answer.

A recording is a file: what it is, its content says. Its length is read from its header before anything is decoded. What is
longer than the network's window is cut where nobody speaks, and what is heard in the pieces is put together again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_platform.data import audio
from lepton_platform.models.graph import Run
from lepton_platform.models.speech_decoding import transcripts
from lepton_platform.models.speech_input import RATE, as_pcm, padded, window
from lepton_platform.models.transcription import Transcript, Word
from lepton_platform.serving.jsonbody import kind, unpaired
from lepton_platform.serving.media import files_schema
from lepton_platform.serving.protocols import Encoded, Json, Parts
from lepton_platform.serving.rejected import malformed, too_large

FIELD = "audio"
TRUTH = "text"
MAX_FILE_BYTES = audio.MAX_FILE_BYTES
MAX_SECONDS_TOGETHER = 2 * audio.MAX_SECONDS  # of a request: what it makes of memory and of time is bounded
INLINE_BYTES = 0  # a small file may hold a long recording: none is decoded on the event loop
MAX_TEXT = 5_000  # characters of a true transcript
_DIGITS = 6
_TIME_DIGITS = 3

Decode = Callable[
    [bytes], np.ndarray
]  # a file → samples (N,) float32 at 16 kHz; ValueError says why it is no recording


def recordings_schema(content_type: str, most_files: int) -> Json:
    """JSON Schema of a request with recordings."""
    about = (
        f"A recording ({', '.join(audio.FORMATS)}, by its content) of at most {MAX_FILE_BYTES:,} bytes and "
        f"{audio.MAX_SECONDS:g} s; those of a request last at most {MAX_SECONDS_TOGETHER:g} s together."
    )
    return files_schema(content_type, FIELD, most_files, MAX_FILE_BYTES, about)


def measured(files: Sequence[bytes]) -> None:
    """``Rejected`` names what is no recording, or lasts too long, by its header."""
    together = 0.0
    for index, data in enumerate(files):
        seconds, where = _understood(audio.duration_of, data, index), f"{FIELD}[{index}]"
        if seconds > audio.MAX_SECONDS:
            raise too_large(f"{where} lasts {seconds:,.1f} s; the most is {audio.MAX_SECONDS:g} s.", where)
        together += seconds
    if together > MAX_SECONDS_TOGETHER:
        raise too_large(
            f'The recordings of "{FIELD}" last {together:,.1f} s together; the most is {MAX_SECONDS_TOGETHER:g} s. '
            "Send them in parts.",
            FIELD,
        )


def _understood(read: Callable[[bytes], Any], data: bytes, index: int) -> Any:
    try:
        return read(data)
    except ValueError as error:
        where = f"{FIELD}[{index}]"
        raise malformed(f"{where}: {error}.", where) from None


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording as it waits for the network."""

    pcm: np.ndarray  # (N,) int16
    start_s: float  # in the recording as it was sent
    duration_s: float  # of the whole recording


class SpeechEncoder:
    """For networks that write down speech: a recording is as many items as it has pieces."""

    def __init__(self, model: Path, decode: Decode) -> None:
        self.decode, self.folder = decode, model
        self.config: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
        given = self.config["input"]
        self.most = int((given["most_s"] - given["tail_s"]) // given["step_s"] * given["step_s"] * RATE)

    def prepare(self, inputs: Sequence[bytes]) -> list[list[Encoded]]:
        measured(inputs)
        return [self.pieces(_understood(self.decode, data, index)) for index, data in enumerate(inputs)]

    def pieces(self, samples: np.ndarray) -> list[Encoded]:
        """Samples (N,) → what the network is fed."""
        mended = audio.mend(samples)
        found = []
        for first, end in cuts(mended.samples, self.most):
            piece = Piece(as_pcm(mended.samples[first:end]), mended.start_s + first / RATE, len(samples) / RATE)
            found.append(Encoded(piece, window(end - first, self.config)))
        return found

    def collate(self, batch: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """→ audio: int16 (B, N)."""
        return {"audio": padded([item.payload.pcm for item in batch], self.config)}

    def answer(self, graphs: Mapping[str, Run], feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ (B,) of ``Transcript``."""
        return transcripts(graphs, feeds["audio"], self.config, self.folder)


def cuts(samples: np.ndarray, most: int) -> list[tuple[int, int]]:
    """[first, end) of pieces of at most ``most`` samples that together are all: cut in the middle of the last silence
    that leaves more than half of a piece, or where a piece must end if nobody ever pauses."""
    found = []
    first = 0
    silences = audio.silences(samples) if len(samples) > most else []
    while len(samples) - first > most:
        middles = [(begin + end) // 2 for begin, end in silences]
        fitting = [place for place in middles if first + most // 2 < place <= first + most]
        end = fitting[-1] if fitting else first + most
        found.append((first, end))
        first = end
    return [*found, (first, len(samples))]


def speech_answer(labels: Sequence[str], parts: Parts, outputs: Sequence[Any]) -> tuple[Json, Json]:
    """Transcripts of the pieces → what is answered: text, words with times in the recording as it was sent."""
    del labels
    pieces: list[Piece] = [part.payload for part in parts]
    said: list[Transcript] = list(outputs)
    if not all(np.isfinite(one.score) for one in said):
        raise ValueError("The model's output is not finite.")
    weights = [max(len(one.text), 1) for one in said]
    words = [_word(word, piece) for one, piece in zip(said, pieces, strict=True) for word in one.words]
    answer = {
        "text": " ".join(one.text for one in said if one.text),
        "score": round(float(np.average([one.score for one in said], weights=weights)), _DIGITS),
        "words": words,
        "duration_s": round(pieces[0].duration_s, _TIME_DIGITS),
    }
    return answer, {}


def _word(word: Word, piece: Piece) -> Json:
    times = {"start_s": word.start_s + piece.start_s, "end_s": word.end_s + piece.start_s}
    rounded = {name: round(min(value, piece.duration_s), _TIME_DIGITS) for name, value in times.items()}
    return {"word": word.text, **rounded, "score": round(word.score, _DIGITS)}


def speech_answer_schema(labels: Sequence[str]) -> Json:
    """JSON Schema of such an answer."""
    del labels
    share: Json = {"type": "number", "minimum": 0, "maximum": 1}
    seconds: Json = {"type": "number", "minimum": 0, "description": "From the beginning of the recording."}
    word = {
        "type": "object",
        "properties": {"word": {"type": "string"}, "start_s": seconds, "end_s": seconds, "score": share},
        "required": ["word", "start_s", "end_s", "score"],
    }
    return {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "score": {**share, "description": "How probable its tokens were, in the mean."},
            "words": {"type": "array", "items": word},
            "duration_s": {"type": "number", "minimum": 0},
        },
        "required": ["text", "score", "words", "duration_s"],
    }


def text_truth(value: Any, where: str, labels: Sequence[str]) -> str:
    """What was said, as a person writes it."""
    del labels
    if not isinstance(value, str):
        raise malformed(f"{where} must be a string, not {kind(value)}.", where)
    if len(value) > MAX_TEXT:
        raise too_large(f"{where} has {len(value):,} characters; the most is {MAX_TEXT:,}.", where)
    if not any(character.isalnum() for character in value):
        raise malformed(f"{where} says nothing: it has no letters and no figures.", where)
    if not value.isascii() and (at := unpaired(value)) is not None:
        raise malformed(f"{where} has half of a surrogate pair at character {at}.", where)
    return value


def text_truth_schema(labels: Sequence[str]) -> Json:
    del labels
    return {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
