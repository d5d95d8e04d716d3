"""Recordings through the data stages: what is kept, what is set aside and why, what the contract sees, features."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.data.audio import decode, encode, mend
from lepton_platform.data.dataset import Dataset
from lepton_platform.features.materialize import FeaturesParams, features
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.prompts import preprocess, source
from lepton_platform.tasks.prompts.source import SourceParams
from tests.data.sounds import RATE, saved, speechlike
from tests.tasks import prompts
from tests.tasks.stages import checked, cleaned

DEMO = {"min_size": 200, "max_size": 60_000, "similarity": 0.65}
SMOKE = {"min_rows": 4, "min_sentences": 4}


@pytest.fixture(scope="module")
def records(cache_dir: Path) -> dict[str, dict]:
    """Every packaged prompt by its name."""
    prompts.need_debian(cache_dir)
    rows = source.records(SourceParams(), cache_dir)
    return {row["file"].removesuffix(".g722"): row for row in rows}


@pytest.fixture(scope="module")
def clean(records, tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """The folder, and name → row set aside."""
    folder = tmp_path_factory.mktemp("prompts")
    _, aside = cleaned("prompts", list(records.values()), folder, **DEMO)
    return folder, {row["file"].removesuffix(".g722"): row for row in aside.values()}


def test_of_the_packaged_prompts_all_speech_stays_and_no_two_readings_are_taken_for_one(records, clean):
    _, aside = clean
    reasons = {name: row["reason"] for name, row in aside.items()}
    assert len(records) - len(aside) == 546
    others = {name: reason for name, reason in reasons.items() if reason != "unspeakable"}
    assert others == {
        "auth-thankyou": "near_duplicate",  # privacy-thankyou once more
        "seconds": "near_duplicate",  # queue-seconds
        "demo-instruct": "unreadable",
        "pls-try-call-later": "malformed",
    }
    assert {"beep", "silence/1", "confbridge-join", "tt-monkeys", "vm-intro", "spy-iax2"} < set(reasons)
    assert "73.3 s" in aside["demo-instruct"]["detail"] and "'[sound of monkeys" in aside["tt-monkeys"]["detail"]
    assert {f"digits/{n}" for n in range(20)} | {f"letters/{c}" for c in "abcdefg"} < set(records) - set(aside)


def likeness(one: bytes, other: bytes) -> float:
    a, b = preprocess.shingles(preprocess.normalise(one)), preprocess.shingles(preprocess.normalise(other))
    return len(a & b) / len(a | b)


def test_different_prompts_of_one_voice_are_never_alike(records):
    """All that are short: nearest are letters that rhyme, and "ex-tension" said twice."""
    short = [row["audio"] for row in records.values() if row["audio"] and len(row["sentence"]) < 12]
    sets = [preprocess.shingles(preprocess.normalise(data)) for data in short]
    sets = [found for number, found in enumerate(sets) if all(found != other for other in sets[:number])]
    alike = [len(a & b) / len(a | b) for number, a in enumerate(sets) for b in sets[:number]]
    assert len(alike) > 20_000 and sum(value > 0.65 for value in alike) <= 1  # "thank you" twice, of one recording
    assert np.percentile(alike, 99) < 0.35
    assert likeness(records["digits/1"]["audio"], records["digits/9"]["audio"]) < 0.3


@pytest.mark.parametrize("name", ["digits/1", "digits/9", "agent-pass", "conf-adminmenu", "letters/w"])
def test_a_copy_of_a_prompt_is_like_it(records, name):
    data = records[name]["audio"]
    samples = decode(data)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(samples) + 10_000)
    copies = {
        "softer": saved(samples / 3),
        "later, in noise": saved(np.pad(samples, (3_333, 6_667)) + noise),
        "ogg": saved(samples, "OGG"),
        "telephone": saved(samples[::2], "WAV", "ULAW", 8_000),
        "cut": saved(samples[600:]),
    }
    assert {kind: likeness(data, copy) for kind, copy in copies.items() if likeness(data, copy) <= 0.65} == {}


def test_what_cannot_be_used_is_set_aside_with_its_reason(records, tmp_path):
    chosen = ["digits/1", "agent-pass", "goodbye", "vm-nobodyavail"]
    good = [records[name] for name in chosen]
    one, long = (decode(records[name]["audio"]) for name in ("digits/1", "conf-adminmenu"))
    word, sentence = good[0], good[3]
    bad = {
        "same": {"audio": saved(decode(word["audio"]), "WAV")},
        "like": {**sentence, "audio": saved(np.pad(decode(sentence["audio"]) / 2, 4_000), "OGG")},
        "cut": {"audio": word["audio"][:20]},
        "words": {"audio": b"one"},
        "none": {"audio": None},
        "beep": {"text": "[beep]"},
        "hesitation": {"text": "Hmm..."},
        "another": {"text": "Please enter your agent number followed by the pound key."},
        "more": {"audio": encode(long), "text": "one"},
        "loud": {"audio": saved(np.clip(8 * one, -1, 1))},
        "silence": {"audio": saved(np.zeros(RATE)), "text": "one"},
        "faint": {"audio": saved(one / 3_000), "text": "one"},
        "short": {"audio": saved(speechlike(0.15)), "text": "o"},
        "source": {"problem": "b.wav: there is no recording"},
    }
    rows = [{**word, **changes, "id": name} for name, changes in bad.items()]
    stay, aside = cleaned("prompts", [*good, *rows], tmp_path, **DEMO)
    assert [row["id"] for row in stay] == [row["id"] for row in good]
    assert {name: aside[name]["reason"] for name in bad} == {
        "same": "duplicate",
        "like": "near_duplicate",
        "cut": "unreadable",
        "words": "unreadable",
        "none": "missing_field",
        "beep": "unspeakable",
        "hesitation": "unspeakable",
        "another": "too_fast",
        "more": "too_slow",
        "loud": "clipped",
        "silence": "silent",
        "faint": "silent",
        "short": "too_small",
        "source": "malformed",
    }
    assert aside["another"]["detail"] == "47 letters and figures in 0.9 s: not all of the text is said"
    assert aside["cut"]["audio"] == word["audio"][:20] and all(row["audio"][:4] == b"fLaC" for row in stay)
    assert all(preprocess.normalise(row["audio"]) == row["audio"] for row in stay)


def test_a_recording_is_its_samples_and_its_size_milliseconds():
    samples = mend(speechlike(1.5)).samples
    flac, wav = encode(samples), saved(samples)
    assert preprocess.size(flac) == pytest.approx(len(samples) / 16)
    assert preprocess.identity(flac) == preprocess.identity(wav) != preprocess.identity(encode(samples * 0.9))
    assert preprocess.normalise(wav) == flac


@pytest.mark.parametrize(
    ("text", "learnt"),
    [
        ("... callers waiting to speak with a representative.", "callers waiting to speak with a representative."),
        ("at the tone,  the time will be exactly...", "at the tone, the time will be exactly"),
        ("dollar [$]", "dollar"),
        ("It is 3.14 now.", "It is 3.14 now."),
        ("Press # now", "Press pound now"),
    ],
)
def test_texts_are_learnt_as_they_are_said(text, learnt):
    assert preprocess.written(text) == learnt


@given(st.text(alphabet=st.one_of(st.sampled_from("[]()<>.…#* a1"), st.characters()), max_size=60))
def test_any_text_can_be_written_and_is_then_as_it_is_learnt(text):
    found = preprocess.written(text)
    assert preprocess.written(found) == found


# --- the contract


@pytest.fixture(scope="module")
def few(records, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    rows = [
        records[name] for name in ("digits/1", "agent-pass", "goodbye", "letters/dollar", "demo-thanks", "activated")
    ]
    cleaned("prompts", rows, folder, **DEMO)
    return folder


def test_the_contract_holds_for_the_packaged_prompts(clean):
    folder, _ = clean
    result = checked("prompts", folder)
    assert result["success"] and result["rows"] == 546


def changed(**columns):
    """Other values in the first row."""
    return lambda rows: [{**rows[0], **columns}, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(audio=saved(speechlike(1), "WAV")), "Every 'audio' is a FLAC file"),
        (changed(audio=b"fLaC"), "Every 'audio' is a FLAC file"),
        (changed(audio=saved(speechlike(1, rate=8_000), "FLAC", rate=8_000)), "one channel of 16,000 samples a second"),
        (changed(audio=saved(np.stack([speechlike(1)] * 2, axis=1), "FLAC")), "one channel of 16,000 samples a second"),
        (changed(audio=saved(speechlike(1), "FLAC", "PCM_24")), "one channel of 16,000 samples a second of 16 bits"),
        (changed(audio=encode(speechlike(0.1)), text="o"), "'audio' is 0.2 to 60 seconds long"),
        (changed(audio=encode(np.tile(speechlike(2), 31)), text="la " * 300), "'audio' is 0.2 to 60 seconds long"),
        (changed(audio=None), "'audio' is never missing"),
        (changed(text=None), "'text' is never missing"),
        (changed(sentence=None), "'sentence' is never missing"),
        (changed(text="[beep]"), "Somebody can have said every 'text'"),
        (changed(text="Wait. (music plays)"), "Somebody can have said every 'text'"),
        (changed(text="..."), "Somebody can have said every 'text'"),
        (changed(text="one " * 30), "0.3 to 30 characters of 'text' are said a second"),
        (lambda rows: [{**rows[0], "id": rows[1]["id"]}, *rows[1:]], "No two rows share 'id'"),
        (lambda rows: [{**rows[0], "audio": rows[1]["audio"]}, *rows[1:]], "No two rows share 'audio'"),
        (lambda rows: rows[:3], "There are at least 4 rows"),
        (lambda rows: [{**row, "sentence": "one"} for row in rows], "at least 4 different sentences"),
        (changed(origin="rumour"), "'origin' is one of feedback, source"),
    ],
)
def test_what_breaks_the_contract_is_named_without_giving_away_recordings(few, tmp_path, change, said):
    table = Dataset(few / "clean/rows").read()
    rows = change(table.to_pylist())
    Dataset(tmp_path / "clean/rows").write(table.schema.empty_table().from_pylist(rows, table.schema))
    with pytest.raises(StageFailed) as failed:
        checked("prompts", tmp_path, **SMOKE)
    found = failed.value.details["failed"]
    assert any(said in verdict["description"] for verdict in found)
    assert all(verdict["error"] is None for verdict in found) and "reference libFLAC" not in str(found)


# --- features


def featured(folder: Path, cache: Path) -> dict[str, Dataset]:
    """Name → view; the encoder's weights come from where downloads are kept."""
    (folder / "features").mkdir()
    features(
        clean=folder / "clean",
        contract=folder / "contract",
        out=folder / "features",
        params=FeaturesParams(),
        preprocess=preprocess,
        cache=cache,
        progress=lambda *_, **__: None,
    )
    return {view.name: Dataset(folder / "features" / view.name) for view in preprocess.FEATURE_VIEWS}


def test_features_are_whole(few, cache_dir):
    checked("prompts", few, **SMOKE)
    views = featured(few, cache_dir)
    assert {name: len(view) for name, view in views.items()} == dict.fromkeys(views, 6)
    rows = Dataset(few / "clean/rows").read().to_pylist()
    measured = dict(zip([row["text"] for row in rows], views["audio_statistics"].read().to_pylist(), strict=True))
    assert measured["one"]["seconds"] == pytest.approx(preprocess.size(rows[0]["audio"]) / 1_000, abs=1e-3)
    assert measured["one"]["speaking_rate"] == pytest.approx(1 / measured["one"]["seconds"])
    assert all(170 < row["pitch_hz"] < 250 and row["snr_db"] > 20 for row in measured.values())
    for name, column in (("audio_descriptor", "descriptor"), ("audio_embedding", "embedding")):
        vectors = np.array(views[name].read()[column].to_pylist())
        assert vectors.shape == (6, {"descriptor": 124, "embedding": 384}[column])
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
