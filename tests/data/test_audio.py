"""Recordings as people have them: read right or refused in a sentence, whatever the file holds."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data import audio
from lepton_platform.data.audio import MARGIN_S, RATE
from tests.data.sounds import likeness, saved, speechlike

VOICE = speechlike(1.0)
STEREO = np.stack([VOICE, VOICE * 0.5], axis=1)


def fields(wav: bytes, *, channels: int = 1, rate: int = RATE, length: int | None = None) -> bytes:
    """The same WAV with another header."""
    head = bytearray(wav)
    struct.pack_into("<HI", head, 22, channels, rate)
    if length is not None:
        struct.pack_into("<I", head, 40, length)
    return bytes(head)


def streamed(flac: bytes, frames: int = 0) -> bytes:
    """A FLAC whose header has so many frames; 0: it does not tell, as a program that wrote into a pipe leaves it."""
    head = bytearray(flac)
    head[21] &= 0xF0
    head[22:26] = frames.to_bytes(4, "big")
    return bytes(head)


@pytest.mark.parametrize(
    ("kind", "subtype", "least"),
    [
        ("WAV", "PCM_16", 0.9999),
        ("WAV", "PCM_24", 0.9999),
        ("WAV", "PCM_32", 0.9999),
        ("WAV", "PCM_U8", 0.99),
        ("WAV", "FLOAT", 0.9999),
        ("WAV", "DOUBLE", 0.9999),
        ("WAV", "ULAW", 0.99),
        ("WAV", "ALAW", 0.99),
        ("WAV", "MS_ADPCM", 0.98),
        ("WAVEX", "PCM_16", 0.9999),
        ("RF64", "PCM_16", 0.9999),
        ("FLAC", "PCM_24", 0.9999),
        ("OGG", "VORBIS", 0.9),
        ("MP3", "MPEG_LAYER_III", 0.9),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_each_kind_of_file_gives_its_sound_at_one_rate(kind, subtype, least, rate):
    if kind == "MP3" and rate == 8_000:
        least = 0.8
    data = saved(speechlike(1.0, rate=rate), kind, subtype, rate)
    found = audio.decode(data)
    assert found.dtype == np.float32 and found.ndim == 1 and np.abs(found).max() <= 1
    assert abs(len(found) - RATE) <= RATE * 0.1
    assert audio.duration_of(data) == pytest.approx(len(found) / RATE, abs=1e-3)
    assert likeness(found, VOICE) > least


def test_opus_is_read():
    data = saved(speechlike(1.0, rate=48_000), "OGG", "OPUS", 48_000)
    assert likeness(audio.decode(data), VOICE) > 0.9


def test_channels_are_averaged_and_rates_do_not_change_the_sound():
    assert np.allclose(audio.decode(saved(STEREO, "WAV", "FLOAT")), VOICE * 0.75, atol=1e-6)
    t = np.arange(48_000) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    found = audio.decode(saved(tone, "WAV", "FLOAT", 48_000))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert len(found) == RATE and np.abs(found - expected)[500:-500].max() < 1e-3


def test_what_clips_stays_clipped():
    loud = np.clip(VOICE * 10, -3, 3)
    assert audio.decode(saved(loud, "WAV", "FLOAT")).max() == 1.0
    assert (audio.decode(saved(np.clip(VOICE * 10, -1, 1), "WAV", "PCM_16")) >= 32_767 / 32_768).sum() > 100


WAV, FLAC, OGG, MP3 = saved(VOICE), saved(VOICE, "FLAC"), saved(VOICE, "OGG"), saved(VOICE, "MP3")
BROKEN = VOICE.copy()
BROKEN[100] = np.nan
ENDLESS = VOICE.copy()
ENDLESS[7] = -np.inf


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no bytes"),
        (b"Dear diary, this is called .wav" * 50, r"not a recording of a kind that is read \(WAV, FLAC, OGG, MP3\)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a recording of a kind that is read"),
        (saved(VOICE, "AIFF"), "not a recording of a kind that is read"),
        (saved(VOICE, "AU"), "not a recording of a kind that is read"),
        (saved(VOICE, "W64"), "not a recording of a kind that is read"),
        (saved(VOICE, "CAF"), "not a recording of a kind that is read"),
        ((VOICE * 32_767).astype("<i2").tobytes(), "not a recording of a kind that is read"),
        (b"ID3\x04\0\0\0\0\0\0" + saved(VOICE, "AIFF"), "damaged|kind"),
        (WAV[:30], "damaged or cut off"),
        (WAV[:44], "no samples"),
        (WAV[:144], r"too short: 0\.003 s; at least 0\.05 s"),
        (FLAC[:30], "damaged or cut off"),
        (saved(BROKEN, "WAV", "FLOAT"), "no numbers"),
        (saved(ENDLESS, "WAV", "FLOAT"), "no numbers"),
        (saved(BROKEN, "WAV", "DOUBLE", 44_100), "no numbers"),
        (saved(VOICE * 32_768, "WAV", "FLOAT"), "divide by full scale"),
        (fields(WAV, channels=200), "200 channels; at most 8"),
        (fields(WAV, channels=60_000), "damaged or cut off"),
        (fields(WAV, channels=0), "damaged or cut off"),
        (fields(WAV, rate=999), "999 samples a second; between 1,000 and 384,000"),
        (fields(WAV, rate=384_001), "384,001 samples a second"),
        (fields(WAV, rate=2**31), "damaged or cut off"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(data, said):
    with pytest.raises(ValueError, match=said) as refused:
        audio.decode(data)
    assert "\n" not in str(refused.value)


def test_only_bytes_are_read():
    with pytest.raises(ValueError, match="a recording is bytes, not str"):
        audio.decode("prompt.wav")  # pyright: ignore[reportArgumentType]


def test_too_long_is_told_from_the_header_and_a_header_that_lies_is_found_out():
    long = saved(np.zeros(61 * 1_000, np.float32), "WAV", "PCM_U8", 1_000)
    with pytest.raises(ValueError, match=r"lasts 61\.0 s; at most 60 s"):
        audio.decode(long)
    assert len(audio.decode(long, max_seconds=None)) == 61 * RATE
    with pytest.raises(ValueError, match="lasts 268435"):
        audio.decode(streamed(FLAC, 2**32 - 1))
    assert audio.duration_of(streamed(FLAC, 2**32 - 1)) > 200_000
    for data in (streamed(FLAC), streamed(saved(VOICE, "FLAC", rate=8_000))):
        with pytest.raises(ValueError, match=r"longer than the 0\.4 s that are read"):
            audio.decode(data, max_seconds=0.4)
    assert len(audio.decode(streamed(FLAC, 4_000))) == 4_000  # a header that says less is believed
    assert len(audio.decode(fields(WAV, length=2**32 - 1))) == len(VOICE)  # one that says more is not


def test_a_stream_that_does_not_tell_its_length_is_read_to_its_end():
    assert audio.duration_of(streamed(FLAC)) == 1.0
    assert (audio.decode(streamed(FLAC)) == audio.decode(FLAC)).all()


@pytest.mark.parametrize("data", [WAV, FLAC, OGG, MP3], ids=["WAV", "FLAC", "OGG", "MP3"])
def test_of_a_file_that_is_cut_off_what_is_there_is_used(data):
    long = {id(WAV): "WAV", id(FLAC): "FLAC", id(OGG): "OGG", id(MP3): "MP3"}[id(data)]
    whole = saved(speechlike(8.0), long)
    found, expected = audio.decode(whole[: len(whole) // 2]), audio.decode(whole)
    assert len(expected) * 0.3 < len(found) < len(expected) * 0.7
    assert np.abs(found - expected[: len(found)])[:-2_000].max() < 1e-3


def test_the_same_samples_give_the_same_bytes():
    assert audio.encode(VOICE) == audio.encode(VOICE.copy())
    for wrong in (np.zeros((9, 2), np.float32), VOICE[:0]):
        with pytest.raises(ValueError, match=r"a recording is \(N,\) samples"):
            audio.encode(wrong)


@st.composite
def sounds(draw: st.DrawFn) -> np.ndarray:
    """Bursts of noise between silences, with an offset, at any level."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = [
        rng.normal(0, 10 ** -draw(st.floats(0, 5)), draw(st.integers(800, 6_000)))
        for _ in range(draw(st.integers(1, 6)))
    ]
    offset = draw(st.sampled_from([0.0, 0.0009, 0.0011, -0.3, 0.9]))
    return np.clip(np.concatenate(parts) + offset, -1, 1).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(sounds())
