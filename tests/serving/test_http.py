"""The service over HTTP, as a process: what it answers, what it refuses and how."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from lepton_platform.serving.ids import Ids
from lepton_platform.serving.log_reader import FEEDBACK, PREDICTIONS, find, hours, read_rows
from tests.serving.conftest import ROOT, Running

TASK = "sentiment"
JSON = {"content-type": "application/json"}


def post(service: Running, content: Any, route: str = "/predict", **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return service.client.post(f"{service.url}{route}", content=body, headers={**JSON, **headers})


def raw(service: Running, *parts: bytes) -> bytes:
    """Send bytes as they are; the answer until the service closes or falls silent."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has said no already
        try:
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def test_it_answers_in_order_with_ids_that_are_in_the_log(service: Running) -> None:
    texts = ["A good, charming film", "the film is bad <br/> and dull", "good", "b&amp;w", "the the the"]
    answer = service.predict(*texts)
    assert answer["model"].startswith("sentiment:")
    assert [p["label"] for p in answer["predictions"]][:3] == ["fresh", "rotten", "fresh"]
    for text, prediction in zip(texts, answer["predictions"], strict=True):
        assert set(prediction) == {"id", "label", "score"} and 0.5 <= prediction["score"] <= 1
        row = find(service.log, TASK, prediction["id"])
        assert row is not None and row["text"] == text
        assert row["model"] == answer["model"] and row["deployment"] == "7" and row["latency_ms"] > 0
        assert row["label"] == prediction["label"] and row["scores"][row["label"]] == prediction["score"]
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-5)


def test_it_preprocesses_as_training_does(service: Running) -> None:
    plain, marked = service.predict("a good film", "a <b>good</b>\n\n film&nbsp;")["predictions"]
    assert plain["score"] == marked["score"]


def test_many_at_once_each_get_their_own_answer(service: Running) -> None:
    def ask(number: int) -> bool:
        texts = ["good " * (1 + number % 5), "bad " * (1 + number % 7)] * (1 + number % 4)
        labels = [p["label"] for p in service.predict(*texts)["predictions"]]
        return labels == ["fresh", "rotten"] * (1 + number % 4)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


def test_the_most_that_is_allowed_is_answered(service: Running) -> None:
    assert len(service.predict(*["good film"] * 256)["predictions"]) == 256
    assert len(service.predict("x" * 10_000)["predictions"]) == 1
    fill = 1_048_576 - len(json.dumps({"texts": ["x" * 10_000] * 104 + [""]}))
    body = json.dumps({"texts": ["x" * 10_000] * 104 + ["y" * fill]}).encode()
    assert len(body) == 1_048_576
    assert post(service, body).status_code == 200
    assert post(service, body + b" ").status_code == 413


