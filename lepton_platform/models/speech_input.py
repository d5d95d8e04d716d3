"""Recordings as a speech network is fed them: 16-bit samples, silence behind, windows of few lengths. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz
_STEPS = 32_768  # of 16 bits, to full scale


def as_pcm(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """(N,) within ±1 → 16 bits."""
    return np.clip(np.rint(samples.astype(np.float64) * _STEPS), -_STEPS, _STEPS - 1).astype(np.int16)


def window(samples: int, config: Mapping[str, Any]) -> int:
    """The samples that a recording of so many is given: silence behind it, and a multiple of the step.

    ``config["input"]``: ``tail_s``, ``step_s``, ``least_s``. Few lengths, so that recordings of like length share a
    batch without any padding that one alone would not have.
    """
    given = config["input"]
    wanted = max(samples + round(given["tail_s"] * RATE), round(given["least_s"] * RATE))
    step = round(given["step_s"] * RATE)
    return -(-wanted // step) * step


def padded(recordings: Sequence[NDArray[np.int16]], config: Mapping[str, Any]) -> NDArray[np.int16]:
    """(B, N): each with zeros behind, N the longest window."""
    longest = max(window(len(one), config) for one in recordings)
    found = np.zeros((len(recordings), longest), dtype=np.int16)
    for row, one in enumerate(recordings):
        found[row, : len(one)] = one
    return found


def seconds_of(audio_BN: NDArray[np.int16]) -> list[float]:
    """How long each recording is without the zeros behind it."""
    found = []
    for row in audio_BN:
        heard = np.flatnonzero(row)
        found.append((int(heard[-1]) + 1) / RATE if len(heard) else 0.0)
    return found
