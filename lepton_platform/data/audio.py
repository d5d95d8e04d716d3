"""Recordings as bytes and as samples: the one place where sound files of people are decoded.

Torch-free and cheap to import: the data rooms, the learners and the service all read it. Samples are float32, one
channel, ``RATE`` a second, full scale at ±1.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from soundfile import SoundFile

    Samples = NDArray[np.float32]  # (N,)
    Levels = NDArray[np.int64]  # (N,) samples in steps of 16 bits

RATE = 16_000  # Hz
MAX_SECONDS = 60.0
MIN_SECONDS = 0.05  # less holds no sound that could be told
MAX_FILE_BYTES = 20 << 20
FORMATS = ("WAV", "FLAC", "OGG", "MP3")  # by content, never by name

MARGIN_S = 0.15  # what mend leaves of the silence at both ends
QUIET_DBFS = -50.0  # a frame below this is silence
QUIET_DB_BELOW_SPEECH = 30.0  # and so is one that is so much softer than the loudest

_CONTAINERS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3"}
_MIN_RATE, _MAX_RATE = 1_000, 384_000  # Hz
_MAX_CHANNELS = 8
_BLOCK = 65_536  # frames decoded at once
_UNKNOWN = 1 << 62  # libsndfile's count of frames where the file does not tell it is 2**63 - 1
_MAX_COUNTED_S = 3_600.0  # how far a file that does not tell its length is decoded to find it
_LOUDEST = 16.0  # 24 dB over full scale: louder float files hold integers
_STEPS = 32_768  # of 16 bits, to full scale
_FRAME, _HOP = RATE // 50, RATE // 100  # 20 ms every 10 ms
_LOUD_SHARE = 0.95


class _Refused(ValueError):
    """Ours, already a sentence."""


class TooLong(_Refused):
    """A recording, but more of it than is read."""


def duration_of(data: bytes, counted_s: float = _MAX_COUNTED_S) -> float:
    """Seconds of a recording, from its header alone. ``ValueError`` as ``decode``'s.

    A header may be wrong. The few files that do not tell (streams) are decoded to be counted; ``TooLong`` where they are
    longer than ``counted_s``.
    """
    with _opened(data) as file:
        if file.frames < _UNKNOWN:
            return file.frames / file.samplerate
        most = int(counted_s * file.samplerate)
        frames = 0
        for block in _blocks(file):
            frames += len(block)
            if frames > most:
                raise TooLong(f"the file does not tell how long it is, and it is longer than {counted_s:g} s")
        return frames / file.samplerate


def decode(data: bytes, max_seconds: float | None = MAX_SECONDS) -> "Samples":
    """The sound of a WAV, FLAC, OGG (Vorbis, Opus) or MP3 file: (N,) float32 at ``RATE``, within ±1.

    Channels are averaged, any rate is resampled, what clips stays clipped. Of a file that is cut off what is there is
    used, as a player does. ``ValueError`` is one sentence on why it is no recording: not sound, damaged, shorter than
    ``MIN_SECONDS``, no numbers in it; or ``TooLong``, than ``max_seconds`` (told from the header, before anything is decoded).
    An MP3 of varying bit rate whose encoder left out the header for it is read as far as libsndfile guesses its length.
    """
    import numpy as np

    with _opened(data) as file:
        rate = file.samplerate
        most = None if max_seconds is None else int(max_seconds * rate)
        if most is not None and most < file.frames < _UNKNOWN:
            raise TooLong(f"the recording lasts {file.frames / rate:.1f} s; at most {max_seconds:g} s are read")
        samples = _mono(file, most)
    if not len(samples):
        raise ValueError("the recording has no samples")
    if len(samples) < MIN_SECONDS * rate:
        raise ValueError(
            f"the recording is too short: {len(samples) / rate:.3f} s; at least {MIN_SECONDS:g} s are needed"
        )
    loudest = float(np.abs(samples).max())
    if not np.isfinite(loudest):
        raise ValueError("the recording holds samples that are no numbers (NaN or infinite)")
    if loudest > _LOUDEST:
        raise ValueError(
            f"the recording holds samples up to {loudest:.4g}; floating-point samples count from -1 to 1: divide by full scale"
        )
    return np.clip(_resampled(samples, rate), -1, 1)


def encode(samples: "Samples") -> bytes:
    """A FLAC of (N,) samples at ``RATE``, 16 bits, one channel: the same bytes for the same samples."""
    import numpy as np
    import soundfile

    levels = _levels(samples).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, levels, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


@dataclass(frozen=True)
class Mended:
    """``start_s``: seconds that were cut off at the front, so that times in ``samples`` can be told in the original."""

    samples: "Samples"
    start_s: float


def mend(samples: "Samples") -> Mended:
    """The samples without a constant offset, and without the silence before and after the sound but for ``MARGIN_S``.

    A frame of 20 ms is silent below ``QUIET_DBFS``, and where it is ``QUIET_DB_BELOW_SPEECH`` softer than the loudest
    frames (their 95th percentile). A recording that is silent throughout is left whole. Samples are rounded to 16 bits,
    so that ``encode`` keeps them exactly and mending twice is mending once.
    """
    import numpy as np

    levels = _levels(samples)
    start = 0
    while True:  # each pass cuts something off or brings the mean nearer to 0
        centred = _centred(levels)
        first, end = _sound(centred)
        if first == 0 and end == len(centred) and centred is levels:
            return Mended((levels / _STEPS).astype(np.float32), start / RATE)
        levels, start = centred[first:end], start + first


def canonical(data: bytes) -> bytes:
    """The file's sound mended, as ``encode`` writes it. Idempotent; ``ValueError`` as ``decode``'s."""
    return encode(mend(decode(data)).samples)


def silences(samples: "Samples", min_s: float = 0.3) -> list[tuple[int, int]]:
    """Where a long recording can be cut: [first, end) in samples of every stretch of silence of at least ``min_s``.

    Silence as ``mend`` tells it. The ends of the recording count as the others.
    """
    import numpy as np

    levels = _levels(samples)
    silent = ~_loud(levels)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8)))
    found: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():  # the frames [first, last) are silent
        begin, end = first * _HOP, min((last - 1) * _HOP + _FRAME, len(levels))
        if end - begin >= min_s * RATE:
            found.append((begin, end))
    return found


@contextmanager
def _opened(data: bytes) -> "Iterator[SoundFile]":
    """The file, its header read; whatever a codec raises inside becomes a ``ValueError``."""
    import soundfile

    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"a recording is bytes, not {type(data).__name__}")
    if not len(data):
        raise ValueError("the recording has no bytes")
    if not _looks_like_sound(bytes(data[:12])):
        raise ValueError(f"not a recording of a kind that is read ({', '.join(FORMATS)})")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file)
            yield file
    except _Refused:
        raise
    except MemoryError:
        raise ValueError("the recording needs more memory than there is") from None
    except Exception as error:  # LibsndfileError, and what its binding raises where a header makes no sense
        said = " ".join(str(getattr(error, "error_string", error)).split()) or type(error).__name__
        raise ValueError(f"the recording is damaged or cut off ({said[:120]})") from None


def _looks_like_sound(head: bytes) -> bool:
    """By the first bytes: libsndfile would try some twenty formats, and take much for one of them."""
    if head[:4] in (b"RIFF", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] in (b"fLaC", b"OggS") or head[:3] == b"ID3":
        return True
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer != 0 and bitrate != 15 and rate != 3  # what MPEG audio reserves


def _check_header(file: "SoundFile") -> None:
    if file.format not in _CONTAINERS:
        raise _Refused(f"a file of the kind {file.format}; those that are read are {', '.join(FORMATS)}")
    if file.channels > _MAX_CHANNELS:
        raise _Refused(f"the recording has {file.channels} channels; at most {_MAX_CHANNELS} are read")
    if not _MIN_RATE <= file.samplerate <= _MAX_RATE:
        raise _Refused(
            f"the recording has {file.samplerate:,} samples a second; between {_MIN_RATE:,} and {_MAX_RATE:,} are read"
        )


def _blocks(file: "SoundFile") -> "Iterator[NDArray[np.float32]]":
    """The file's frames, (n, channels) at a time, up to where it ends or breaks off."""
    import numpy as np
    from soundfile import SoundFileRuntimeError

    while True:
        block = np.full((_BLOCK, file.channels), np.nan, np.float32)
        try:
            frames = len(file.read(out=block))
        except SoundFileRuntimeError:  # what was decoded before lies in the block already
            there = np.flatnonzero(~np.isnan(block[:, 0]))
            if len(there):
                yield block[: there[-1] + 1]
            return
        if not frames:
            return
        yield block[:frames]


