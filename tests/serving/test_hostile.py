"""More than 5,000 bad requests: no answer is a 5xx, none that must be refused is taken, the service stays as it was.

One half is made by hand (bodies that other parsers choke on, and mutations of good ones), the other by Schemathesis
from the service's own OpenAPI document.
"""

import http.client
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving.conftest import Running

BY_HAND = 3_000
BY_SCHEMA = 1_100  # a route and a mode
GROWTH_BYTES = 150 << 20  # of resident memory; a leak of every body would be gigabytes
JSON = "application/json"
GOOD = {
    "/predict": {"texts": ["a good film", "a dull one"]},
    "/feedback": {"feedback": [{"id": "x", "label": "fresh"}]},
}
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**400,
    "",
    " ",
    "\0",
    "\u202e\ufeff",
    [],
    [[]],
    {},
    {"texts": {}},
    "NaN",
    "x" * 20_000,
]
LITERALS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999999", b"-0", b"0x10", b"01", b"1." , b"9" * 4_400, b"'a'", b"undefined",
    b"\"\\ud800\"", b"\"\\udfff\\ud800\"", b"\"\\u00\"", b"\"\x00\"", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"\"\xff\"",
    b"[" * 5_000, b"[" * 60_000 + b"]" * 60_000, b"{\"a\":" * 20_000, b"/* */", b"\xf0\x9f\x98", b"\x1f\x8b\x08\x00",
]  # fmt: skip
TYPES = [
    JSON,
    JSON,
    JSON,
    JSON,
    "text/plain",
    "",
    "multipart/form-data; boundary=x",
    "application/json; charset=utf-7",
    "a" * 5_000,
    "\xe9",
]


def mutated(chance: random.Random, body: bytes) -> bytes:
    """Cut, flip, repeat or splice bytes."""
    where = chance.randrange(len(body) + 1)
    return [
        lambda: body[:where],
        lambda: body[where:],
        lambda: body[:where] + bytes([chance.randrange(256)]) + body[where + 1 :],
        lambda: body[:where] + chance.choice(LITERALS) + body[where:],
        lambda: body * chance.randrange(2, 5),
        lambda: chance.randbytes(chance.randrange(1, 400)),
        lambda: body.decode().encode(chance.choice(["utf-16", "utf-32", "utf-7", "cp500"])),
        lambda: body[:where] + b"\0" * chance.randrange(1, 50) + body[where:],
    ][chance.randrange(8)]()


def wrong(chance: random.Random, route: str) -> tuple[bytes, bool]:
    """A body and whether it must be refused: a mutation may by chance be a good request."""
    field, item = ("texts", "a good film") if route == "/predict" else ("feedback", {"id": "x", "label": "fresh"})
    literal, value = chance.choice(LITERALS), chance.choice(VALUES)
    kind = chance.randrange(7)
    if kind == 0:
        return f'{{"{field}": ['.encode() + literal + b"]}", True
    if kind == 1:
        return literal, True
    if kind == 2:
        bad = [item, value] if value not in ({}, "\0", "NaN", "\u202e\ufeff") else [item, None]
        return json.dumps({field: bad}).encode(), True
    if kind == 3:
        return json.dumps({field: value}).encode(), not (isinstance(value, list) and value)
    if kind == 4:
        return json.dumps({field: [item] * chance.randrange(257, 400)}).encode(), True
    if kind == 5:
        return json.dumps({chance.choice(["text", field.upper(), "", "\ud800", "__proto__"]): [item]}).encode(), True
    return mutated(chance, json.dumps(GOOD[route]).encode()), False


def by_hand(seed: int, count: int) -> Iterator[tuple[str, str, bytes, dict[str, str], bool]]:
    """Method, route, body, headers, whether it must be refused."""
    chance = random.Random(seed)
    for _ in range(count):
        route = chance.choice(["/predict", "/predict", "/feedback"])
        body, must = wrong(chance, route)
        kind = chance.choice(TYPES)
        method = chance.choice(["POST"] * 12 + ["PUT", "DELETE", "PATCH", "BREW"])
        path = (
            route
            if chance.random() < 0.95
            else chance.choice(["//predict", "/predict/../x", "/%00", "/predict?" + "a" * 3_000, "/" + "b" * 2_000])
        )
        headers = {"content-type": kind} | ({"content-encoding": "br"} if chance.random() < 0.02 else {})
        must = (
            must or kind != JSON or method != "POST" or not path.startswith("/predict") or "content-encoding" in headers
        )
        yield method, path, body, headers, must


@pytest.fixture(scope="module", autouse=True)
def healthy_afterwards(service: Running) -> Iterator[None]:
    process = psutil.Process(service.process.pid)
    for _ in range(50):
        service.predict("a good film")
    before = process.memory_info().rss
    yield
    assert [p["label"] for p in service.predict("good", "bad")["predictions"]] == ["fresh", "rotten"]
    metrics = service.client.get(f"{service.url}/metrics").text.splitlines()
    faults = [line for line in metrics if line.startswith("lepton_requests_total") and 'status="5' in line]
    assert not faults
    assert process.memory_info().rss - before < GROWTH_BYTES
    assert process.num_fds() < 100


def test_by_hand(service: Running) -> None:
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    seen: Counter[int] = Counter()
    for number, (method, path, body, headers, must) in enumerate(by_hand(2024, BY_HAND)):
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, ConnectionError):  # it was refused by closing: the next one tells more
            connection.close()
            seen[0] += 1
            continue
        seen[answer.status] += 1
        what = f"request {number}: {method} {path[:40]} {headers} {body[:80]!r} → {answer.status} {content[:200]!r}"
        assert answer.status < 500, what
        assert not must or answer.status >= 400, what
        if answer.status == 422:
            assert json.loads(content)["error"]["field"], what
    assert seen[0] < BY_HAND / 100 and {404, 405, 413, 415, 422} <= set(seen), seen


@pytest.mark.slow
@pytest.mark.parametrize("route", ["/predict", "/feedback"])
@pytest.mark.parametrize("mode", ["negative", "positive"])
def test_by_schema(service: Running, route: str, mode: str) -> None:
    """What the schema forbids is refused; what it allows is never a fault (but may be empty words, or an unknown id)."""
    import requests
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{service.url}/schema.json")
    cases = schema[route]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode(mode))
    session, seen = requests.Session(), Counter()
    count = BY_SCHEMA if mode == "negative" else BY_SCHEMA // 10

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases)
    def send(case: schemathesis.Case) -> None:
        answer = case.call(session=session)
        seen[answer.status_code] += 1
        assert answer.status_code < 500, (case.body, answer.text)
        if mode == "negative":
            assert answer.status_code >= 400, (case.body, answer.text)

    send()
    assert sum(seen.values()) >= count * 0.9, seen
    assert set(seen) <= {200, 404, 413, 415, 422}
