"""The gateway before those who mean it ill: its own document read against it, and by hand what no document describes.

No answer is a 5xx, nothing passes without a key, a client's headers give it nothing that is not its own, and nothing is
left of those who go away in the middle.
"""

import base64
import http.client
import json
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lepton_platform.gateway.keys import SCOPES, Keys
from lepton_platform.gateway.page import FILES, PAGES
from lepton_platform.serving.body import BODY_TIMEOUT_S
from lepton_platform.serving.log_reader import MIRRORED, find, hours, read_rows
from lepton_platform.serving.stream_route import MAX_MESSAGE_BYTES
from lepton_platform.tasks import load_part
from tests.gateway.conftest import TASKS, Serving, new_settings, offer, serve
from tests.serving import streams
from tests.serving.recordings import of_seconds

EXAMPLES, FEW = 12, 4  # of an operation and a mode; of what answers 401 whatever it is asked
BODY = b'{"texts":["good film"]}'
JSON = "Content-Type: application/json"
PREDICT = "POST /v1/sentiment/predict HTTP/1.1"
UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
FAULT = re.compile(r'^lepton_(?:gateway_)?requests_total\{(?!.*route="/readyz")(?!.*lineage).*status="5')


@dataclass
class Guarded:
    """Services that ask for keys, and one that may do everything."""

    serving: Serving
    key: dict[str, str]


