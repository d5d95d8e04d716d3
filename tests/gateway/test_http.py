"""The gateway over HTTP: tasks, answers, keys, lineage, streams; what is wrong is said and is never a fault."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from lepton_platform.gateway.keys import Keys
from lepton_platform.tasks import load_part
from tests.gateway.conftest import TASKS, Serving, new_settings, offer, serve
from tests.serving import streams
from tests.serving.recordings import of_seconds


@pytest.fixture(scope="module")
def guarded(bentos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Sentiment alone, with keys."""
    settings = new_settings(tmp_path_factory.mktemp("guarded"), ("sentiment",), auth="on")
    offer(settings, "sentiment", bentos["sentiment"])
    with serve(settings) as serving:
        yield serving


def key(serving: Serving, name: str, *scopes: str, **more: Any) -> dict[str, str]:
    _, secret = Keys(serving.settings).create(name, scopes, **more)
    wait_known(serving, secret)
    return {"Authorization": f"Bearer {secret}"}


def wait_known(serving: Serving, secret: str) -> None:
    import time

    until = time.monotonic() + 10
    while time.monotonic() < until:
        if serving.client.get(f"{serving.url}/v1", headers={"X-API-Key": secret}).status_code == 200:
            return
        time.sleep(0.1)
    raise AssertionError("the key was not read")


def error(answer: httpx.Response) -> tuple[int, str]:
    told = answer.json()["error"]
    assert told["status"] == answer.status_code
    return answer.status_code, told["message"]


