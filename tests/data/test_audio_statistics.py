"""What can be measured in a recording: the right numbers, finite whatever it is."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_platform.data.audio import mend
from lepton_platform.data.audio_statistics import STATISTICS, descriptors, statistics
from lepton_platform.data.pitch import FRAME, pitches_hz
from tests.data.sounds import RATE, speechlike

VOICE = speechlike(3, seed=1)
TIMES = np.arange(2 * RATE) / RATE


def one(samples: np.ndarray) -> dict[str, float]:
    return {name: float(values[0]) for name, values in statistics([samples.astype(np.float32)]).items()}


def tone(hz: float, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * TIMES)).astype(np.float32)


def noise(rms: float, seconds: float = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, rms, int(seconds * RATE)).astype(np.float32)


def band(samples: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    spectrum, hz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.fft.irfft(spectrum * ((hz >= low_hz) & (hz <= high_hz)), len(samples)).astype(np.float32)


def test_a_tone_measures_what_it_is():
    found = one(tone(250))
    assert (found["seconds"], found["silence_share"], found["voiced_share"]) == (2, 0, 1)
    assert found["peak"] == pytest.approx(0.5, abs=1e-3)
    assert found["loudness"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert found["pitch_hz"] == pytest.approx(250, abs=0.5) and found["pitch_spread"] < 0.01
    assert found["zero_crossing_rate"] == pytest.approx(2 * 250 / RATE, rel=0.05)
    assert found["bandwidth_hz"] == pytest.approx(250, abs=100) and found["snr_db"] < 0.1
    assert found["high_band_db"] < -60 and found["spectral_flatness"] < 1e-4
    assert found["clipped_share"] == pytest.approx(2 * np.arccos(0.99) / np.pi, abs=0.005)  # of a sine, near its tops


@pytest.mark.parametrize("hz", [65, 110, 197.3, 440, 490])
def test_the_pitch_is_the_voices_and_not_a_harmonics(hz):
    voice = sum(np.sin(2 * np.pi * hz * n * TIMES + n) / n for n in range(1, 12)).astype(np.float32)
    frames = np.stack([voice[start : start + FRAME] for start in range(0, RATE, 500)])
    assert pitches_hz(frames) == pytest.approx(np.full(len(frames), hz), rel=0.003)
    without_its_first = voice - np.sin(2 * np.pi * hz * TIMES + 1).astype(np.float32)  # as through a telephone
    assert one(without_its_first)["pitch_hz"] == pytest.approx(hz, rel=0.003)


def test_a_pitch_that_glides_two_octaves_spreads_over_one():
    found = one(np.sin(2 * np.pi * np.cumsum(100 * 4 ** (TIMES / 2)) / RATE))
    assert found["pitch_hz"] == pytest.approx(200, rel=0.02) and found["pitch_spread"] == pytest.approx(12, abs=0.5)


def test_white_noise_is_flat_and_has_no_pitch():
    found = one(noise(0.1))
    assert found["loudness"] == pytest.approx(-20, abs=0.1)
    assert found["voiced_share"] == found["pitch_hz"] == found["pitch_spread"] == 0
    assert abs(found["spectral_tilt"]) < 0.5 and abs(found["high_band_db"]) < 0.3
    assert found["bandwidth_hz"] == pytest.approx(0.99 * 8_000, abs=50)
    assert found["rolloff_hz"] == pytest.approx(0.85 * 8_000, abs=100)
    assert (
        0.5 < found["spectral_flatness"] < 0.65
    )  # exp(-Euler gamma) of a random spectrum, and a little for the window
    red = one(np.cumsum(noise(0.001)))
    assert red["spectral_tilt"] == pytest.approx(-6, abs=0.7)  # dB an octave, of a sum of noise


def test_damages_move_what_measures_them():
    whole = one(VOICE)
    assert 120 < whole["pitch_hz"] < 160 and whole["voiced_share"] > 0.7
    telephone = one(band(VOICE + noise(0.01, 3), 300, 3_400))
    assert telephone["high_band_db"] < -60 < one(VOICE + noise(0.01, 3))["high_band_db"]
    assert telephone["bandwidth_hz"] <= 3_400
    clipped = one(np.clip(4 * VOICE, -0.3, 0.3) / 2)
    assert clipped["clipped_share"] > 0.1 > 0.01 > whole["clipped_share"]
    assert one(VOICE + noise(0.01, 3))["snr_db"] < whole["snr_db"] - 10
    assert one(VOICE / 2)["loudness"] == pytest.approx(whole["loudness"] - 6.02, abs=0.05)
    half = np.concatenate([VOICE, np.zeros_like(VOICE)])
    assert one(half)["silence_share"] == pytest.approx((1 + whole["silence_share"]) / 2, abs=0.01)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0),
        np.zeros(1),
        np.ones(1),
        np.full(319, -1.0),
        np.zeros(RATE),
        np.ones(RATE),
        np.full(RATE, 1 / 32_768),
        np.tile([1.0, -1.0], 8_000),
        np.eye(1, RATE)[0],
        np.full(RATE, 1e-30),
    ],
    ids=["nothing", "a zero", "a one", "short", "silence", "constant", "one step", "square", "click", "tiny"],
)
def test_the_odd_is_finite_too(samples):
    check_bounds([samples.astype(np.float32)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        arrays(np.float32, st.integers(0, 2_000), elements=st.floats(-1, 1, width=32), fill=st.floats(-1, 1, width=32)),
        min_size=1,
        max_size=3,
    )
)
def test_every_number_is_finite_and_in_its_bounds(recordings):
    check_bounds(recordings)


def check_bounds(recordings: list[np.ndarray]) -> None:
    found, vectors = statistics(recordings), descriptors(recordings)
    assert list(found) == list(STATISTICS)
    assert all(values.shape == (len(recordings),) and np.isfinite(values).all() for values in found.values())
    shares = ("peak", "clipped_share", "silence_share", "zero_crossing_rate", "voiced_share", "spectral_flatness")
    assert all(((found[name] >= 0) & (found[name] <= 1)).all() for name in shares)
    assert ((found["loudness"] >= -100) & (found["loudness"] <= 0.01)).all()
    assert ((found["snr_db"] >= 0) & (found["snr_db"] <= 60)).all()
    assert ((found["bandwidth_hz"] >= found["rolloff_hz"]) & (found["bandwidth_hz"] <= 8_000)).all()
    assert all(pitch == 0 or 55 < pitch < 510 for pitch in found["pitch_hz"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(recordings)), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0.05, 1.5), st.integers(0, 5)), min_size=1, max_size=4))
def test_a_recording_measures_the_same_alone_and_among_others(given_ones):
    recordings = [speechlike(seconds, seed) for seconds, seed in given_ones]
    together, vectors = statistics(recordings), descriptors(recordings)
    for place, samples in enumerate(recordings):
        assert {name: float(values[place]) for name, values in together.items()} == one(samples)
        assert (vectors[place] == descriptors([samples])[0]).all()


def test_a_descriptor_knows_a_voice_in_any_level_and_tells_others_apart():
    a, quieter, longer, other, tone_, hiss = descriptors(
        [
            VOICE,
            VOICE / 4,
            np.concatenate([np.zeros(8_000, np.float32), VOICE]),
            speechlike(3, 7),
            tone(300),
            noise(0.1),
        ]
    )
    assert a @ quieter > 0.999 and a @ longer > 0.95
    assert a @ other > max(a @ tone_, a @ hiss) + 0.05


def test_no_recordings_and_chosen_names():
    assert set(statistics([])) == set(STATISTICS) and descriptors([]).shape == (0, 124)
    assert list(statistics([VOICE], ("snr_db", "seconds"))) == ["snr_db", "seconds"]


def test_a_second_of_sound_takes_milliseconds():
    recordings = [mend(speechlike(4, seed)).samples for seed in range(5)]
    statistics(recordings[:1]), descriptors(recordings[:1])
    started = time.process_time()
    statistics(recordings), descriptors(recordings)
    assert time.process_time() - started < 20 * 0.02  # 2 ms where nothing else runs


SCRIPT = """
import sys, hashlib
sys.path.insert(0, "")
from lepton_platform.data.audio_statistics import descriptors, statistics
from tests.data.sounds import speechlike
recordings = [speechlike(seconds, 3) for seconds in (0.3, 2, 9)]
found = b"".join(values.tobytes() for values in (*statistics(recordings).values(), descriptors(recordings)))
print(hashlib.sha256(found).hexdigest(), "scipy" in sys.modules, "torch" in sys.modules)
"""


def test_the_bytes_do_not_depend_on_threads_and_scipy_is_not_needed():
    said = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        words = [sys.executable, "-c", SCRIPT]
        said.add(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1 and said.pop().endswith("False False\n")