@pytest.fixture(scope="module")
def guarded(bentos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    settings = new_settings(tmp_path_factory.mktemp("guarded"), auth="on")
    for task, bento in bentos.items():
        offer(settings, task, bento)
    _, secret = Keys(settings).create("all", SCOPES)
    with serve(settings) as serving:
        yield Guarded(serving, {"X-API-Key": secret})
        healthy(serving, {"X-API-Key": secret})


def metrics(serving: Serving, headers: dict[str, str] | None = None) -> list[str]:
    answer = serving.client.get(f"{serving.url}/metrics", headers=headers)
    answer.raise_for_status()
    return answer.text.splitlines()


def healthy(serving: Serving, headers: dict[str, str] | None = None) -> None:
    """It answers as ever, and neither it nor a worker has had a fault.

    It was not ready at first, and the past of what no graph made cannot be told.
    """
    assert serving.predict("good", headers=headers).json()["predictions"][0]["label"] == "fresh"
    faults = [line for line in metrics(serving, headers) if FAULT.match(line)]
    assert not faults
    assert not re.search(r"ERROR lepton\.", serving.log()), serving.log()[-3000:]


@pytest.fixture(scope="module", autouse=True)
def healthy_afterwards(gateway: Serving, endless: object) -> Iterator[None]:
    del endless
    yield
    healthy(gateway)


# --- the document


def conforms(
    serving: Serving, document: dict[str, Any], headers: dict[str, str], count: int
) -> Counter[tuple[str, int]]:
    """Ask every operation what its schema allows and what it forbids → how often each answered which status."""
    import requests
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    session, seen = requests.Session(), Counter()
    session.headers.update(headers)
    schema = schemathesis.openapi.from_dict(without_keys(document))
    schema.config.update(base_url=serving.url)
    told = [not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
    told += [checks.response_schema_conformance, checks.response_headers_conformance]

    def ask(operation: Any, mode: str) -> None:
        @hypothesis_settings(
            max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        def send(case: Any) -> None:
            answer = case.call(session=session)
            seen[operation.label, answer.status_code] += 1
            case.validate_response(answer, checks=told)

        send()

    for path, item in document["paths"].items():
        operation = schema[path][next(iter(item)).upper()]
        ask(operation, "positive")
        if operation.body or operation.path_parameters or operation.query:  # else nothing can be wrong
            ask(operation, "negative")
    return seen


def document_of(serving: Serving, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return serving.client.get(f"{serving.url}/openapi.json", headers=headers).raise_for_status().json()


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Schemathesis makes up keys for what asks for some, and twenty wrong ones are as many as an address may send."""
    paths = {
        path: {method: {**operation, "security": []} for method, operation in item.items()}
        for path, item in document["paths"].items()
    }
    return {**document, "paths": paths}


def test_the_document_holds_where_no_keys_are_asked_for(gateway: Serving) -> None:
    seen = conforms(gateway, document_of(gateway), {}, EXAMPLES)
    assert {status for _, status in seen} == {200, 404, 413, 422}


def test_the_document_holds_with_a_key(guarded: Guarded) -> None:
    seen = conforms(guarded.serving, document_of(guarded.serving, guarded.key), guarded.key, EXAMPLES)
    assert {status for _, status in seen} == {200, 404, 413, 422}


def test_without_a_key_every_operation_is_401_as_the_document_says(guarded: Guarded) -> None:
    """But for two that tell a balancer whether there is somebody."""
    told = document_of(guarded.serving, guarded.key)
    open_ones = {f"{method} {path}" for method, path in (("GET", "/livez"), ("GET", "/readyz"))}
    seen = conforms(guarded.serving, told, {}, FEW)
    assert (
        {label for label, status in seen if status != 401}
        == open_ones
        == {label for label, status in seen if status == 200}
    )
    labels = {f"{method.upper()} {path}" for path, item in told["paths"].items() for method in item}
    assert {label for label, _ in seen} == labels and len(labels) == 4 * len(TASKS) + 7


def test_without_a_key_nothing_else_answers_but_the_page(guarded: Guarded) -> None:
    serving = guarded.serving
    for path in (*PAGES, *(f"/page/{name}" for name in FILES)):
        assert serving.client.get(f"{serving.url}{path}").status_code == 200
    for method, path in (
        ("POST", "/v1/nothing/predict"), ("GET", "/v1/nothing/lineage/x"), ("HEAD", "/v1"), ("HEAD", "/metrics"),
    ):  # fmt: skip
        answer = serving.client.request(method, f"{serving.url}{path}")
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("PUT", "/v1", 405),
        ("GET", "/page/../../settings.py", 404),
    ):
        assert serving.client.request(method, f"{serving.url}{path}").status_code == status


@pytest.mark.parametrize("task", [*TASKS, "nothing"])
def test_without_a_key_no_stream_is_begun(guarded: Guarded, task: str) -> None:
    """Refused by an answer to its request: before it is accepted, whatever there is behind it."""
    serving = guarded.serving
    url = f"{serving.url.replace('http', 'ws')}/v1/{task}/stream"
    for headers in ({}, {"Authorization": f"Basic {guarded.key['X-API-Key']}"}):
        with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
            pass
        response = refused.value.response
        assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
        assert json.loads(response.body)["error"]["status"] == 401
    status, _, body = exchange(
        serving, ask(f"GET /v1/{task}/stream?key={guarded.key['X-API-Key']} HTTP/1.1", *UPGRADE, body=b"")
    )
    assert status == 401 and b"nowhere else" in body, "a key in an address is none: addresses are logged"


def test_a_page_offers_its_key_among_the_subprotocols_of_a_stream(guarded: Guarded) -> None:
    """No other header of a WebSocket can be set by a page; the key is never said back."""
    key, url = guarded.key["X-API-Key"], f"{guarded.serving.url.replace('http', 'ws')}/v1/prompts/stream"
    for offered in (["lepton.stream"], ["lepton.stream", "lepton.key."], ["lepton.stream", f"lepton.key.{key[:-1]}x"]):
        with pytest.raises(InvalidStatus) as refused, connect(url, subprotocols=cast(Any, offered)):
            pass
        assert refused.value.response.status_code == 401
    with connect(url, subprotocols=cast(Any, ["lepton.stream", f"lepton.key.{key}"])) as stream:
        assert stream.subprotocol == "lepton.stream"
        streams.sent(stream, streams.pcm())
        _, last = streams.received(stream)
    assert last["predictions"][0]["id"]
    assert key not in guarded.serving.log()


def test_the_answers_to_real_inputs_are_as_the_document_says(gateway: Serving) -> None:
    import schemathesis

    schema = schemathesis.openapi.from_dict(document_of(gateway))
    schema.config.update(base_url=gateway.url)
    for task in TASKS:
        case = schema[f"/v1/{task}/predict"]["POST"].Case(
            body=load_part(task, "api").EXAMPLE, media_type="application/json"
        )
        answer = case.call()
        case.validate_response(answer)
        assert answer.status_code == 200 and json.loads(answer.content)["predictions"]
        identifier = json.loads(answer.content)["predictions"][0]["id"]
        past = gateway.client.get(f"{gateway.url}/v1/{task}/lineage/{identifier}")
        assert str(past.status_code) in schema[f"/v1/{task}/lineage/{{id}}"]["GET"].definition.raw["responses"]


# --- by hand


def ask(line: str, *headers: str, body: bytes = BODY, host: str = "127.0.0.1", length: bool = True) -> bytes:
    """A request as it goes over the wire; nothing of it is looked at."""
    known = {header.partition(":")[0].lower() for header in headers}
    lines = [line, f"Host: {host}", *headers]
    lines += [] if "content-type" in known or not body else [JSON]
    lines += [f"Content-Length: {len(body)}"] if length and body else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Wire:
    """A connection, and the answers that come on it."""

    def __init__(self, serving: Serving, data: bytes = b"", timeout_s: float = 30.0) -> None:
        address = urlsplit(serving.url)
        self.socket = socket.create_connection((address.hostname or "", address.port or 0), timeout=timeout_s)
        self._file = self.socket.makefile("rb")
        with suppress(ConnectionError):  # it may be told to go before it has said all
            self.socket.sendall(data)

    def answer(self) -> tuple[int, Message, bytes]:
        """The next one; status 0 where there is none but a closed door."""
        try:
            line = self._file.readline()
            headers = http.client.parse_headers(self._file)
            body = self._file.read(int(headers["content-length"]) if "content-length" in headers else -1)
        except ConnectionError:
            line, headers, body = b"", Message(), b""
        return int(line.split()[1]) if line else 0, headers, body

    def reset(self) -> None:
        """As a client does that is killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exchange(serving: Serving, data: bytes) -> tuple[int, Message, bytes]:
    with Wire(serving, data) as wire:
        return wire.answer()


def in_log(serving: Serving, identifier: str, task: str = "sentiment") -> bool:
    """Among the predictions that were given; never among those that were only compared."""
    folder = serving.settings.predictions_dir
    mirrored = {row["id"] for hour in hours(folder, task) for row in read_rows(folder, task, hour, MIRRORED)}
    assert identifier not in mirrored
    return find(folder, task, identifier) is not None


def test_a_client_cannot_ask_to_be_left_out_of_the_log(gateway: Serving) -> None:
    for headers in (
        {"X-Lepton-Mirror": "1"},
        {"x-lepton-mirror": ""},
        {"X-LEPTON-MIRROR": "1", "Connection": "x-lepton-mirror"},
    ):
        answer = gateway.predict("good", headers=headers)
        assert in_log(gateway, answer.raise_for_status().json()["predictions"][0]["id"])
    injected = gateway.client.post(
        f"{gateway.url}/v1/sentiment/predict?a=%0d%0aX-Lepton-Mirror:%201%0d%0a", json={"texts": ["good"]}
    )
    assert in_log(gateway, injected.raise_for_status().json()["predictions"][0]["id"])


HIDDEN = b"POST /v1/sentiment/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SMUGGLED = {
    "two lengths and a coding": ask(PREDICT, "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": ask(PREDICT, "Content-Length: 5"),
    "the same length twice": ask(PREDICT, f"Content-Length: {len(BODY)}"),
    "a length with a sign": ask(PREDICT, f"Content-Length: +{len(BODY)}", length=False),
    "a length below zero": ask(PREDICT, "Content-Length: -1", length=False),
    "a length past all": ask(PREDICT, f"Content-Length: {10**30}", length=False),
    "a list of lengths": ask(PREDICT, f"Content-Length: {len(BODY)}, {len(BODY)}", length=False),
    "an unknown coding": ask(PREDICT, "Transfer-Encoding: xchunked", length=False),
    "a coding that ends otherwise": ask(PREDICT, "Transfer-Encoding: chunked, identity", length=False),
    "a chunk without a size": ask(PREDICT, "Transfer-Encoding: chunked", length=False, body=b"zz\r\n" + BODY),
    "a chunk's size past all": ask(
        PREDICT, "Transfer-Encoding: chunked", length=False, body=b"f" * 40 + b"\r\n" + BODY
    ),
    "a space before the colon": ask(PREDICT, "Transfer-Encoding : chunked"),
    "a folded header": ask(PREDICT, "X-A: b\r\n Transfer-Encoding: chunked"),
    "lines that end otherwise": ask(PREDICT).replace(b"\r\n", b"\n"),
    "a control character": ask(PREDICT, "Content-Type: application/json\x01"),
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "another version": ask("POST /v1/sentiment/predict HTTP/9.9"),
}


@pytest.mark.parametrize("how", SMUGGLED)
def test_what_two_readers_would_read_differently_is_read_by_none(gateway: Serving, how: str) -> None:
    """400, and the connection is closed: what follows is no request."""
    with Wire(gateway, SMUGGLED[how] + ask("GET /livez HTTP/1.1", body=b"")) as wire:
        status, _, _ = wire.answer()
        assert status == 400
        assert wire.answer()[0] == 0, "what was smuggled in has been answered"


def test_a_body_is_not_taken_for_a_request(gateway: Serving) -> None:
    """Of a request that takes no body, and of one that is refused before its body is read."""
    for line, status in (("GET /livez HTTP/1.1", 200), ("PUT /v1 HTTP/1.1", 405), ("POST /nothing HTTP/1.1", 404)):
        with Wire(gateway, ask(line, body=HIDDEN) + ask("GET /readyz HTTP/1.1", body=b"")) as wire:
            assert wire.answer()[0] == status
            assert json.loads(wire.answer()[2] or b"{}").get("status") == "ready"
    large = ask(PREDICT, f"Content-Length: {1 << 40}", body=HIDDEN, length=False)
    with Wire(gateway, large) as wire:
        assert wire.answer()[0] == 413 and wire.answer()[0] == 0


HEADERS = {
    "a host that is none": (ask(PREDICT, host="[::1"), 403),
    "a host with a bracket": (ask(PREDICT, host="127.0.0.1]"), 403),
    "no host": (ask(PREDICT, host=""), 403),
    "an origin that is none": (ask(PREDICT, "Origin: http://["), 403),
    "an origin in brackets": (ask(PREDICT, "Origin: http://[x]"), 403),
    "a host of any letters": (ask(PREDICT, host="\xe9"), 403),
    "a content type of any letters": (ask(PREDICT, "Content-Type: \xe9"), 415),
    "two content types": (ask(PREDICT, "Content-Type: text/plain", "Content-Type: application/json"), 415),
    "no content type": (ask(PREDICT, body=b""), 415),
    "a body in another coding": (ask(PREDICT, "Content-Encoding: gzip"), 415),
    "a long key": (ask(PREDICT, f"X-Request-Key: {'k' * 201}"), 422),
    "a very long key": (ask(PREDICT, f"X-Request-Key: {'k' * 60_000}"), 422),
    "a key that fills all": (ask(PREDICT, f"X-Request-Key: {'k' * 300_000}"), 431),
    "a key of any letters": (ask(PREDICT, "X-Request-Key: \xff\xfe", "X-Request-Key: b"), 200),
    "any letters to accept": (ask(PREDICT, "Accept: \xff\t*/*"), 200),
    "nothing to accept": (ask(PREDICT, "Accept:"), 200),
    "ten thousand headers": (ask(PREDICT, *["a:"] * 10_000), 200),
    "ten thousand long headers": (ask(PREDICT, *(f"a{number}: {'b' * 90}" for number in range(10_000))), 431),
    "no such expectation": (ask(PREDICT, "Expect: nonsense"), 200),
    "a stream on no stream's route": (ask("GET /v1/sentiment/predict HTTP/1.1", *UPGRADE, body=b""), 403),
    "a stream's origin that is none": (
        ask("GET /v1/prompts/stream HTTP/1.1", *UPGRADE, "Origin: http://[", body=b""),
        403,
    ),
}


@pytest.mark.parametrize("what", HEADERS)
def test_strange_headers_are_answered(gateway: Serving, what: str) -> None:
    data, expected = HEADERS[what]
    status, headers, body = exchange(gateway, data)
    assert status == expected, body
    if headers.get("content-type", "").startswith("application/json") and status != 200:
        assert json.loads(body)["error"]["status"] == status


def test_strange_origins_are_refused_where_keys_are_asked_for(guarded: Guarded) -> None:
    key = f"X-API-Key: {guarded.key['X-API-Key']}"
    for origin in ("http://[", "http://[x]", "null", "http://evil.example"):
        line = ask("GET /v1/prompts/stream HTTP/1.1", *UPGRADE, key, f"Origin: {origin}", body=b"")
        assert exchange(guarded.serving, line)[0] == 403


def test_two_keys_are_one_too_many(guarded: Guarded) -> None:
    mine, other = guarded.key["X-API-Key"], Keys(guarded.serving.settings).create("other", SCOPES)[1]
    for headers, status in (
        ([f"X-API-Key: {mine}", f"Authorization: Bearer {mine}"], 200),
        ([f"X-API-Key: {mine}", f"X-Api-Key: {other}"], 401),
        ([f"Authorization: Bearer {mine}", f"X-API-Key: {other}"], 401),
        ([f"X-API-Key: {mine}", "X-API-Key: "], 401),
        ([f"X-API-Key: {mine}, {mine}"], 401),
        ([f"Cookie: X-API-Key={mine}"], 401),
    ):
        assert exchange(guarded.serving, ask("GET /v1 HTTP/1.1", *headers, body=b""))[0] == status, headers


PATHS = {
    "/v1/../metrics": 404, "/v1/%2e%2e/metrics": 404, "//metrics": 404, "/metrics/": 404, "/v1//sentiment/predict": 404,
    "/v1/sentiment//predict": 404, "/v1/sentiment/predict/": 404, "/v1/./sentiment/predict": 404,
    "/v1/sentiment/../sentiment/predict": 404, "/v1/sentiment/predict%00": 404, "/v1/sentiment%00/predict": 404,
    "/v1/sentiment/predict;a=b": 404, "/v1/SENTIMENT/predict": 404, "/v1/%ff/predict": 404, "/v1/%u0073/predict": 404,
    "/v1/%2573entiment/predict": 404, "/v1/..%2f..%2fetc/predict": 404, "/v1/" + "a" * 30_000 + "/predict": 404, "*": 404,
    "/v1/\xff/predict": 400, "/v1/sentiment/predict?a b": 400, "/v1/%73entiment/predict": 200, "/v1/sentiment/predict?%zz": 200,
    "/v1/sentiment/predict?" + "a" * 20_000: 200, "/v1/sentiment/predict?//[::": 200, "/v1/sentiment/predict?a=1#b": 200,
    "/page/..%2f..%2f..%2fetc/passwd": 405, "/predict": 404, "/schema.json": 404,
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path[:40]))
def test_a_path_is_what_it_says(gateway: Serving, path: str) -> None:
    """Nothing is taken out of it, and letters are decoded once; what a worker has beside is not to be had."""
    status, _, body = exchange(gateway, ask(f"POST {path} HTTP/1.1"))
    assert status == PATHS[path], body


@pytest.mark.parametrize(
    "name", ["..%2fapp.py", "../app.py", "%2e%2e/app.py", "/etc/passwd", "%00", "page.js%00", "PAGE.JS", "index.html"]
)
def test_the_page_has_its_own_files_alone(gateway: Serving, name: str) -> None:
    status, _, body = exchange(gateway, ask(f"GET /page/{name} HTTP/1.1", body=b""))
    assert status == 404 and json.loads(body)["error"]["status"] == 404


# --- who is slow, or goes away


@pytest.fixture(scope="module")
def endless(gateway: Serving) -> Iterator[tuple[Wire, float]]:
    """A request whose body never ends, begun before the other tests; and when."""
    begun = time.monotonic()
    with Wire(gateway, ask(PREDICT, "Content-Length: 1000", body=b'{"texts"', length=False), 60) as wire:
        yield wire, begun


def test_a_slow_body_is_waited_for_and_holds_up_nobody(gateway: Serving) -> None:
    with Wire(gateway, ask(PREDICT, f"Content-Length: {len(BODY)}", JSON, body=b"", length=False)) as slow:
        for place in range(len(BODY)):
            time.sleep(0.05)
            slow.socket.sendall(BODY[place : place + 1])
            if place == 5:
                assert in_flight(gateway)["gateway"] >= 1
                gateway.predict("good").raise_for_status()
        assert slow.answer()[0] == 200


@pytest.mark.parametrize("way", ["half closed", "closed", "reset"])
def test_a_body_that_ends_early_is_no_request(gateway: Serving, way: str) -> None:
    data = ask(PREDICT, "Content-Length: 1000", body=b'{"texts":["a film that nobody saw"]}', length=False)
    wire = Wire(gateway, data)
    if way == "half closed":
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer()[0] in (0, 422)
    elif way == "reset":
        wire.reset()
    wire.close()
    nothing_left(gateway)
    folder = gateway.settings.predictions_dir
    rows = [row for hour in hours(folder, "sentiment") for row in read_rows(folder, "sentiment", hour)]
    assert not any("nobody saw" in row["text"] for row in rows)


def in_flight(serving: Serving) -> dict[str, float]:
    """Requests being answered, by the gateway and by each task's worker."""
    found = {}
    for line in metrics(serving):
        if match := re.match(r'lepton_(gateway_)?requests_in_flight(?:\{.*task="(\w+)".*\})? ([\d.]+)', line):
            found["gateway" if match[1] else match[2]] = float(match[3])
    assert set(found) == {"gateway", *TASKS}
    return found


def nothing_left(serving: Serving, most: int = 1) -> None:
    """``most``: the endless one, where it has begun."""
    until = time.monotonic() + 20
    while sum((found := in_flight(serving)).values()) > most:
        assert time.monotonic() < until, found
        time.sleep(0.05)


def descriptors(serving: Serving) -> int:
    found = [*serving.processes("gateway.server"), *serving.processes("serving.server")]
    return sum(process.num_fds() for process in found)


def test_who_goes_away_before_the_answer_leaves_nothing(gateway: Serving) -> None:
    """Pictures and recordings that take a while, let go of at any moment; and streams."""
    [picture] = load_part("trees", "api").EXAMPLE["images"]
    many = json.dumps({"images": [picture] * 16}).encode()
    sound = json.dumps({"audio": [base64.b64encode(of_seconds(5.0)).decode()] * 4}).encode()
    nothing_left(gateway)
    before = descriptors(gateway)
    for number in range(30):
        task, body = ("trees", many) if number % 2 else ("prompts", sound)
        wire = Wire(gateway, ask(f"POST /v1/{task}/predict HTTP/1.1", body=body))
        time.sleep(0.01 * (number % 4))
        (wire.reset if number % 3 else wire.close)()
    for number in range(8):
        with suppress(ConnectionClosed, ConnectionError), streams.opened(gateway, "/v1/prompts/stream") as stream:  # pyright: ignore[reportArgumentType] - its url is read
            stream.send(streams.pcm()[:16_000])
            if number % 2:
                stream.send(streams.END)
            stream.socket.shutdown(socket.SHUT_RDWR)
    nothing_left(gateway)
    until = time.monotonic() + 15  # kept connections to the workers are let go after some seconds
    while descriptors(gateway) > before + 20:
        assert time.monotonic() < until, (before, descriptors(gateway))
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("send", "code", "word", "status"),
    [
        (lambda stream: stream.send("nonsense"), 1007, "not JSON", 422),
        (lambda stream: stream.send(bytes(MAX_MESSAGE_BYTES + 2)), 1009, "at most", 413),
        (lambda stream: stream.send('{"end": false}'), 1007, "the last message", 422),
    ],
)
def test_the_closing_words_of_a_stream_are_passed_on(
    gateway: Serving, send: Any, code: int, word: str, status: int
) -> None:
    """And counted as what they are."""

    def counted() -> float:
        line = f'lepton_gateway_requests_total{{route="/v1/{{task}}/stream",status="{status}",task="prompts"}} '
        return sum(float(found.rpartition(" ")[2]) for found in metrics(gateway) if found.startswith(line))

    before = counted()
    with streams.opened(gateway, "/v1/prompts/stream") as stream:  # pyright: ignore[reportArgumentType]
        send(stream)
        said, reason = streams.closed(stream)
    assert said == code and word.lower() in (reason or "").lower()
    nothing_left(gateway)
    assert counted() == before + 1


def test_what_is_no_stream_ends_it(gateway: Serving) -> None:
    """Frames that break the protocol; the gateway closes and the worker is told."""

    def broken(frame: bytes) -> None:
        with suppress(ConnectionClosed), streams.opened(gateway, "/v1/prompts/stream") as stream:  # pyright: ignore[reportArgumentType]
            stream.socket.sendall(frame)
            streams.closed(stream)

    for frame in (b"\xff\xff\xff\xff", b"\x82\x05hello", b"\x83\x80\0\0\0\0", b"\x82\xff" + b"\xff" * 12):
        broken(frame)
    nothing_left(gateway)


def test_a_body_that_never_ends_is_refused(gateway: Serving, endless: tuple[Wire, float]) -> None:
    wire, begun = endless
    status, headers, body = wire.answer()
    assert status == 408 and headers["connection"] == "close" and json.loads(body)["error"]["field"] == "body"
    assert time.monotonic() - begun > BODY_TIMEOUT_S - 1
    nothing_left(gateway, most=0)
