"""``/stream`` over a real service: partial answers, and a last one as durable as any."""

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from lepton_platform.data import audio
from lepton_platform.models.speech_input import as_pcm
from lepton_platform.serving.log_reader import find, hours, read_log
from lepton_platform.serving.stream_route import MAX_MESSAGE_BYTES
from tests.data.sounds import RATE, saved
from tests.serving.conftest import Running
from tests.serving.recordings import TEXT, WORDS, middles, spoken
from tests.serving.streams import END, opened, pcm, received, said, sent


def test_speech_is_understood_while_it_comes(prompts: Running) -> None:
    words = [WORDS[number % 4] for number in range(24)]
    gaps = [0.5, *(0.9 if number % 4 == 3 else 0.2 for number in range(23)), 0.5]
    with opened(prompts) as stream:
        sent(stream, pcm(words, gaps), pause_s=0.02)
        partial, last = received(stream)
    [answer] = last["predictions"]
    assert answer["text"] == " ".join(words) and last["model"].startswith("prompts:")
    assert len(partial) > 2 and partial == sorted(set(partial), key=len)  # it grows, and nothing is said twice
    assert all(answer["text"].startswith(text) for text in partial)
    for word, at in zip(answer["words"], middles(words, gaps), strict=True):
        assert word["start_s"] - 0.02 <= at <= word["end_s"] + 0.02


def test_the_example_in_the_documentation_runs(prompts: Running, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/reference/service.md").read_text("utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "prompt.wav").write_bytes(saved(spoken(rate=8_000), rate=8_000))
    code = code.replace("ws://localhost:3103", prompts.url.replace("http", "ws"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"'text': '{TEXT}'" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_rate(prompts: Running, rate: int) -> None:
    with opened(prompts) as stream:
        stream.send(json.dumps({"rate": rate}))
        sent(stream, pcm(rate=rate))
        [answer] = received(stream)[1]["predictions"]
    assert answer["text"] == TEXT and answer["duration_s"] == pytest.approx(len(spoken()) / RATE, abs=0.01)


def test_the_answer_is_what_predict_says_of_the_recording(prompts: Running) -> None:
    [streamed] = said(prompts)["predictions"]
    sound = {"audio": saved(spoken())}
    [posted] = prompts.client.post(f"{prompts.url}/predict", files=sound).json()["predictions"]
    assert {**streamed, "id": ""} == {**posted, "id": ""}


def test_the_answer_is_in_the_log_with_its_recording(prompts: Running) -> None:
    last = said(prompts)
    [answer] = last["predictions"]
    row = find(prompts.log, "prompts", answer["id"])
    assert row is not None and {name: row[name] for name in answer} == answer
    assert row["model"] == last["model"] and row["deployment"] == "7" and row["latency_ms"] > 0
    table = read_log(prompts.log, "prompts", hours(prompts.log, "prompts")[-1])
    [kept] = [a for i, a in zip(table["id"].to_pylist(), table["audio"].to_pylist(), strict=True) if i == answer["id"]]
    assert kept.startswith(b"fLaC")
    np.testing.assert_array_equal(as_pcm(audio.decode(kept)), as_pcm(spoken()))
    word = {"feedback": [{"id": answer["id"], "text": "press one"}]}
    assert prompts.client.post(f"{prompts.url}/feedback", json=word).json() == {"accepted": 1}


def test_a_minute_sent_at_once(prompts: Running) -> None:
    """Passes are left out, not queued: a minute that comes in a moment is answered in a moment."""
    words = [WORDS[number % 4] for number in range(90)]
    with opened(prompts) as stream:
        sent(stream, pcm(words, [0.35] * 91), size=MAX_MESSAGE_BYTES // 2)
        partial, last = received(stream)
    assert last["predictions"][0]["text"] == " ".join(words) and len(partial) <= 4


def test_several_streams_beside_each_other(prompts: Running) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(opened(prompts)) for _ in range(6)]
        texts = [list(WORDS[number % 3 :]) for number in range(len(streams))]
        sounds = [pcm(words) for words in texts]
        for place in range(0, max(map(len, sounds)), 8_000):
            for stream, sound in zip(streams, sounds, strict=True):
                stream.send(sound[place : place + 8_000])
        for stream in streams:
            stream.send(END)
        found = [received(stream)[1]["predictions"][0]["text"] for stream in streams]
    assert found == [" ".join(words) for words in texts]