def test_it_says_what_it_serves(gateway: Serving) -> None:
    told = gateway.client.get(f"{gateway.url}/v1").json()
    assert [task["name"] for task in told["tasks"]] == sorted(TASKS) and told["authentication"] is False
    assert {t["name"]: t["kind"] for t in told["tasks"]} == {
        "sentiment": "text", "digits": "image", "trees": "image", "prompts": "audio",
    }  # fmt: skip
    assert [t["name"] for t in told["tasks"] if t["stream"]] == ["prompts"]
    assert gateway.client.get(f"{gateway.url}/readyz").json()["tasks"] == sorted(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_answers_its_own_example(gateway: Serving, task: str) -> None:
    example = load_part(task, "api").EXAMPLE
    answer = gateway.client.post(f"{gateway.url}/v1/{task}/predict", json=example)
    assert answer.status_code == 200 and answer.json()["model"].startswith(f"{task}:")
    assert answer.json()["predictions"] and answer.headers["x-deployment"].isdecimal()


def test_files_and_drawn_answers_pass(gateway: Serving) -> None:
    [picture] = load_part("trees", "api").EXAMPLE["images"]
    files = {"images": ("a.png", base64.b64decode(picture), "image/png")}
    drawn = gateway.client.post(f"{gateway.url}/v1/trees/predict?annotate=true", files=files)
    assert drawn.status_code == 200 and drawn.headers["content-type"] == "image/png"
    assert drawn.headers["x-prediction-id"] and drawn.headers["x-model"].startswith("trees:")


def test_what_a_service_refuses_is_passed_on(gateway: Serving) -> None:
    wrong = gateway.client.post(f"{gateway.url}/v1/sentiment/predict", json={"texts": []})
    assert wrong.status_code == 422 and wrong.json()["error"]["field"] == "texts"
    kind = gateway.client.post(f"{gateway.url}/v1/sentiment/predict", content=b"x", headers={"Content-Type": "a/b"})
    assert kind.status_code == 415
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert gateway.client.post(f"{gateway.url}/v1/sentiment/predict", content=b"x", headers=packed).status_code == 415
    large = gateway.client.post(f"{gateway.url}/v1/sentiment/predict", content=b" " * (3 << 20))
    assert error(large)[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing/schema", 404),
        ("POST", "/v1/nothing/predict", 404),
        ("POST", "/v1/nothing/feedback", 404),
        ("GET", "/v1/sentiment/predict", 405),
        ("GET", "/v2", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/sentiment/lineage/none", 404),
        ("GET", "/v1/sentiment/lineage/..%2f..%2fetc", 404),
        ("GET", "/v1/sentiment/lineage/x?rows=most", 422),
        ("GET", "/v1/lineage/none", 404),
        ("GET", "/v1/lineage/x?rows=most", 422),
    ],
)
def test_what_is_not_there_is_told(gateway: Serving, method: str, path: str, status: int) -> None:
    assert error(gateway.client.request(method, f"{gateway.url}{path}"))[0] == status


def test_feedback_finds_its_prediction(gateway: Serving) -> None:
    [one] = gateway.predict("good film").json()["predictions"]
    said = {"feedback": [{"id": one["id"], "label": "rotten"}]}
    assert gateway.client.post(f"{gateway.url}/v1/sentiment/feedback", json=said).json() == {"accepted": 1}
    assert gateway.client.post(f"{gateway.url}/v1/digits/feedback", json=said).status_code in (404, 422)


def test_a_page_of_another_site_may_not_ask(gateway: Serving) -> None:
    host = gateway.url.removeprefix("http://")
    body = {"texts": ["good"]}
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        answer = gateway.client.post(f"{gateway.url}/v1/sentiment/predict", json=body, headers=headers)
        assert error(answer)[0] == 403
    assert gateway.predict("good", headers={"Origin": f"http://{host}"}).status_code == 200


def test_a_stream_goes_both_ways(gateway: Serving) -> None:
    with streams.opened(gateway, "/v1/prompts/stream") as stream:  # pyright: ignore[reportArgumentType] - its url is read
        streams.sent(stream, streams.pcm())
        partial, last = streams.received(stream)
    assert partial and last["predictions"][0]["text"] and last["model"].startswith("prompts:")


def test_a_stream_to_what_takes_none_is_refused(gateway: Serving) -> None:
    from websockets.exceptions import InvalidStatus

    for path, status in (("/v1/sentiment/stream", 422), ("/v1/nothing/stream", 404)):
        with pytest.raises(InvalidStatus) as refused, connect(gateway.url.replace("http://", "ws://") + path):
            pass
        assert refused.value.response.status_code == status


def test_nothing_answers_without_a_key(guarded: Serving) -> None:
    document = guarded.client.get(f"{guarded.url}/openapi.json", headers=key(guarded, "reader", "predict")).json()
    open_routes = {"/livez", "/readyz"}
    for path, item in document["paths"].items():
        for method in item:
            answer = guarded.client.request(method, guarded.url + path.replace("{id}", "x"))
            if path in open_routes:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
    assert set(document["paths"]) >= {
        "/v1/sentiment/predict",
        "/v1/sentiment/feedback",
        "/v1/sentiment/lineage/{id}",
        "/v1/lineage/{id}",
    }


def test_a_scope_is_for_what_it_says(guarded: Serving) -> None:
    asks, says, runs = (key(guarded, scope, scope) for scope in ("predict", "feedback", "admin"))
    answer = guarded.predict("good", headers=asks)
    identifier = answer.json()["predictions"][0]["id"]
    body = {"feedback": [{"id": identifier, "label": "fresh"}]}
    feedback = f"{guarded.url}/v1/sentiment/feedback"
    assert error(guarded.client.post(feedback, json=body, headers=asks))[0] == 403
    assert guarded.client.post(feedback, json=body, headers=says).status_code == 200
    assert error(guarded.predict("good", headers=says))[0] == 403
    assert guarded.client.get(f"{guarded.url}/metrics", headers=runs).status_code == 200
    assert guarded.client.get(f"{guarded.url}/metrics", headers=asks).status_code == 403
    traces = key(guarded, "traces", "trace")
    for past in (f"{guarded.url}/v1/lineage/{identifier}", f"{guarded.url}/v1/sentiment/lineage/{identifier}"):
        refused = guarded.client.get(past, headers=asks)
        assert error(refused)[0] == 403 and "the scope trace" in refused.json()["error"]["message"]
        assert guarded.client.get(past, headers=traces).status_code not in (401, 403)
    assert error(guarded.predict("good", headers=traces))[0] == 403


def test_a_rate_is_kept(guarded: Serving) -> None:
    slow = key(guarded, "slow", "predict", rate_per_minute=6, burst=3)
    answers = [guarded.predict("good", headers=slow) for _ in range(5)]
    assert [a.status_code for a in answers][-1] == 429 and int(answers[-1].headers["retry-after"]) > 0


def test_no_key_is_ever_logged(guarded: Serving) -> None:
    secret = key(guarded, "secret", "predict")["Authorization"].removeprefix("Bearer ")
    guarded.client.get(f"{guarded.url}/v1/{secret}/schema", headers={"X-API-Key": secret})
    guarded.client.post(
        f"{guarded.url}/v1/sentiment/predict?key={secret}", content=b"\xff", headers={"X-API-Key": secret}
    )
    assert secret not in guarded.log()


def test_speech_is_heard(gateway: Serving) -> None:
    files = {"audio": ("a.flac", of_seconds(1.0), "audio/flac")}
    answer = gateway.client.post(f"{gateway.url}/v1/prompts/predict", files=files)
    assert answer.status_code == 200 and "text" in answer.json()["predictions"][0]
