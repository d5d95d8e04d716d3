"""What can be measured in a recording without having learnt anything: a few numbers, and a descriptor for nearness.

Numpy alone. Letters: N recordings, S samples, F frames (``data.spectrogram``), K frequencies, M mel bands, G groups of
bands. All numbers are finite, whatever the recording: silence, noise, a handful of samples.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data import pitch, spectrogram
from lepton_platform.data.audio import QUIET_DB_BELOW_SPEECH, QUIET_DBFS, RATE
from lepton_platform.data.spectrogram import BANDS, FLOOR_DB, HOP, POINTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

MOST_SNR_DB = 60.0
FLAT_TOP, FAINT = 0.99, 0.01  # of the peak; of full scale: a few steps of 16 bits are all near their peak
GROUPS = 8
MODULATION_HZ = (1, 2, 4, 8, 16)  # edges; syllables come four a second
DEEPEST_DB = 60.0
_TINY = 1e-12


class _Recording:
    """Samples (S,) and what several measures need of them."""

    def __init__(self, samples: "Floats") -> None:
        self.samples = samples
        self.frames = spectrogram.frames_of(samples)
        self.level_db = spectrogram.level_db(self.frames)  # (F,)
        self.loudest_db = float(np.percentile(self.level_db, 95))
        self.least_db = max(QUIET_DBFS, self.loudest_db - QUIET_DB_BELOW_SPEECH)  # softer is silence, as for `mend`
        self.speech = self.level_db >= self.least_db  # (F,)
        self.heard = (
            self.speech if self.speech.any() else np.ones(len(self.frames), dtype=bool)
        )  # silence has a spectrum

    @cached_property
    def power(self) -> "Floats":
        """(F, K)"""
        return spectrogram.power(self.frames)

    @cached_property
    def spectrum(self) -> "Doubles":
        """(K,) mean power of the frames that are heard."""
        return self.power[self.heard].mean(axis=0, dtype=np.float64)

    @cached_property
    def pitches_hz(self) -> "Doubles":
        """Of the longer frames that are loud enough; 0 where one has no pitch."""
        frames = spectrogram.frames_of(self.samples, pitch.FRAME, pitch.HOP)
        return pitch.pitches_hz(frames[spectrogram.level_db(frames) >= self.least_db])


# name: (what it is, how it is measured)
_MEASURES: "dict[str, tuple[str, Callable[[_Recording], float]]]" = {
    "seconds": ("How long it is.", lambda r: len(r.samples) / RATE),
    "loudness": (
        "RMS of the speech frames, in dB of full scale, -100 at least.",
        lambda r: _mean_level_db(r.level_db[r.heard]),
    ),
    "peak": ("The largest magnitude of a sample, 0 to 1.", lambda r: _peak(r.samples)),
    "clipped_share": (
        "Of the samples, those within 1 % of the peak: flat tops, wherever the level was turned afterwards.",
        lambda r: _flat_tops(r.samples),
    ),
    "snr_db": (
        "From the quiet frames' level to the loud ones' (10th and 95th percentile), 0 to 60 dB: pauses are taken for "
        "the noise.",
        lambda r: float(np.clip(r.loudest_db - np.percentile(r.level_db, 10), 0, MOST_SNR_DB)),
    ),
    "bandwidth_hz": ("Below it lie 99 % of the speech frames' power.", lambda r: _rolloff_hz(r.spectrum, 0.99)),
    "rolloff_hz": ("Below it lie 85 % of the speech frames' power.", lambda r: _rolloff_hz(r.spectrum, 0.85)),
    "high_band_db": (
        "Power of the speech frames above 4 kHz by that below, in dB: what a telephone leaves out.",
        lambda r: _high_band_db(r.spectrum),
    ),
    "silence_share": ("Of the frames, those that are not speech.", lambda r: 1 - float(r.speech.mean())),
    "zero_crossing_rate": (
        "Of neighbouring samples of the speech frames, the share that differs in its sign.",
        lambda r: float(np.diff(r.frames[r.heard] >= 0, axis=1).mean()),
    ),
    "pitch_hz": ("Median of the voiced frames, 60 to 500; 0 where nothing is voiced.", lambda r: _median(r.pitches_hz)),
    "pitch_spread": (
        "Between the quartiles of the voiced frames' pitch, in semitones.",
        lambda r: _quartiles_apart(r.pitches_hz),
    ),
    "voiced_share": ("Of the speech frames, those that have a pitch.", lambda r: _share(r.pitches_hz > 0)),
    "spectral_flatness": (
        "Geometric by arithmetic mean of a speech frame's spectrum, the frames' mean: 0 a tone, towards 1 noise.",
        lambda r: _flatness(r.power[r.heard]),
    ),
    "spectral_tilt": (
        "Slope of the speech frames' spectrum from 125 Hz to 8 kHz, in dB an octave.",
        lambda r: _tilt(r.spectrum),
    ),
}
STATISTICS = {name: description for name, (description, _) in _MEASURES.items()}


def statistics(recordings: "Sequence[Floats]", names: Iterable[str] = STATISTICS) -> "dict[str, Doubles]":
    """Name → (N,) of those of ``STATISTICS``, for recordings (S,) at ``RATE`` of any length."""
    found = {name: np.zeros(len(recordings)) for name in names}
    for place, samples in enumerate(recordings):
        recording = _Recording(samples)
        for name, values in found.items():
            values[place] = _MEASURES[name][1](recording)
    return found


def descriptors(recordings: "Sequence[Floats]") -> "Floats":
    """(N, D) of length one: which sounds, how they change, and at what pace. How loud it is does not count.

    D = 32 + 32 + 28 + 32. A fixed recipe, nothing learnt, of the levels of 32 mel bands in the speech frames: their
    mean; their deviation over time; how eight groups of them go together (the correlation of each with each); and
    which share of each group's modulation lies at 1–2, 2–4, 4–8 and 8–16 Hz (Houtgast and Steeneken 1985: the pace of
    words and syllables), as square roots. Each part has length one before they are joined.
    """
    size = 2 * BANDS + GROUPS * (GROUPS - 1) // 2 + GROUPS * (len(MODULATION_HZ) - 1)
    found = np.zeros((len(recordings), size), dtype=np.float32)
    for place, samples in enumerate(recordings):
        recording = _Recording(samples)
        levels_FM = spectrogram.levels_db(spectrogram.mel(recording.power), DEEPEST_DB)
        groups_FG = levels_FM.reshape(len(levels_FM), GROUPS, -1).mean(axis=2)
        heard_FM, mean_M = levels_FM[recording.heard], levels_FM[recording.heard].mean(axis=0)
        parts = [
            _unit(mean_M - mean_M.mean()),
            _unit(heard_FM.std(axis=0)),
            _unit(_correlations(groups_FG[recording.heard])),
            _unit(np.sqrt(_modulation(groups_FG)).ravel()),
        ]
        found[place] = _unit(np.concatenate(parts))
    return found


def _mean_level_db(level_db: "Doubles") -> float:
    return float(10 * np.log10((10 ** (level_db / 10)).mean()))


def _peak(samples: "Floats") -> float:
    return float(np.abs(samples).max(initial=0))


def _flat_tops(samples: "Floats") -> float:
    peak = _peak(samples)
    return _share(np.abs(samples) >= FLAT_TOP * peak) if peak > FAINT else 0.0


def _rolloff_hz(spectrum: "Doubles", share: float) -> float:
    summed = np.cumsum(spectrum)
    return int(np.searchsorted(summed, share * summed[-1])) * RATE / POINTS


def _high_band_db(spectrum: "Doubles") -> float:
    low, high = (float(part.sum()) for part in np.split(spectrum, [4_000 * POINTS // RATE]))
    return float(np.clip(10 * np.log10((high + _TINY) / (low + _TINY)), FLOOR_DB, -FLOOR_DB))


def _flatness(power_FK: "Floats") -> float:
    raised = power_FK + np.float32(_TINY)
    of_frames = np.exp(np.log(raised).mean(axis=1)) / raised.mean(axis=1)
    return min(float(of_frames.mean(dtype=np.float64)), 1.0)


def _tilt(spectrum: "Doubles") -> float:
    """A straight line through the levels of twelve half octaves."""
    bins = np.round(125 * 2 ** (np.arange(13) / 2) * POINTS / RATE).astype(int)
    means = np.array([spectrum[low:high].mean() for low, high in pairwise(bins)])
    levels = spectrogram.levels_db(means.astype(np.float32), -FLOOR_DB).astype(np.float64)
    octaves = np.arange(12) / 2 - 11 / 4
    return float((octaves * levels).sum() / (octaves**2).sum())


def _share(mask: "NDArray[np.bool_]") -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _median(pitches_hz: "Doubles") -> float:
    voiced = pitches_hz[pitches_hz > 0]
    return float(np.median(voiced)) if len(voiced) else 0.0


def _quartiles_apart(pitches_hz: "Doubles") -> float:
    voiced = pitches_hz[pitches_hz > 0]
    low, high = np.percentile(voiced, (25, 75)) if len(voiced) else (1, 1)
    return float(12 * np.log2(high / low))


def _correlations(groups_FG: "Floats") -> "Doubles":
    """(G (G - 1) / 2,) of each group's level with each other's; 0 where one does not change."""
    centred = (groups_FG - groups_FG.mean(axis=0)).astype(np.float64)
    together = np.einsum("fg,fh->gh", centred, centred)
    strength = np.sqrt(together.diagonal())
    scaled = together / np.maximum(strength[:, None] * strength, 1e-3)  # decibels: less is rounding
    return scaled[np.triu_indices(GROUPS, 1)]


def _modulation(groups_FG: "Floats") -> "Doubles":
    """(G, octaves) shares of the power with which each group's level goes up and down; two seconds at least are seen."""
    frames = max(len(groups_FG), 2 * RATE // HOP)
    strength = np.abs(np.fft.rfft(groups_FG - groups_FG.mean(axis=0), frames, axis=0)) ** 2
    bins = np.round(np.array(MODULATION_HZ) * frames * HOP / RATE).astype(int)
    octaves = np.stack([strength[low:high].sum(axis=0) for low, high in pairwise(bins)], axis=1)
    return octaves / np.maximum(octaves.sum(axis=1, keepdims=True), _TINY)


def _unit(values: "NDArray") -> "Doubles":
    """Of length one; the same in every direction where there is nothing, as in silence."""
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-6 else np.full(len(values), len(values) ** -0.5)
