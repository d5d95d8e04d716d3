"""Recordings that are none, too long, or hostile: refused by name; never a fault, never without bound."""

import base64
import random
import time
from collections import Counter

import numpy as np
import psutil
import pytest

from lepton_platform.data import audio
from lepton_platform.serving.audio import MAX_FILE_BYTES, SpeechEncoder, speech_answer
from lepton_platform.serving.engine import Engine
from tests.data.sounds import RATE, saved
from tests.serving import recordings
from tests.serving.conftest import Running
from tests.serving.recordings import TEXT, answers, as_json, error, multipart, of_seconds, spoken, telling

GROWTH_BYTES = 300 << 20  # of resident memory: what a request of two minutes at the highest rate takes
GOOD, BAD = recordings.good(), recordings.bad()


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_recording_is_named(prompts: Running, name: str) -> None:
    for send in (multipart, as_json):
        response = send(prompts, [GOOD["wav"], BAD[name]])
        assert error(response) == (422, "audio[1]"), response.text
        assert len(response.json()["error"]["message"]) > 20


def test_requests_that_are_none(prompts: Running) -> None:
    url = f"{prompts.url}/predict"
    for body, status, field in [
        ({}, 422, "audio"), ({"audio": []}, 422, "audio"), ({"audio": "aGVsbG8="}, 422, "audio"), ({"audio": [1]}, 422, "audio[0]"),
        ({"audio": [""]}, 422, "audio[0]"), ({"audio": ["****"]}, 422, "audio[0]"), ({"audio": ["aGVsbG8"]}, 422, "audio[0]"),
        ({"audio": [{"$base64": "aGVsbG8="}]}, 422, "audio[0]"), ({"audio": ["http://127.0.0.1/x.wav"]}, 422, "audio[0]"),
        ({"audio": [base64.b64encode(GOOD["wav"]).decode()], "language": "en"}, 422, "'language'"),
    ]:  # fmt: skip
        assert error(prompts.client.post(url, json=body)) == (status, field), body
    assert error(multipart(prompts, [GOOD["wav"]], field="images")) == (422, "audio[0]")
    assert error(prompts.client.post(url, content=GOOD["wav"], headers={"content-type": "audio/wav"}))[0] == 415
    assert error(prompts.client.post(f"{url}?annotate=true", files={"audio": GOOD["wav"]})) == (422, "annotate")


def test_limits_of_files(prompts: Running) -> None:
    wav = GOOD["wav"]
    assert len(answers(multipart(prompts, [wav] * 16))) == 16
    assert error(multipart(prompts, [wav] * 17)) == error(as_json(prompts, [wav] * 17)) == (413, "audio")
    padded = wav + bytes(MAX_FILE_BYTES - len(wav))  # what follows the samples is not the recording's
    assert answers(multipart(prompts, [padded]))[0]["text"] == TEXT
    for send in (multipart, as_json):
        assert error(send(prompts, [wav, padded + b"\0"])) == (413, "audio[1]")
    assert error(multipart(prompts, [padded] * 4)) == (413, "body")


def test_limits_of_seconds(prompts: Running) -> None:
    minute = of_seconds(60)
    assert len(answers(multipart(prompts, [minute] * 2))) == 2
    assert error(multipart(prompts, [minute] * 2 + [of_seconds(0.1)])) == (413, "audio")
    for kind in ("FLAC", "WAV"):
        assert error(multipart(prompts, [GOOD["wav"], of_seconds(60.01, kind)])) == (413, "audio[1]")
    for kind, codec in (("OGG", "VORBIS"), ("MP3", None)):
        assert error(multipart(prompts, [saved(np.zeros(61 * RATE, np.float32), kind, codec)])) == (413, "audio[0]")


HOUR = 3_600 * RATE


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("claims an hour", telling(of_seconds(1), HOUR), 413),
        ("claims the most that can be", telling(of_seconds(1), (1 << 36) - 1), 413),
        ("does not tell, and is short", telling(saved(spoken(), "FLAC"), 0), 200),
        ("does not tell, and lasts an hour", telling(of_seconds(3_600), 0), 413),
        ("claims a second and lasts an hour", telling(of_seconds(3_600), RATE), 200),
        ("does not tell, at the highest rate", telling(of_seconds(300, rate=384_000), 0), 413),
    ],
)
def test_a_length_is_told_before_anything_is_decoded(prompts: Running, name: str, content: bytes, status: int) -> None:
    process = psutil.Process(prompts.process.pid)
    before = process.memory_info().rss
    multipart(prompts, [of_seconds(0.1)])
    cpu, began = process.cpu_times().user, time.perf_counter()
    response = multipart(prompts, [content])
    spent = process.cpu_times().user - cpu
    assert response.status_code == status, (name, response.text)
    if status == 200:
        assert answers(response)[0]["duration_s"] < 3
    else:
        assert error(response)[1] == "audio[0]" and "60 s" in response.json()["error"]["message"]
    assert spent < 1.5 and time.perf_counter() - began < 20  # a minute at most was decoded
    assert process.memory_info().rss - before < GROWTH_BYTES


