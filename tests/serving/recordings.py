"""Recordings in which every tone is a word to ``models.write_speech``, as the files that people send, and broken ones."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.data.sounds import RATE, saved
from tests.serving.conftest import Running
from tests.serving.models import TONES

WORDS = ("press", "one", "for", "sales")
TEXT = " ".join(WORDS)
TONE_S, GAP_S = 0.3, 0.25


def spoken(
    words: Sequence[str] = WORDS, gaps_s: Sequence[float] | float = GAP_S, rate: int = RATE, level: float = 0.3
) -> NDArray[np.float32]:
    """(N,): a tone a word, silence around each: ``gaps_s`` before the first, between them, behind the last."""
    gaps = [gaps_s] * (len(words) + 1) if isinstance(gaps_s, float | int) else gaps_s
    t = np.arange(int(TONE_S * rate)) / rate
    parts = [np.zeros(int(gaps[0] * rate))]
    for word, gap_s in zip(words, gaps[1:], strict=True):
        parts += [level * np.sin(2 * np.pi * TONES[word] * t), np.zeros(int(gap_s * rate))]
    return np.concatenate(parts).astype(np.float32)


def middles(words: Sequence[str], gaps_s: Sequence[float]) -> list[float]:
    """Seconds at which each word is half said."""
    before = np.cumsum(gaps_s[:-1])
    return [float(gap + TONE_S * (number + 0.5)) for number, gap in zip(range(len(words)), before, strict=True)]


def good() -> dict[str, bytes]:
    """Files in which ``TEXT`` is said; names say what is odd about them."""
    one = spoken()
    noise = np.random.default_rng(1).normal(0, 0.001, len(one)).astype(np.float32)
    other = {rate: spoken(rate=rate) for rate in (8_000, 22_050, 44_100, 48_000)}
    return {
        "wav": saved(one),
        "wav of 8 bits": saved(one, "WAV", "PCM_U8"),
        "wav of 24 bits": saved(one, "WAV", "PCM_24"),
        "wav of 32 bits": saved(one, "WAV", "PCM_32"),
        "wav of floats": saved(one, "WAV", "FLOAT"),
        "wav of doubles": saved(one.astype(np.float64), "WAV", "DOUBLE"),
        "wav u-law at 8 kHz": saved(other[8_000], "WAV", "ULAW", 8_000),
        "wav at 8 kHz": saved(other[8_000], rate=8_000),
        "wav at 48 kHz": saved(other[48_000], rate=48_000),
        "wav in stereo": saved(np.stack([one, one * 0.5], axis=1)),
        "wav, one ear only": saved(np.stack([one, one * 0], axis=1)),
        "wav with an offset": saved(one * 0.5 + 0.2),
        "wav, noisy": saved(one + noise),
        "wav, soft": saved(one * 0.15),
        "wav, clipped": saved(np.clip(one * 8, -0.99, 0.99)),
        "wavex": saved(one, "WAVEX"),
        "rf64": saved(one, "RF64"),
        "flac": saved(one, "FLAC"),
        "flac at 44.1 kHz in stereo": saved(np.stack([other[44_100]] * 2, axis=1), "FLAC", rate=44_100),
        "ogg vorbis": saved(one, "OGG", "VORBIS"),
        "ogg vorbis at 44.1 kHz": saved(other[44_100], "OGG", "VORBIS", 44_100),
        "ogg opus": saved(other[48_000], "OGG", "OPUS", 48_000),
        "mp3": saved(one, "MP3"),
        "mp3 at 22 kHz": saved(other[22_050], "MP3", rate=22_050),
    }


def bad() -> dict[str, bytes]:
    """Files that no recording can be made of."""
    one, numbers = spoken(), np.zeros(RATE, np.float32)
    wav, flac, ogg, mp3 = saved(one), saved(one, "FLAC"), saved(one, "OGG", "VORBIS"), saved(one, "MP3")
    broken = numbers.copy()
    broken[5_000] = np.nan
    endless = numbers.copy()
    endless[5_000] = np.inf
    return {
        "text called .wav": b"I am a recording, said the text file.",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zeros": bytes(5_000),
        "riff of something else": b"RIFF\x24\0\0\0AVI LIST" + bytes(100),
        "aiff": saved(one, "AIFF"),
        "au": saved(one, "AU"),
        "caf": saved(one, "CAF"),
        "wav without samples": saved(numbers[:0]),
        "wav of a millisecond": saved(one[4_000:4_016]),
        "wav of NaN": saved(broken, "WAV", "FLOAT"),
        "wav of infinity": saved(endless, "WAV", "FLOAT"),
        "wav of whole numbers as floats": saved(one * 32_768, "WAV", "FLOAT"),
        "wav header alone": wav[:44],
        "wav header cut off": wav[:30],
        "flac header alone": flac[:42],
        "flac magic alone": flac[:4],
        "ogg cut off in its headers": ogg[:200],
        "mp3 frame head alone": mp3[:4],
        "wav of nine channels": saved(np.zeros((RATE, 9), np.float32)),
        "wav of 500 samples a second": saved(numbers, rate=500),
        "wav of a million samples a second": saved(numbers, rate=1_000_000),
        "wav of no channels": wav[:22] + b"\0\0" + wav[24:],
    }


def of_seconds(seconds: float, kind: str = "FLAC", rate: int = RATE) -> bytes:
    """Silence, in few bytes where the kind can."""
    return saved(np.zeros(round(seconds * rate), np.int16), kind, "PCM_16", rate)


def telling(flac: bytes, samples: int) -> bytes:
    """The FLAC with another number of samples in its header (0: it does not tell)."""
    [field] = struct.unpack(">Q", flac[18:26])
    return flac[:18] + struct.pack(">Q", field & ~((1 << 36) - 1) | samples) + flac[26:]


# --- sent


def multipart(service: Running, files: list[bytes], field: str = "audio") -> httpx.Response:
    sent = [(field, (f"{index}.bin", content, "image/gif")) for index, content in enumerate(files)]  # it is no GIF
    return service.client.post(f"{service.url}/predict", files=sent)


def as_json(service: Running, files: list[bytes]) -> httpx.Response:
    values = [base64.b64encode(content).decode() for content in files]
    return service.client.post(f"{service.url}/predict", json={"audio": values})


def answers(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["field"]
