"""Fingerprints: a copy of a recording is like it, whatever was done to it; another recording is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_platform.data.audio import decode, encode
from lepton_platform.data.fingerprint import shingles
from tests.data.sounds import RATE, saved


def babble(seconds: float = 3, seed: int = 0) -> np.ndarray:
    """(N,) float32: sounds of a tenth of a second, each of a colour and a level of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(round(seconds * 10)):
        spectrum, hz = np.fft.rfft(rng.normal(0, 1, RATE // 10)), np.fft.rfftfreq(RATE // 10, 1 / RATE)
        colour = sum(np.exp(-(((hz - centre) / 200) ** 2)) for centre in rng.uniform(200, 3_500, 3)) + 0.01
        sound = np.fft.irfft(spectrum * colour)
        found.append(sound / np.abs(sound).max() * rng.uniform(0.05, 0.5))
    return np.concatenate(found).astype(np.float32)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    one, other = shingles(a.astype(np.float32)), shingles(b.astype(np.float32))
    return len(one & other) / len(one | other)


WHOLE = np.pad(babble(), 2_400)  # a recording begins and ends with a little silence


@pytest.mark.parametrize(
    ("changed", "at_least"),
    [
        (WHOLE * 0.1, 0.97),
        (np.pad(WHOLE, (7_777, 0)), 0.99),
        (np.pad(WHOLE, (123, 20_000)), 0.99),
        (WHOLE[2_000:-555], 0.9),
        (WHOLE + np.random.default_rng(1).normal(0, 0.003, len(WHOLE)), 0.9),
        (decode(saved(WHOLE, "OGG")), 0.8),
        (decode(saved(WHOLE[::2], "WAV", "ULAW", RATE // 2)), 0.6),
    ],
    ids=["softer", "later", "longer", "cut", "noise", "ogg", "telephone"],
)
def test_a_copy_is_like_the_recording(changed, at_least):
    assert likeness(WHOLE, changed) >= at_least


def test_others_are_not():
    assert max(likeness(WHOLE, babble(seed=seed)) for seed in range(1, 20)) < 0.4
    assert likeness(WHOLE, WHOLE[::-1]) < 0.4


def test_a_long_recording_has_no_more_signs_than_the_four_seconds_in_its_middle():
    assert len(shingles(babble(30))) < 1.2 * len(shingles(babble(4))) < 80 * 24


def test_silences_are_alike_and_no_set_is_empty():
    silent = [np.zeros(n, np.float32) for n in (0, 1, 800, RATE)]
    assert {frozenset(shingles(samples)) for samples in silent} == {frozenset({"flat:-100"})}


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, st.integers(0, 3_000), elements=st.floats(-1, 1, width=32), fill=st.floats(-1, 1, width=32)))
def test_any_samples_have_a_fingerprint_and_always_the_same(samples):
    found = shingles(samples)
    assert found and found == shingles(samples.copy())
    if len(samples):
        kept = decode(encode(np.resize(samples, 2_000)))
        assert shingles(kept) == shingles(decode(encode(kept)))
