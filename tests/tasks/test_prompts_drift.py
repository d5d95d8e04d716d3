"""Drift of prompts: sentences never heard pass; with music behind them, through a telephone, overdriven, in another
language they do not. Windows judged as the check judges them."""

from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lepton_platform.data.audio import decode, mend
from lepton_platform.data.audio_statistics import descriptors
from lepton_platform.features.split import place
from lepton_platform.models.transcription import Transcript
from lepton_platform.monitoring.reference import ReferenceParams, held_out_answers
from lepton_platform.monitoring.signals import Signals
from lepton_platform.tasks.prompts import drift
from lepton_platform.tasks.prompts.metrics import EVALUATOR
from tests.data.sounds import saved, speechlike
from tests.tasks import prompts
from tests.tasks.windows import Windows

PARAMS = ReferenceParams(windows=400)
SHIFTED = 110  # recordings of each shift


@pytest.fixture(scope="module")
def halves(cache_dir: Path) -> tuple[pa.Table, pa.Table]:
    """What is learnt from, and what is not: half of the sentences each, so that a window of 200 can be drawn."""
    rows = prompts.usable_prompts(cache_dir)
    table = pa.table({name: [row[name] for row in rows] for name in ("id", "audio", "text", "sentence")})
    learnt = pa.array([place(sentence, "drift") < 0.52 for sentence in table["sentence"].to_pylist()])
    return table.filter(learnt), table.filter(pa.array([not one for one in learnt.to_pylist()]))


@pytest.fixture(scope="module")
def windows(halves) -> Windows:
    return Windows(drift, halves[0], PARAMS)


def rows(files: list[bytes]) -> pa.Table:
    return pa.table({"audio": files})


def test_sentences_never_heard_seldom_alarm_and_two_hundred_of_them_never(windows, halves):
    alarms = windows.alarms(halves[1], (50, 100, 200), repeats=100)
    assert max(alarms.values()) <= 5 and alarms[200] == 0, alarms


@pytest.fixture(scope="module")
def held_out(halves) -> list[np.ndarray]:
    return [decode(data) for data in halves[1]["audio"].to_pylist()[:SHIFTED]]


def behind_music(held_out: list[np.ndarray], cache: Path, snr_db: float) -> list[bytes]:
    played, rng = prompts.music(cache), np.random.default_rng(0)
    starts = rng.integers(0, len(played) - 60 * 16_000, len(held_out)).tolist()
    mixed = [prompts.with_music(one, played, at, snr_db) for one, at in zip(held_out, starts, strict=True)]
    return [prompts.recorded(samples) for samples in mixed]


@pytest.mark.parametrize("snr_db", [5, 15])
def test_music_behind_them_always_alarms(windows, held_out, cache_dir, snr_db):
    shifted = rows(behind_music(held_out, cache_dir, snr_db))
    assert windows.alarms(shifted, (50, 100), repeats=60) == {50: 60, 100: 60}


@pytest.mark.parametrize("change", [prompts.through_a_telephone, prompts.overdriven, lambda samples: samples / 4])
def test_a_bad_line_always_alarms(windows, held_out, change):
    shifted = rows([prompts.recorded(samples, change) for samples in held_out])
    assert windows.alarms(shifted, (50, 100), repeats=60) == {50: 60, 100: 60}


class SoundsAlone:
    """Neither level nor noise, nor how long they are: descriptors."""

    GROUP = drift.GROUP

    @staticmethod
    def inputs(rows: pa.Table, downloads: Path) -> Signals:
        return Signals(
            vectors={"descriptor": descriptors([mend(decode(data)).samples for data in rows["audio"].to_pylist()])}
        )


@pytest.fixture(scope="module")
def by_sound(halves) -> Windows:
    return Windows(SoundsAlone, halves[0], PARAMS)


@pytest.mark.parametrize("language", ["es", "fr"])
def test_another_language_always_alarms_by_its_sounds_alone(windows, by_sound, cache_dir, language):
    shifted = rows([prompts.recorded(one) for one in islice(prompts.prompts_in(language, cache_dir), SHIFTED)])
    for judge in (windows, by_sound):
        assert judge.alarms(shifted, (50, 100), repeats=60) == {50: 60, 100: 60}


def test_sentences_never_heard_sound_alike(by_sound, halves):
    assert max(by_sound.alarms(halves[1], (50, 100, 200), repeats=60).values()) <= 2


def test_a_log_holds_recordings_as_they_were_sent():
    samples = np.pad(speechlike(2), (16_000, 8_000)) + np.float32(0.01)
    sent = [saved(samples), saved(np.stack([samples, samples], axis=1), "FLAC"), saved(samples[::2], rate=8_000)]
    found = drift.inputs(rows(sent), Path()).numbers
    assert found["seconds"] == pytest.approx([found["seconds"][0]] * 3, abs=0.03) and found["seconds"][0] < 2.4
    assert found["loudness"] == pytest.approx([found["loudness"][0]] * 3, abs=0.5)
    assert found["high_band_db"][2] < found["high_band_db"][0]


# --- answers


def test_answers_are_how_sure_how_much_and_how_various():
    table = pa.table(
        {
            "text": ["Press one, please.", "the the the the", "", None],
            "score": [0.9, 0.3, 0.0, 0.0],
            "audio": [saved(speechlike(1, n)) for n in range(4)],
            "duration_s": [9.0] * 4,  # as it was sent
        }
    )
    found = {name: values.tolist() for name, values in drift.answers(table).numbers.items()}
    assert found["words"] == [3, 4, 0, 0] and found["score"] == [0.9, 0.3, 0, 0]
    assert found["different_words"] == [1, 0.25, 0, 0] and found["letters_a_word"][1] == 3
    assert found["words_a_second"][:2] == pytest.approx([3, 4], rel=0.3)
    by_header = drift.answers(table.drop_columns(["audio"])).numbers["words_a_second"]
    assert set(drift.counted(table.drop_columns(["audio"])).numbers) == set(found) - {"words_a_second"}
    assert by_header == pytest.approx([3 / 9, 4 / 9, 0, 0])


def test_held_out_answers_and_the_log_are_read_alike():
    true = pa.table({"id": ["a", "b"], "text": ["Agent login.", "Goodbye"], "sentence": ["agent login", "goodbye"]})
    outputs = np.empty(2, dtype=object)
    outputs[:] = [Transcript("Agent log in!", 0.5, seconds=1.5), Transcript("Goodbye.", 0.25, seconds=0.5)]
    known = held_out_answers(EVALUATOR.answers(true, outputs, ()), true, drift.GROUP)
    assert known["sentence"].to_pylist() == ["agent login", "goodbye"]
    log = pa.table({"text": ["Agent log in!", "Goodbye."], "score": [0.5, 0.25], "duration_s": [1.5, 0.5]})
    found, served = drift.answers(known).numbers, drift.answers(log).numbers
    assert {name: values.tolist() for name, values in found.items()} == {n: v.tolist() for n, v in served.items()}
    assert found["words"].tolist() == [3, 1]
