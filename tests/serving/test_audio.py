"""Recordings over HTTP, as people and attackers send them: right, or refused by name; never a fault, never without bound."""

import json
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from lepton_platform.data import audio
from lepton_platform.serving.audio import MAX_TEXT, SpeechEncoder, speech_answer
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.log_reader import FEEDBACK, find, hours, read_log, read_rows
from tests.data.sounds import RATE, saved
from tests.serving import recordings
from tests.serving.conftest import Running
from tests.serving.models import write_speech
from tests.serving.recordings import (
    TEXT,
    WORDS,
    answers,
    as_json,
    error,
    middles,
    multipart,
    of_seconds,
    spoken,
)

GROWTH_BYTES = 300 << 20  # of resident memory: what a request of two minutes at the highest rate takes
GOOD, BAD = recordings.good(), recordings.bad()
Files = list[bytes]


# --- right


@pytest.mark.parametrize("send", [multipart, as_json])
def test_every_kind_of_file_is_heard(prompts: Running, send: Any) -> None:
    names = list(GOOD)
    for some in (names[:12], names[12:]):
        found = answers(send(prompts, [GOOD[name] for name in some]))
        assert {name: a["text"] for name, a in zip(some, found, strict=True)} == dict.fromkeys(some, TEXT)
        for answer in found:
            assert 0.9 < answer["score"] <= 1 and answer["duration_s"] == pytest.approx(len(spoken()) / RATE, abs=0.1)


def test_both_ways_of_sending_give_the_same_answer(prompts: Running) -> None:
    one, other = answers(multipart(prompts, [GOOD["mp3"]])), answers(as_json(prompts, [GOOD["mp3"]]))
    assert [{**a, "id": ""} for a in one] == [{**a, "id": ""} for a in other]


def heard_at(words: list[dict[str, Any]], moments: list[float]) -> bool:
    return all(word["start_s"] <= at <= word["end_s"] for word, at in zip(words, moments, strict=True))


def test_times_are_of_the_recording_as_it_was_sent(prompts: Running) -> None:
    """The silence in front is not heard by the network; the times know of it."""
    for before in (0.0, 0.1, 2.0, 7.0):
        gaps = [before, 0.25, 0.4, 0.3, 1.0]
        [answer] = answers(multipart(prompts, [saved(spoken(gaps_s=gaps))]))
        words = answer["words"]
        assert [word["word"] for word in words] == list(WORDS) and heard_at(words, middles(WORDS, gaps))
        assert words[0]["start_s"] >= before - 0.2 and words[-1]["end_s"] <= answer["duration_s"]
        assert [w["start_s"] for w in words] == sorted(w["start_s"] for w in words)


@pytest.mark.parametrize("pause_s", [0.3, 0.7, 6.0, 14.0])
def test_a_long_recording_is_heard_in_pieces(prompts: Running, pause_s: float) -> None:
    """Cut where nobody speaks: no word is lost, none is heard twice, each at its time."""
    said, gaps = [], [1.0]
    while sum(gaps) + 0.3 * len(said) + 2.0 + pause_s < audio.MAX_SECONDS:
        said.append(WORDS[len(said) % 4])
        gaps.append(pause_s if len(said) % 4 == 0 else 0.2)
    gaps[-1] = 1.0
    [answer] = answers(multipart(prompts, [saved(spoken(said, gaps), "FLAC")]))
    assert answer["text"] == " ".join(said) and answer["duration_s"] > 30
    assert heard_at(answer["words"], middles(said, gaps))


def test_who_never_pauses_is_cut_where_it_is_quietest(speech_engine: Engine) -> None:
    t = np.arange(45 * RATE) / RATE
    sound = (0.3 + 0.1 * np.cos(2 * np.pi * t / 8)) * np.sin(2 * np.pi * 440 * t)  # softest at 4, 12, 20, 28, 36 …
    encoder = speech_engine.encoder
    assert isinstance(encoder, SpeechEncoder)
    pieces = encoder.pieces(sound.astype(np.float32))
    starts = [piece.payload.start_s for piece in pieces]
    assert len(pieces) == 2 and min(abs(starts[1] - softest) for softest in (20, 28)) < 0.2
    assert all(len(piece.payload.pcm) <= encoder.most and piece.size <= 30 * RATE for piece in pieces)


@pytest.mark.parametrize(
    ("step_s", "tail_s", "most_s"), [(0.5, 0.5, 30), (0.7, 0.5, 30), (0.1, 0.3, 30), (30, 0.5, 30), (2, 0, 11)]
)
def test_a_piece_with_its_silence_fits_the_network(tmp_path: Path, step_s: float, tail_s: float, most_s: float) -> None:
    write_speech(tmp_path)
    text = (tmp_path / "config.json").read_text("utf-8")
    given = f'"tail_s": {tail_s}, "step_s": {step_s}, "least_s": 1.0, "most_s": {most_s}'
    (tmp_path / "config.json").write_text(
        text.replace('"tail_s": 0.5, "step_s": 0.5, "least_s": 1.0, "most_s": 30.0', given)
    )
    encoder = SpeechEncoder(tmp_path, audio.decode)
    sound = np.random.default_rng(2).normal(0, 0.1, 60 * RATE).astype(np.float32)
    pieces = encoder.pieces(sound)
    assert max(piece.size for piece in pieces) <= most_s * RATE
    assert sum(len(piece.payload.pcm) for piece in pieces) == len(sound)


