"""The pitch of a voice: YIN (de Cheveigné and Kawahara, "YIN, a fundamental frequency estimator", JASA 111, 2002).

A frame's beginning is compared with what comes a lag later. The difference, divided by its mean over the shorter lags,
dips where the lag is a period; the first dip that is deep enough is the pitch. Letters: F frames, S samples.
"""

from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data.audio import RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

LOWEST_HZ, HIGHEST_HZ = 60, 500
FRAME, HOP = RATE // 25, RATE // 50  # samples; two periods of the lowest voice and some
APERIODIC = 0.15  # the paper's threshold is 0.1 to 0.15
_SHORTEST, _LONGEST = RATE // HIGHEST_HZ, RATE // LOWEST_HZ + 1  # lags that are looked at
_TINY = 1e-12


def pitches_hz(frames_FS: "NDArray[np.float32]") -> "Doubles":
    """(F,) the pitch of each frame of ``FRAME`` samples; 0 where no lag makes it periodic."""
    if not len(frames_FS):
        return np.zeros(0)
    difference = _difference(frames_FS.astype(np.float64))
    lags = np.arange(1, _LONGEST + 1)
    normalised = difference * lags / np.maximum(np.cumsum(difference, axis=1), _TINY)  # column n is the lag n + 1
    before, at, after = (normalised[:, _SHORTEST - 1 + step : _LONGEST - 1 + step] for step in (-1, 0, 1))
    dips = (at < APERIODIC) & (at <= before) & (at < after)
    rows, first = np.arange(len(dips)), dips.argmax(axis=1)
    left, middle, right = (curve[rows, first] for curve in (before, at, after))
    bend = np.maximum(left - 2 * middle + right, _TINY)
    vertex = np.clip((left - right) / (2 * bend), -0.5, 0.5)  # of the parabola through the three
    return np.where(dips.any(axis=1), RATE / (_SHORTEST + first + vertex), 0)


def _difference(frames_FS: "Doubles") -> "Doubles":
    """(F, longest lag): squared differences between the beginning of a frame and what comes 1, 2, … samples later, summed.

    Of products and energies, (a - b)² = a² + b² - 2ab; the products come from one Fourier transform.
    """
    count, length = frames_FS.shape
    window = length - _LONGEST
    spectra, of_beginning = np.fft.rfft(frames_FS), np.fft.rfft(frames_FS[:, :window], length)
    products = np.fft.irfft(spectra * of_beginning.conj(), length)[:, 1 : _LONGEST + 1]  # no lag reaches past the end
    summed = np.concatenate([np.zeros((count, 1)), np.cumsum(frames_FS**2, axis=1)], axis=1)
    energies = summed[:, window : length + 1] - summed[:, : _LONGEST + 1]  # of the window at each lag
    return np.maximum(energies[:, :1] + energies[:, 1:] - 2 * products, 0)