def mutated(chance: random.Random, content: bytes) -> bytes:
    """Cut, flipped, spliced, repeated; or a number in it replaced by an extreme one, as lengths and rates are."""
    where = chance.randrange(len(content))
    early = chance.randrange(min(64, len(content)))
    extreme = chance.choice(
        [
            b"\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\xff\xff\xff\x7f",
            b"\x7f\xff\xff\xff",
            b"\xff\xff\0\0",
            b"\0\0\0\x80",
            b"\1\0\0\0",
        ]
    )
    other = chance.choice(list(GOOD.values()))
    return [
        lambda: content[:where],
        lambda: content[:where] + bytes([chance.randrange(256)]) + content[where + 1 :],
        lambda: bytes(b ^ (1 << chance.randrange(8)) if chance.random() < 0.01 else b for b in content),
        lambda: content[:early] + extreme + content[early + 4 :],
        lambda: content[:where] + extreme + content[where + 4 :],
        lambda: content[:where] + chance.randbytes(chance.randrange(1, 200)) + content[where:],
        lambda: content[:where] + content[where + chance.randrange(1, 40) :],
        lambda: content[:where] + other[chance.randrange(len(other)) :],
        lambda: content[:early] + content[early:] * chance.randrange(2, 4),
    ][chance.randrange(9)]()


def expected(speech_engine: Engine, content: bytes) -> str | None:
    """What the model says of a file that can be decoded, or ``None``."""
    encoder = speech_engine.encoder
    assert isinstance(encoder, SpeechEncoder)
    try:
        parts = encoder.pieces(audio.decode(content))
    except ValueError:
        return None
    return speech_answer([], parts, [speech_engine.run([part])[0] for part in parts])[0]["text"]


@pytest.mark.parametrize("mutations", [200, pytest.param(1_000, marks=pytest.mark.slow)])
def test_mutated_recordings(prompts: Running, speech_engine: Engine, mutations: int) -> None:
    """Of each what the decoder says: an answer, and the right one, or a refusal that names the file. Never a fault."""
    chance = random.Random(2026 + mutations)
    sources = list(GOOD.values())
    process = psutil.Process(prompts.process.pid)
    before = process.memory_info().rss
    seen: Counter[int] = Counter()
    for number in range(mutations):
        content = mutated(chance, chance.choice(sources))
        for _ in range(chance.randrange(2)):
            content = mutated(chance, content or b"x")
        response = (as_json if number % 3 == 0 else multipart)(prompts, [content])
        seen[response.status_code] += 1
        what = f"mutation {number}: {content[:60]!r} … of {len(content)} bytes → {response.text[:200]}"
        assert response.status_code in {200, 413, 422}, what
        if response.status_code != 200:
            assert error(response)[1] == "audio[0]" or (not content and error(response)[1] == "audio"), what
        else:
            assert response.json()["predictions"][0]["text"] == expected(speech_engine, content), what
    assert seen[200] > mutations / 10 and seen[422] > mutations / 10, seen
    assert process.memory_info().rss - before < GROWTH_BYTES and process.num_fds() < 100
    metrics = prompts.client.get(f"{prompts.url}/metrics").text.splitlines()
    assert not [line for line in metrics if line.startswith("lepton_requests_total") and 'status="5' in line]
    assert answers(multipart(prompts, [GOOD["wav"]]))[0]["text"] == TEXT


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["negative", "positive"])
@pytest.mark.parametrize("route", ["/predict", "/feedback"])
def test_by_schema(prompts: Running, route: str, mode: str) -> None:
    """From the service's own document: what it forbids is refused, and nothing is a fault."""
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    session, seen = requests.Session(), Counter()
    schema = schemathesis.openapi.from_url(f"{prompts.url}/schema.json")
    cases = schema[route]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @settings(
        max_examples=200, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    @given(case=cases)
    def send(case: schemathesis.Case) -> None:
        answer = case.call(session=session)
        seen[answer.status_code] += 1
        assert answer.status_code in {200, 404, 413, 415, 422}, (case.body, answer.text)
        unknown = set(case.query or {})  # of the query: ignored, as everywhere
        form = "multipart" in str(case.media_type) and isinstance(case.body, dict)
        unsent = form and any(value == [] for name, value in case.body.items() if name != "audio")  # no part of a form
        assert mode == "positive" or unknown or unsent or answer.status_code >= 400, (case.body, answer.content[:80])

    send()
