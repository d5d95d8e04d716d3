"""What a network has to beat on prompts: real recordings are heard, each by itself, with what training texts teach."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lepton_platform.data import audio
from lepton_platform.data.transcripts import speakable
from lepton_platform.features.split import split_of
from lepton_platform.tasks.prompts import source
from lepton_platform.tasks.prompts.metrics import EVALUATOR, hidden_markov_models, slices
from lepton_platform.tasks.prompts.source import SourceParams
from tests.data.sounds import speechlike

SHORTEST_S, LONGEST_S = 1.0, 2.5


@pytest.fixture(scope="module")
def prompts(cache_dir: Path) -> list[dict]:
    kept = (cache_dir / "packages/apt").glob("asterisk-core-sounds-en-g722-*/archive.deb")
    if shutil.which("apt-get") is None and not any(kept):
        pytest.skip("the prompts are Debian's: neither is apt-get here, nor were they fetched before")
    found = source.records(SourceParams(), cache_dir)
    return [row for row in found if row["audio"] and speakable(row["text"]) is None]


def split(prompts: list[dict], name: str) -> pa.Table:
    """Rows as a training set has them."""
    chosen = [
        row
        for row in prompts
        if split_of(row["sentence"], test_share=0.2, validation_share=0.15, salt="0") == name
        and (name == "train" or SHORTEST_S < audio.duration_of(row["audio"]) < LONGEST_S)
    ]
    return pa.table({column: [row[column] for row in chosen] for column in ("id", "audio", "text", "sentence")})


@pytest.fixture(scope="module")
def train(prompts) -> pa.Table:
    return split(prompts, "train")


@pytest.fixture(scope="module")
def rows(prompts) -> pa.Table:
    """Prompts never learnt."""
    return split(prompts, "test").slice(0, 20)


@pytest.fixture(scope="module")
def answers(train, rows) -> pa.Table:
    return EVALUATOR.yardstick(train, rows, ())


def test_prompts_are_heard_each_by_itself(train, rows, answers):
    assert answers["sentence"] == rows["sentence"]
    assert 0.4 < EVALUATOR.headline(answers) < 0.95
    turned = pa.array(range(9, -1, -1))
    again = hidden_markov_models(train, rows.take(turned))
    assert again == answers["said"].take(turned).to_pylist(), "an answer depends on the recordings before it"


def test_training_texts_make_their_words_likelier(rows, answers):
    others = pa.table({"text": ["My dog has eaten the plums of our neighbour's aunt, and she laughs."] * 30})
    ignorant = EVALUATOR.served(rows, [{"text": text} for text in hidden_markov_models(others, rows)])
    assert EVALUATOR.headline(answers) > EVALUATOR.headline(ignorant) + 0.1


def test_what_holds_no_speech_has_an_answer_all_the_same():
    """Texts without a word that can be pronounced teach nothing, and break nothing."""
    sounds = [np.zeros(800, np.float32), np.zeros(16_000, np.float32), speechlike(0.3), np.ones(3_000, np.float32)]
    rows = pa.table({"audio": [audio.encode(sound) for sound in sounds], "text": ["", "-", None, "привет"]})
    heard = hidden_markov_models(rows, rows)
    assert len(heard) == 4 and heard[0] == ""


def test_slices_are_all_rows_and_those_whose_noise_was_measured():
    seconds = [0.5, 1.0, 2.9, 3.0, 12.0]
    recordings = [audio.encode(np.zeros(int(s * audio.RATE), np.float32)) for s in seconds]
    rows = pa.table({"audio": recordings, "text": ["a"] * 5})
    assert [(part.name, part.inside.tolist()) for part in slices(rows)] == [
        ("under 1", [True, False, False, False, False]),
        ("1 to 3", [False, True, True, False, False]),
        ("3 or more", [False, False, False, True, True]),
    ]
    measured = rows.append_column("audio_statistics__snr_db", pa.array([5.0, 20.0, 39.9, 60.0, None], pa.float32()))
    assert [(part.dimension, part.name, int(part.inside.sum())) for part in slices(measured)][3:] == [
        ("SNR in dB", "under 20", 1),
        ("SNR in dB", "20 to 40", 2),
        ("SNR in dB", "40 or more", 1),
    ]
