"""Speech that is still coming: where it is cut, and what is said to it, whatever the messages and the moments."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_platform.data import audio
from lepton_platform.models.speech_input import as_pcm
from lepton_platform.serving.audio import speech_answer
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.protocols import Encoded
from lepton_platform.serving.rejected import Rejected
from lepton_platform.serving.streaming import PAUSE_S, SpeechStream, Stretches
from tests.data.sounds import RATE
from tests.serving.recordings import TEXT, WORDS, middles, spoken

MOST = 10 * RATE
Levels = NDArray[np.int16]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def asked(engine: Engine, parts: Sequence[Encoded]) -> list[Any]:
    """Each part alone, as an idle service would."""
    return [engine.run([part])[0] for part in parts]


def chunks(levels: Levels, seed: int, most: int = RATE) -> list[bytes]:
    """The samples in messages of any size."""
    chance, found, start = random.Random(seed), [], 0
    while start < len(levels):
        size = chance.choice([0, 1, chance.randrange(most), most])
        found.append(levels[start : start + size].tobytes())
        start += size
    return found


@st.composite
def speech(draw: st.DrawFn) -> tuple[list[str], list[float]]:
    """Words, and the silences around them."""
    said: list[str] = draw(st.lists(st.sampled_from(list(WORDS)), min_size=1, max_size=15))
    gap = st.one_of(st.floats(0.05, 0.4), st.floats(0.5, 0.8), st.floats(1, 3))
    return said, [draw(gap) for _ in range(len(said) + 1)]


# --- where it is cut


@quick
@given(given_=speech(), seed=st.integers(0, 10**6), noise=st.sampled_from([0, 3, 1_500]))
def test_stretches_are_all_that_came_and_the_same_however_it_came(
    given_: tuple[list[str], list[float]], seed: int, noise: int
) -> None:
    levels = as_pcm(spoken(*given_))
    levels += np.random.default_rng(seed).integers(-noise, noise + 1, len(levels), dtype=np.int16)
    one, other = Stretches(MOST), Stretches(MOST)
    for part in chunks(levels, seed):
        before = list(one.finished)
        one.add(np.frombuffer(part, "<i2"))
        assert one.finished[: len(before)] == before  # what is finished stays
        assert one.open[1] - one.open[0] < MOST
    other.add(levels)
    for stretches in (one, other):
        stretches.finish()
        assert len(stretches) == len(levels) == stretches.finished[-1][1]
        assert [place[0] for place in stretches.finished] == [0, *(place[1] for place in stretches.finished[:-1])]
        assert all(0 < end - first <= MOST for first, end in stretches.finished)
    assert one.finished == other.finished
    np.testing.assert_array_equal(as_pcm(one.sound((0, len(one)))), levels)


@quick
@given(given_=speech())
def test_it_is_cut_where_nobody_speaks(given_: tuple[list[str], list[float]]) -> None:
    said, gaps = given_
    levels = as_pcm(spoken(said, gaps))
    stretches = Stretches(30 * RATE)
    stretches.add(levels)
    around = RATE // 50
    for _, end in stretches.finished:
        assert not levels[end - around : end + around].any()
    long = sum(gap_s > PAUSE_S + 0.05 for gap_s in gaps[1:-1])
    assert len(stretches.finished) >= long  # every pause that is one ends a stretch …
    assert len(stretches.finished) <= sum(gap_s > PAUSE_S - 0.05 for gap_s in gaps[1:])  # … and nothing else does


def test_who_never_pauses_is_cut_in_time() -> None:
    stretches = Stretches(MOST)
    stretches.add(as_pcm(np.sin(np.arange(60 * RATE) / 5).astype(np.float32) * np.float32(0.3)))
    assert len(stretches.finished) > 5 and max(end - first for first, end in stretches.finished) <= MOST


# --- what is said to it


def listened(engine: Engine, messages: list[bytes], seed: int, rate: int = RATE) -> tuple[SpeechStream, list[str]]:
    """A stream to which some passes were lost, and others came late; and its partial texts."""
    chance = random.Random(seed)
    encoder = engine.encoder
    stream, texts, waiting = SpeechStream(encoder), [], []  # pyright: ignore[reportArgumentType]
    if rate != RATE:
        stream.told({"rate": rate})
    for message in messages:
        stream.take(message)
        if waiting and chance.random() < 0.5:
            texts.append(stream.heard(asked(engine, waiting)))
            waiting = []
        if not waiting and (due := stream.due()) and chance.random() < 0.8:
            waiting = due
    if waiting:
        texts.append(stream.heard(asked(engine, waiting)))
    stream.end()
    if due := stream.due():
        texts.append(stream.heard(asked(engine, due)))
    return stream, texts


@settings(quick, max_examples=25)
@given(given_=speech(), seed=st.integers(0, 10**6), rate=st.sampled_from([RATE, RATE, 8_000, 44_100]))
def test_every_word_is_heard_once_at_its_time(
    speech_engine: Engine, given_: tuple[list[str], list[float]], seed: int, rate: int
) -> None:
    """However the messages fall and whichever passes there were: the answer is of the sound alone."""
    said, gaps = given_
    levels = as_pcm(spoken(said, gaps, rate))
    stream, texts = listened(speech_engine, chunks(levels, seed), seed, rate)
    value, parts, outputs = stream.whole()
    answer, _ = speech_answer([], parts, outputs)
    assert answer["text"] == " ".join(said) == texts[-1]
    for word, at in zip(answer["words"], middles(said, gaps), strict=True):
        assert word["start_s"] - 0.02 <= at <= word["end_s"] + 0.02
    assert answer["duration_s"] == pytest.approx(len(levels) / rate, abs=0.01)
    other, _ = listened(speech_engine, [levels.tobytes()], 0, rate)
    assert other.whole()[0] == value and speech_answer([], *other.whole()[1:])[0] == answer
    if rate == RATE:
        np.testing.assert_array_equal(as_pcm(audio.decode(value)), levels)


def test_what_was_finished_is_not_heard_again(speech_engine: Engine) -> None:
    """Of a minute with pauses each second of sound is heard a few times, not sixty."""
    said = [WORDS[number % 4] for number in range(48)]
    gaps = [0.2, *(1.0 if number % 4 == 3 else 0.2 for number in range(47)), 0.2]
    levels = as_pcm(spoken(said, gaps))
    stream, heard, texts = SpeechStream(speech_engine.encoder), 0, []  # pyright: ignore[reportArgumentType]
    for start in range(0, len(levels), RATE // 10):
        stream.take(levels[start : start + RATE // 10].tobytes())
        if due := stream.due():
            heard += sum(len(part.payload.pcm) for part in due)
            texts.append(stream.heard(asked(speech_engine, due)))
    assert len(texts) == pytest.approx(len(levels) / RATE, abs=3) and heard < 3 * len(levels)
    for before, after in itertools.pairwise(texts):
        assert after.startswith(before)  # tones are never misheard: nothing is taken back


def test_silence_is_asked_about_once_at_the_end(speech_engine: Engine) -> None:
    stream = SpeechStream(speech_engine.encoder)  # pyright: ignore[reportArgumentType]
    for _ in range(40):
        stream.take(bytes(2 * RATE))
        assert not stream.due()
    stream.end()
    assert len(stream.due()) == 1 and stream.heard(asked(speech_engine, stream.due())) == ""
    value, parts, outputs = stream.whole()
    answer, _ = speech_answer([], parts, outputs)
    assert (answer["text"], answer["duration_s"]) == ("", 40.0) and audio.duration_of(value) == 40


def test_a_pass_that_has_heard_it_all_is_the_last(speech_engine: Engine) -> None:
    stream = SpeechStream(speech_engine.encoder)  # pyright: ignore[reportArgumentType]
    stream.take(as_pcm(spoken()).tobytes())
    assert stream.heard(asked(speech_engine, stream.due())) == TEXT
    stream.end()
    assert not stream.due() and speech_answer([], *stream.whole()[1:])[0]["text"] == TEXT


# --- what is no speech


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({}, 422, "rate"),
        ({"rate": None}, 422, "None"),
        ({"rate": "8000"}, 422, "8000"),
        ({"rate": True}, 422, "True"),
        ({"rate": 8_000.0}, 422, "8000.0"),
        ({"rate": 7_999}, 422, "7999"),
        ({"rate": 48_001}, 422, "48001"),
        ({"rate": 10**400}, 422, "rate"),
        ({"rate": 8_000, "language": "en"}, 415, "language"),
    ],
)
def test_a_wrong_rate_is_named(speech_engine: Engine, options: dict, status: int, says: str) -> None:
    with pytest.raises(Rejected, match=says) as refused:
        SpeechStream(speech_engine.encoder).told(options)  # pyright: ignore[reportArgumentType]
    assert refused.value.status == status


def test_limits(speech_engine: Engine) -> None:
    def stream(rate: int = RATE) -> SpeechStream:
        made = SpeechStream(speech_engine.encoder)  # pyright: ignore[reportArgumentType]
        made.told({"rate": rate})
        return made

    with pytest.raises(Rejected, match="half a sample"):
        stream().take(b"abc")
    for rate in (8_000, RATE, 48_000):
        full = stream(rate)
        full.take(bytes(2 * 60 * rate))
        with pytest.raises(Rejected, match="60 s") as refused:
            full.take(bytes(2))
        assert refused.value.status == 413
        short = stream(rate)
        short.take(bytes(2 * int(0.049 * rate)))
        with pytest.raises(Rejected, match=r"0\.05 s"):
            short.end()
        enough = stream(rate)
        enough.take(bytes(2 * int(0.05 * rate)))
        enough.end()
        assert enough.heard(asked(speech_engine, enough.due())) == ""
    with pytest.raises(Rejected, match=r"after 0\.000 s"):
        stream().end()