def test_a_flac_holds_the_samples_to_16_bits(samples):
    found = audio.decode(audio.encode(samples))
    assert found.shape == samples.shape
    assert np.abs(found - np.clip(samples, -1, 32_767 / 32_768)).max() <= 0.5 / 32_768


@settings(max_examples=150, deadline=None)
@given(sounds())
def test_mending_twice_is_mending_once_and_loses_only_silence(samples):
    once = audio.mend(samples)
    again = audio.mend(once.samples)
    assert again.start_s == 0 and (again.samples == once.samples).all()
    assert abs(once.samples.mean(dtype=np.float64)) <= 1.01e-3
    data = audio.encode(samples)
    canonical = audio.canonical(data)
    assert audio.canonical(canonical) == canonical and (audio.decode(canonical) == once.samples).all()
    start = round(once.start_s * RATE)
    kept = samples[start : start + len(once.samples)]
    assert len(kept) == len(once.samples)
    if abs(float(samples.mean(dtype=np.float64))) < 5e-4 and abs(float(kept.mean(dtype=np.float64))) < 5e-4:
        assert np.abs(once.samples - kept).max() <= 1 / 32_768


def test_silence_before_and_after_is_cut_to_a_margin():
    quiet = np.zeros(RATE, np.float32)
    mended = audio.mend(np.concatenate([quiet, VOICE, quiet, VOICE, quiet]))
    voiced = np.flatnonzero(np.abs(VOICE) > 0.02)
    began, ended = RATE + voiced[0], 3 * RATE + voiced[-1]
    assert mended.start_s * RATE == pytest.approx(began - MARGIN_S * RATE, abs=400)
    assert len(mended.samples) == pytest.approx(ended - began + 2 * MARGIN_S * RATE, abs=800)


