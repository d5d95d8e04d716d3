"""Tasks whose input is a recording: the request's reading, its limits, what a network is fed, the answer.

A recording is a file: what it is, its content says. Its length is read from its header before anything is decoded. What is
longer than the network's window is cut where nobody speaks, and what is heard in the pieces is put together again.

What is said to a recording does not depend on what is answered beside it: only those of one window share a call.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_platform.data import audio
from lepton_platform.models.graph import Run
from lepton_platform.models.speech_answer import answer as transcripts
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
_FRAME, _FRAMES = RATE // 100, 10  # samples; of a tenth of a second

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
        together += _understood(_seconds, data, index)
        if together > MAX_SECONDS_TOGETHER:
            raise too_large(
                f'The recordings of "{FIELD}" last more than {MAX_SECONDS_TOGETHER:g} s together. Send them in parts.',
                FIELD,
            )


def _seconds(data: bytes) -> float:
    seconds = audio.duration_of(data, audio.MAX_SECONDS)
    if seconds > audio.MAX_SECONDS:
        raise audio.TooLong(f"the recording lasts {seconds:,.1f} s; the most is {audio.MAX_SECONDS:g} s")
    return seconds


def _understood(read: Callable[[bytes], Any], data: bytes, index: int) -> Any:
    where = f"{FIELD}[{index}]"
    try:
        return read(data)
    except ValueError as error:
        refused = too_large if isinstance(error, audio.TooLong) else malformed
        raise refused(f"{where}: {error}.", where) from None


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
        windows = int(given["most_s"] / given["step_s"] + 1e-9)  # a window is a multiple of the step
        self.most = round((windows * given["step_s"] - given["tail_s"]) * RATE)  # samples of a piece

    def prepare(self, inputs: Sequence[bytes]) -> list[list[Encoded]]:
        measured(inputs)
        return [self.pieces(_understood(self.decode, data, index)) for index, data in enumerate(inputs)]

    def pieces(self, samples: np.ndarray) -> list[Encoded]:
        """Samples (N,) → what the network is fed: silence is left out, but that somebody is silent throughout is heard."""
        mended, seconds = audio.mend(samples), len(samples) / RATE
        places = cuts(mended.samples, self.most)
        found = [self.piece(mended.samples[a:b], mended.start_s + a / RATE, seconds) for a, b in places]
        loud = [one for one, (a, b) in zip(found, places, strict=True) if not is_silent(mended.samples[a:b])]
        return loud or found[:1]

    def piece(self, samples: np.ndarray, start_s: float, duration_s: float = 0.0) -> Encoded:
        """A stretch of a recording, no longer than ``most``, that begins at ``start_s``."""
        mended = audio.mend(samples)
        piece = Piece(as_pcm(mended.samples), start_s + mended.start_s, duration_s)
        return Encoded(piece, window(len(piece.pcm), self.config))

    def collate(self, batch: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """→ audio: int16 (B, N); samples: (B,) the window of each."""
        windows = np.array([item.size for item in batch])
        return {"audio": padded([item.payload.pcm for item in batch], self.config), "samples": windows}

    def answer(self, graphs: Mapping[str, Run], feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ (B,) of ``Transcript``; more silence behind a recording would change what is heard in it."""
        found = np.empty(len(feeds["audio"]), dtype=object)
        for size in np.unique(feeds["samples"]):
            rows = np.flatnonzero(feeds["samples"] == size)
            found[rows] = transcripts(graphs, feeds["audio"][rows, :size], self.config, self.folder)
        return found


def is_silent(samples: np.ndarray) -> bool:
    """Is nothing in it loud enough to be somebody?"""
    return audio.silences(samples, 0.0) == [(0, len(samples))]


def cuts(samples: np.ndarray, most: int) -> list[tuple[int, int]]:
    """[first, end) of pieces of at most ``most`` samples that together are all."""
    found = []
    first = 0
    while len(samples) - first > most:
        end = first + _cut(samples[first:], most)
        found.append((first, end))
        first = end
    return [*found, (first, len(samples))]


def _cut(samples: np.ndarray, most: int) -> int:
    """Where a piece of more than half of ``most`` ends: in the middle of the last silence; where it is quietest if nobody
    ever pauses."""
    middles = [(begin + end) // 2 for begin, end in audio.silences(samples)]
    fitting = [place for place in middles if most // 2 < place <= most]
    return fitting[-1] if fitting else most // 2 + _quietest(samples[most // 2 : most])


def _quietest(samples: np.ndarray) -> int:
    """The middle of the quietest tenth of a second."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    energies = np.square(frames, dtype=np.float64).sum(axis=1)
    together = np.convolve(energies, np.ones(min(_FRAMES, len(energies))), "valid")
    return (int(together.argmin()) + _FRAMES // 2) * _FRAME


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