def _mono(file: "SoundFile", most: int | None) -> "Samples":
    """(N,) the mean of the channels; a header that says less than the file has does not get past ``most`` frames."""
    import numpy as np

    parts: list[Any] = []
    frames = 0
    for block in _blocks(file):
        with np.errstate(over="ignore", invalid="ignore"):
            parts.append(block.mean(axis=1))
        frames += len(block)
        if most is not None and frames > most:
            raise TooLong(f"the recording is longer than the {most / file.samplerate:g} s that are read")
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _resampled(samples: "Samples", rate: int) -> "Samples":
    import numpy as np

    if rate == RATE:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, rate, RATE, quality="HQ"), np.float32)


def _levels(samples: "Samples") -> "Levels":
    """(N,) samples in steps of 16 bits; in whole numbers, so that every machine cuts at the same place."""
    import numpy as np

    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"a recording is (N,) samples, not {samples.shape}")
    return np.clip(np.rint(samples.astype(np.float64) * _STEPS), -_STEPS, _STEPS - 1).astype(np.int64)


def _centred(levels: "Levels") -> "Levels":
    """The levels less their mean where it is more than a thousandth of full scale; the very same where it is not."""
    total = int(levels.sum())
    if abs(total) * 1000 <= _STEPS * len(levels):
        return levels
    return (levels - round(total / len(levels))).clip(-_STEPS, _STEPS - 1)


def _loud(levels: "Levels") -> "NDArray[np.bool_]":
    """(frames,) which frames are not silent; frame n begins at sample n × ``_HOP``, the last is filled up with zeros."""
    import numpy as np

    frames = max(1, -(-(len(levels) - _FRAME) // _HOP) + 1)
    padded = np.zeros((frames - 1) * _HOP + _FRAME, np.int64)
    padded[: len(levels)] = levels
    halves = (padded**2).reshape(-1, _HOP).sum(axis=1)
    energies = halves[:-1] + halves[1:]
    speech = np.sort(energies)[int(_LOUD_SHARE * (frames - 1))]
    faint = _FRAME * _STEPS**2 * 10 ** (QUIET_DBFS / 10)
    return energies >= max(faint, float(speech) * 10 ** (-QUIET_DB_BELOW_SPEECH / 10))


def _sound(levels: "Levels") -> tuple[int, int]:
    """[first, end) in samples of the sound and its margins; all of it where nothing is loud."""
    import numpy as np

    loud = np.flatnonzero(_loud(levels))
    if not len(loud):
        return 0, len(levels)
    margin = int(MARGIN_S * RATE)
    first = max(0, int(loud[0]) * _HOP - margin)
    return first, min(len(levels), int(loud[-1]) * _HOP + _FRAME + margin)