def test_faint_hiss_is_silence_and_a_soft_voice_is_not():
    rng = np.random.default_rng(3)
    hiss = rng.normal(0, 10 ** (-44 / 20), RATE).astype(np.float32)  # above the floor, 30 dB below the voice
    loud = (VOICE / np.abs(VOICE).max()).astype(np.float32)
    assert len(audio.mend(np.concatenate([hiss, loud])).samples) < len(loud) + MARGIN_S * RATE + 400
    soft = np.concatenate([np.zeros(RATE, np.float32), VOICE * 0.03])
    assert RATE * 0.5 < len(audio.mend(soft).samples) < RATE * 1.3


def test_a_recording_that_is_silent_throughout_is_left_whole():
    rng = np.random.default_rng(1)
    for silent in (np.zeros(RATE, np.float32), rng.normal(0, 1e-3, RATE).astype(np.float32)):
        assert len(audio.mend(silent).samples) == RATE


def test_an_offset_is_removed():
    mended = audio.mend((VOICE * 0.5 + 0.2).astype(np.float32))
    assert abs(mended.samples.mean()) < 1e-3
    assert likeness(mended.samples, VOICE[round(mended.start_s * RATE) :]) > 0.999


def test_a_long_recording_can_be_cut_where_nobody_speaks():
    quiet = np.zeros(RATE // 2, np.float32)
    burst = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    found = audio.silences(np.concatenate([quiet, burst, quiet, burst, quiet[: RATE // 10]]))
    assert found == [(0, RATE // 2), (3 * RATE // 2, 2 * RATE)]
    assert audio.silences(np.concatenate([burst, quiet]), min_s=0.6) == []
    assert audio.silences(np.zeros(RATE, np.float32)) == [(0, RATE)]


@settings(max_examples=100, deadline=None)
@given(sounds(), st.floats(0.01, 0.5))
def test_silences_are_silent_in_order_and_long_enough(samples, least_s):
    found = audio.silences(samples, least_s)
    flat = [edge for pair in found for edge in pair]
    assert flat == sorted(flat) and all(0 <= edge <= len(samples) for edge in flat)
    assert all(end - first >= least_s * RATE for first, end in found)
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    assert all(np.sqrt(np.mean(np.square(samples[a:b], dtype=np.float64))) <= max(level, 0.004) for a, b in found)


GOOD = [WAV, FLAC, OGG, MP3, saved(STEREO, "WAV", "FLOAT"), saved(VOICE, "WAV", "IMA_ADPCM"), streamed(FLAC)]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(GOOD), st.integers(0, 40_000), st.sampled_from(["cut", "over", "into"]))
def test_any_bytes_are_a_recording_or_a_value_error(junk, good, at, how):
    at = at % len(good) if at % 3 else at % 120  # headers are where it hurts
    tail = {"cut": b"", "over": good[at + len(junk) :], "into": good[at:]}[how]
    for data in (junk, good[:at] + junk + tail):
        try:
            seconds = audio.duration_of(data)
            assert seconds >= 0
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
        try:
            once = audio.canonical(data)
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert audio.canonical(once) == once


def test_importing_it_opens_no_library():
    code = "import sys, lepton_platform.data.audio; print({'soundfile', 'soxr', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
