"""A recording's fingerprint: the set whose overlap with another's says how alike two recordings are.

After Haitsma and Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002): of each cell in time and frequency
only the sign of how its level differs, from the next band's and from the next moment's. What a voice, a microphone or a
line do to all moments alike drops out, and how loud it is. Two things are different here. A third state, of small
differences, is left out, as noise would decide on it. And time counts from the recording's centre of loudness, to a
sample: a recording that was cut or padded at its ends keeps its cells. Numpy alone.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data import spectrogram
from lepton_platform.data.spectrogram import FRAME, HOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

CELL = 5  # hops: 50 ms
BANDS = 24  # of the mel bands those up to 4 kHz, which every line carries
DEEPEST_DB = 30.0  # softer is the room
LEAST_DB = 3.0  # smaller differences have no sign
LONGEST = 40  # cells to each side of the centre: longer recordings are told apart by less


def shingles(samples: "Floats") -> set[str]:
    """The signs of a recording (S,) at ``audio.RATE``, each with its place. Of one without any, silence, its level."""
    cells, first = _cells(samples)
    levels = spectrogram.levels_db(cells, DEEPEST_DB)
    steps = np.diff(np.diff(levels, axis=1), axis=0)  # (cells - 1, BANDS - 1)
    times, bands = np.nonzero(np.abs(steps) > LEAST_DB)
    signs = steps[times, bands] > 0
    places = (times + first).tolist()
    found = {
        _name(*of) for of in zip(places, bands.tolist(), signs.tolist(), strict=True) if -LONGEST <= of[0] < LONGEST
    }
    return found or {f"flat:{round(float(spectrogram.level_db(spectrogram.frames_of(samples)).max()))}"}


def _cells(samples: "Floats") -> "tuple[Floats, int]":
    """(cells, BANDS) power, and the number of the first cell; cell 0 begins at the centre."""
    centre = _centre(samples)
    before = centre // HOP  # whole hops that fit before it
    padded = np.pad(samples, (FRAME // 2, FRAME))
    frames = spectrogram.frames_of(padded[centre % HOP :])  # frame n is centred n - before hops from the centre
    bands = spectrogram.mel(spectrogram.power(frames))[:, :BANDS]
    numbers = (np.arange(len(bands)) - before) // CELL
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    return np.add.reduceat(bands, starts, axis=0), int(numbers[0])


def _centre(samples: "Floats") -> int:
    """The sample in the middle of what is loud: the mean place, weighted by the square of the power around it."""
    summed = np.cumsum(np.pad(samples.astype(np.float64) ** 2, FRAME))
    weights = np.maximum(summed[FRAME:] - summed[:-FRAME], 0) ** 2  # of the windows from -FRAME // 2 on
    total = float(weights.sum())
    if not total > 0:
        return len(samples) // 2
    return round(float((np.arange(len(weights)) * weights).sum()) / total) - FRAME // 2


@cache
def _name(cell: int, band: int, rises: bool) -> str:
    """One string for all recordings: a hundred thousand sets of hundreds would fill the memory."""
    return f"{cell}:{band}:{int(rises)}"