def test_silence_says_nothing(prompts: Running) -> None:
    for seconds in (0.05, 1, 45, 60):
        [answer] = answers(multipart(prompts, [of_seconds(seconds)]))
        assert (answer["text"], answer["words"], answer["score"]) == ("", [], 0.0)
        assert answer["duration_s"] == pytest.approx(seconds)


# --- beside others


def mixed(count: int) -> list[tuple[str, bytes]]:
    """Texts of different lengths, and recordings of them."""
    chance, found = random.Random(3), []
    for _ in range(count):
        said = [chance.choice(WORDS) for _ in range(chance.randrange(1, 9))]
        found.append((" ".join(said), saved(spoken(said, chance.choice([0.1, 0.2, 0.35])))))
    return found


def test_an_answer_does_not_depend_on_its_neighbours(prompts: Running, speech_engine: Engine) -> None:
    some = mixed(16)
    alone = [answers(multipart(prompts, [content]))[0] for _, content in some]
    together = answers(multipart(prompts, [content for _, content in some]))
    assert [a["text"] for a in alone] == [text for text, _ in some]
    assert [{**a, "id": ""} for a in together] == [{**a, "id": ""} for a in alone]
    parts = [part for one in speech_engine.encoder.prepare([content for _, content in some]) for part in one]
    assert len({part.size for part in parts}) > 3
    for one, said in zip(
        parts, speech_engine.run(parts), strict=True
    ):  # all in one batch, whatever the batcher would do
        assert speech_engine.run([one])[0] == said


def test_what_is_not_finite_is_no_answer(speech_engine: Engine) -> None:
    [parts] = speech_engine.encoder.prepare([GOOD["wav"]])
    [said] = speech_engine.run(parts)
    with pytest.raises(ValueError, match="not finite"):
        speech_answer([], parts, [type(said)(said.text, float("nan"))])


# --- the log


def test_what_was_sent_is_in_the_log_and_found_again(prompts: Running) -> None:
    small, large = of_seconds(0.5), GOOD["ogg vorbis at 44.1 kHz"]
    assert len(small) < 4096 < len(large)
    found = answers(multipart(prompts, [small, large, large]))
    ids = [a["id"] for a in found]
    table = read_log(prompts.log, "prompts", hours(prompts.log, "prompts")[-1])
    kept = dict(zip(table["id"].to_pylist(), table["audio"].to_pylist(), strict=True))
    assert [kept[i] for i in ids] == [small, large, large]  # as it was sent, not as it was heard
    row = find(prompts.log, "prompts", ids[1])
    assert row is not None and set(row["audio"]) == {"$media", "bytes"} and row["audio"]["bytes"] == len(large)
    assert {name: row[name] for name in ("text", "score", "words", "duration_s")} == {
        name: found[1][name] for name in ("text", "score", "words", "duration_s")
    }
    assert (
        row["model"].startswith("prompts:") and row["deployment"] == "7" and row["latency_ms"] > 0
    )  # what a trace needs
    files = [path for path in (prompts.log / "prompts" / "media").rglob("*") if path.is_file()]
    assert [path.name for path in files].count(row["audio"]["$media"]) == 1


def test_feedback_is_what_was_said(prompts: Running) -> None:
    [answer] = answers(multipart(prompts, [GOOD["wav"]]))

    def say(text: Any, **more: Any) -> httpx.Response:
        item = {"id": answer["id"], "text": text, **more}
        body = json.dumps({"feedback": [item]})  # escaped: half a surrogate pair can be sent
        return prompts.client.post(
            f"{prompts.url}/feedback", content=body, headers={"content-type": "application/json"}
        )

    assert say("Press 1, for sales.").json() == {"accepted": 1} and say("ünï 中文").json() == {"accepted": 1}
    rows = read_rows(prompts.log, "prompts", hours(prompts.log, "prompts")[-1], FEEDBACK)
    assert [row["text"] for row in rows if row["prediction_id"] == answer["id"]] == ["Press 1, for sales.", "ünï 中文"]
    where = "feedback[0].text"
    for text in (None, 1, [], {}, "", "   ", "...", "a\ud800"):
        assert error(say(text)) == (422, where), text
    assert error(say("a" * (MAX_TEXT + 1))) == (413, where)
    assert error(say("good", label="good"))[0] == 422


# --- what is told


def test_the_schema_tells_both_ways(prompts: Running) -> None:
    schema = prompts.client.get(f"{prompts.url}/schema.json").json()
    route = schema["paths"]["/predict"]["post"]
    assert set(route["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert "parameters" not in route  # nothing is drawn
    schemas = schema["components"]["schemas"]
    [said] = schemas["PredictRequest"]["examples"]
    [answer] = answers(prompts.client.post(f"{prompts.url}/predict", json=said))
    told = schemas["Predictions"]["properties"]["predictions"]["items"]
    assert set(answer) == set(told["properties"]) == set(told["required"])
    assert schemas["FeedbackRequest"]["properties"]["feedback"]["items"]["required"] == ["id", "text"]


def test_no_training_code_is_shipped(prompts: Running) -> None:
    from lepton_platform.serving.shipping import imported

    sources = Path(psutil.Process(prompts.process.pid).cwd())
    used = {name.split(".")[0] for path in sources.rglob("*.py") for name in imported(path)}
    assert not used & {
        "torch",
        "torchvision",
        "transformers",
        "scipy",
        "sklearn",
        "pandas",
        "av",
        "jiwer",
        "pocketsphinx",
    }
    mapped = {m.path for m in psutil.Process(prompts.process.pid).memory_maps()}
    assert not [path for path in mapped if "/torch/" in path or "/pandas/" in path or "/scipy" in path]
