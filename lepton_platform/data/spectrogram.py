"""Frames of a recording and their spectra: 20 ms every 10 ms under a Hann window, for all who measure or compare.

Numpy alone. Letters: S samples, F frames, K frequencies, M mel bands. Sums are numpy's own and not BLAS's, whose last
bits depend on how many threads it has.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data.audio import RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

FRAME, HOP = RATE // 50, RATE // 100  # samples
POINTS = 512  # of the spectrum: 31.25 Hz apart
BANDS = 32
FLOOR_DB = -100.0  # 16 bits reach down to -98 dB of full scale
_TINY = 1e-12


def frames_of(samples: "Floats", frame: int = FRAME, hop: int = HOP) -> "Floats":
    """(F, ``frame``), a view; what does not fill a last frame is left out, but one frame there always is."""
    padded = np.pad(samples, (0, max(frame - len(samples), 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]


def power(frames_FS: "Floats") -> "Floats":
    """(F, K) of frames of ``FRAME`` samples."""
    spectra = np.fft.rfft(frames_FS * _hann(), POINTS)
    return (spectra.real**2 + spectra.imag**2).astype(np.float32, copy=False)


def mel(power_FK: "Floats") -> "Floats":
    """(F, M) power in ``BANDS`` triangles from 60 Hz to 8 kHz, evenly on the mel scale of O'Shaughnessy 1987."""
    return np.einsum("fk,km->fm", power_FK, _mel_filters())


def level_db(frames_FS: "Floats") -> "Doubles":
    """(F,) RMS in dB of full scale, ``FLOOR_DB`` at least."""
    return decibels(np.einsum("fs,fs->f", frames_FS, frames_FS, dtype=np.float64) / frames_FS.shape[1])


def decibels(of_power: "Doubles") -> "Doubles":
    return np.maximum(10 * np.log10(np.maximum(of_power, _TINY)), FLOOR_DB)


def levels_db(of_power: "Floats", deepest_db: float) -> "Floats":
    """Levels, none more than ``deepest_db`` below the loudest: what is under that is another room, not another sound."""
    floor = max(float(of_power.max()) * 10 ** (-deepest_db / 10), _TINY)
    return 10 * np.log10(np.maximum(of_power, np.float32(floor)))


@cache
def _hann() -> "Floats":
    return np.hanning(FRAME + 2)[1:-1].astype(np.float32)


@cache
def _mel_filters() -> "Floats":
    """(K, M)"""
    low, high = (2_595 * np.log10(1 + hz / 700) for hz in (60, RATE / 2))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2_595) - 1)
    hz = np.arange(POINTS // 2 + 1)[:, None] * RATE / POINTS
    rising, falling = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)