REFUSED: list[tuple[Any, int, str]] = [
    (b"", 422, "body"),
    (b"{", 422, "body"),
    (b"\xff\xfe", 422, "body"),
    (b"[1]", 422, "body"),
    (b"null", 422, "body"),
    (b'"texts"', 422, "body"),
    (b'{"texts": NaN}', 422, "body"),
    (b'{"texts": [-Infinity]}', 422, "body"),
    (b'{"texts": [' + b"9" * 5000 + b"]}", 422, "body"),
    (b'{"texts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422, "body"),
    (b'{"texts":' * 50_000, 422, "body"),
    (b'{"texts": ["a"], "texts": ["b"]}', 422, "body"),
    ({}, 422, "texts"),
    ({"text": ["a"]}, 422, "texts"),
    ({"texts": ["a"], "more": 1}, 422, "'more'"),
    ({"texts": "a"}, 422, "texts"),
    ({"texts": None}, 422, "texts"),
    ({"texts": []}, 422, "texts"),
    ({"texts": {"0": "a"}}, 422, "texts"),
    ({"texts": ["a", None]}, 422, "texts[1]"),
    ({"texts": ["a", 1.5]}, 422, "texts[1]"),
    ({"texts": ["a", True]}, 422, "texts[1]"),
    ({"texts": ["a", "b", ["c"]]}, 422, "texts[2]"),
    ({"texts": ["a", ""]}, 422, "texts[1]"),
    ({"texts": [" \n\t "]}, 422, "texts[0]"),
    ({"texts": ["ok", "<br/>&nbsp;"]}, 422, "texts[1]"),
    (b'{"texts": ["good", "\\ud800"]}', 422, "texts[1]"),
    ({"texts": ["a"] * 257}, 413, "texts"),
    ({"texts": ["a", "x" * 10_001]}, 413, "texts[1]"),
    (b" " * 1_048_577, 413, "body"),
]


@pytest.mark.parametrize(("content", "status", "field"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_wrong_is_refused_and_named(service: Running, content: Any, status: int, field: str) -> None:
    answer = post(service, content)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"], error["field"]) == (status, status, field)
    assert len(error["message"]) > 15


def test_a_byte_order_mark_and_null_characters_are_read(service: Running) -> None:
    assert post(service, b"\xef\xbb\xbf" + json.dumps({"texts": ["good"]}).encode()).status_code == 200
    assert post(service, {"texts": ["good\0film"]}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"]
)
def test_another_content_type_is_415(service: Running, kind: str) -> None:
    answer = service.client.post(f"{service.url}/predict", content=b'{"texts": ["a"]}', headers={"content-type": kind})
    assert answer.status_code == 415 and answer.json()["error"]["field"] == "content-type"


def test_headers_that_are_accepted(service: Running) -> None:
    assert post(service, {"texts": ["a"]}, **{"content-type": "Application/JSON; charset=UTF-8"}).status_code == 200
    assert post(service, {"texts": ["a"]}, **{"content-encoding": "gzip"}).status_code == 415


def test_methods_and_routes(service: Running) -> None:
    assert service.client.get(f"{service.url}/predict").status_code == 405
    assert service.client.get(f"{service.url}/predict").headers["allow"] == "POST"
    assert service.client.post(f"{service.url}/readyz").status_code == 405
    for route in ("/predict/", "/nothing", "/..%2f..%2fetc/passwd"):
        answer = service.client.get(service.url + route)
        assert answer.status_code == 404 and answer.json()["error"]["status"] == 404
    assert service.client.get(f"{service.url}/").json()["labels"] == ["rotten", "fresh"]
    assert service.client.head(f"{service.url}/livez").status_code == 200
    assert service.client.get(f"{service.url}/readyz").json()["status"] == "ready"


def test_a_body_that_never_ends_is_cut_off(service: Running) -> None:
    """No Content-Length: the body is counted while it arrives."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    answer = raw(service, head, *[chunk] * 40)
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer.lower()
    assert service.predict("good")["predictions"]


def test_a_long_body_is_refused_by_its_header(service: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    answer = raw(service, head)
    assert answer.startswith(b"HTTP/1.1 413")


def test_what_is_not_http_disturbs_nobody(service: Running) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"\0" * 1000,
        b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        answer = raw(service, junk)
        assert not answer or answer.startswith(b"HTTP/1.1 4")
    half = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    address = urlsplit(service.url)
    socket.create_connection((address.hostname, address.port)).sendall(half)  # and it goes away
    assert service.predict("good")["predictions"]


def test_feedback_is_kept(service: Running) -> None:
    first, second = (p["id"] for p in service.predict("good", "bad")["predictions"])
    items = [{"id": first, "label": "rotten"}, {"id": second.upper(), "label": "rotten"}]
    answer = post(service, {"feedback": items}, "/feedback")
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    rows = read_rows(service.log, TASK, hours(service.log, TASK)[-1], FEEDBACK)
    assert [(r["prediction_id"], r["label"]) for r in rows[-2:]] == [(first, "rotten"), (second, "rotten")]


def test_feedback_that_cannot_be_used_is_refused_whole(service: Running) -> None:
    [known] = (p["id"] for p in service.predict("good")["predictions"])
    [unknown] = Ids().take(1)
    good = {"id": known, "label": "fresh"}
    before = sum(len(read_rows(service.log, TASK, hour, FEEDBACK)) for hour in hours(service.log, TASK))
    cases = [
        ([good, {"id": unknown, "label": "fresh"}], 404, "feedback[1].id"),
        ([good, {"id": known, "label": "superb"}], 422, "feedback[1].label"),
        ([good, {"id": "4", "label": "fresh"}], 422, "feedback[1].id"),
        ([good, {"id": known}], 422, "feedback[1].label"),
        ([good, {"id": known, "label": None}], 422, "feedback[1].label"),
        ([{**good, "note": "x"}], 422, "feedback[0]"),
        ([good, 7], 422, "feedback[1]"),
        ([], 422, "feedback"),
        (None, 422, "feedback"),
        ([good] * 257, 413, "feedback"),
    ]
    for items, status, field in cases:
        answer = post(service, {"feedback": items}, "/feedback")
        assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)
    after = sum(len(read_rows(service.log, TASK, hour, FEEDBACK)) for hour in hours(service.log, TASK))
    assert after == before


def test_the_reference_page_names_all_there_is(service: Running) -> None:
    """docs/reference/service.md: every route, status, metric and column of the log."""
    page = (ROOT / "docs/reference/service.md").read_text("utf-8")
    schema = service.client.get(f"{service.url}/schema.json").json()
    [answer] = service.predict("good")["predictions"]
    metrics = [
        line.split()[2]
        for line in service.client.get(f"{service.url}/metrics").text.splitlines()
        if line.startswith("# TYPE lepton_") and not line.split()[2].endswith("_created")
    ]
    row = find(service.log, TASK, answer["id"])
    assert row is not None
    statuses = {s for path in schema["paths"].values() for m in path.values() for s in m["responses"]}
    for word in [*schema["paths"], *statuses - {"200"}, *row, *metrics]:
        assert word.removesuffix("_total") in page, word


def test_the_schema_describes_the_answers(service: Running) -> None:
    import jsonschema

    schema = service.client.get(f"{service.url}/schema.json").json()
    assert schema["openapi"].startswith("3.1")
    assert set(schema["paths"]) == {"/predict", "/feedback", "/livez", "/readyz", "/metrics", "/schema.json", "/"}

    def check(value: Any, name: str) -> None:
        whole = {"$ref": f"#/components/schemas/{name}", "components": schema["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    example = schema["components"]["schemas"]["PredictRequest"]["examples"][0]
    check(example, "PredictRequest")
    check(post(service, example).json(), "Predictions")
    check(post(service, b"x").json(), "Error")


def test_metrics_count_what_happened(service: Running) -> None:
    def value(name: str) -> float:
        lines = service.client.get(f"{service.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def requests(route: str, status: int) -> float:
        return value(f'lepton_requests_total{{route="{route}",status="{status}"}}')

    before = {status: requests("/predict", status) for status in (200, 422)}
    predicted = value("lepton_predictions_total")
    service.predict("good", "bad")
    post(service, b"x")
    assert {status: requests("/predict", status) for status in (200, 422)} == {k: v + 1 for k, v in before.items()}
    assert value("lepton_predictions_total") == predicted + 2
    for stage in ("preprocess", "queue", "model", "log"):
        assert value(f'lepton_stage_seconds_count{{stage="{stage}"}}') > 0
    assert 10_000_000 < value("lepton_process_resident_memory_bytes") < 400 * 2**20
    assert value("lepton_process_cpu_seconds_total") > 0
    assert value("lepton_batch_inputs_count") > 0


def test_health_is_quick_beside_heavy_requests(service: Running) -> None:
    """Megabytes being encoded must not make the orchestrator believe that the process hangs."""
    heavy = {"texts": ["caf\u00e9 &amp; <b>na\u00efve</b> " * 300] * 120}
    threads = [threading.Thread(target=post, args=(service, heavy)) for _ in range(4)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        slowest = max(slowest, service.client.get(f"{service.url}/livez", timeout=10).elapsed.total_seconds())
    for thread in threads:
        thread.join()
    assert slowest < 2


def test_nothing_heavy_was_loaded(service: Running) -> None:
    import psutil

    loaded = {mapped.path for mapped in psutil.Process(service.process.pid).memory_maps()}
    assert not [path for path in loaded if "/torch/" in path or "/pandas/" in path or "/bentoml/" in path]
    assert [path for path in loaded if "onnxruntime" in path]


def test_rows_of_an_hour_are_sorted_and_unique(service: Running) -> None:
    for hour in hours(service.log, TASK):
        ids = [row["id"] for row in read_rows(service.log, TASK, hour, PREDICTIONS)]
        assert ids == sorted(set(ids))
