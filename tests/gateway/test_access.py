"""Who passes, who does not, how often; and that no log tells a key."""

import hmac
import io
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lepton_platform.gateway import access as module
from lepton_platform.gateway.access import Access, Redacting, challenge, loopback, redact, redact_logs
from lepton_platform.gateway.keys import Key, Keys, new_secret
from lepton_platform.gateway.limits import MOST_RATE, WRONG_BURST, Bucket, Wrongs
from lepton_platform.serving.rejected import Rejected
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

SECOND_NS = 10**9


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(Settings(workspace=tmp_path_factory.mktemp("keys")))


@pytest.fixture(scope="module")
def shop(keys: Keys) -> str:
    """A key with the scopes predict and feedback."""
    return keys.create("shop", ["predict", "feedback"])[1]


@pytest.fixture
def access(keys: Keys, shop: str) -> Iterator[Access]:
    with Access(keys) as opened:
        yield opened


def bearer(secret: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), (b"authorization", f"Bearer {secret}".encode())]


def x_api_key(secret: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-api-key", secret.encode())]


def refused(access: Access, headers, scope=None, address: str | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        access.check(headers, scope, address)
    return caught.value


def until(true: Callable[[], bool], within_s: float) -> float:
    """Seconds until it was."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s
        time.sleep(0.02)
    return time.monotonic() - began


def passes(access: Access, secret: str) -> bool:
    try:
        access.check(bearer(secret), None, "elsewhere")
    except Rejected:
        return False
    return True


# --- a bucket


@given(
    rate=st.integers(1, 10**6),
    burst=st.integers(1, 30),
    steps=st.lists(st.integers(0, 90 * SECOND_NS) | st.integers(0, 2000), max_size=80),
)
def test_no_window_has_more_than_the_burst_and_the_rate(rate, burst, steps):
    bucket, now, taken = Bucket(rate, burst), 0, []
    for step in steps:
        now += step
        if bucket.take(now) == 0:
            taken.append(now)
    for first, since in enumerate(taken):
        for last in range(first, len(taken)):
            assert (last - first + 1 - burst) * 60 * SECOND_NS <= rate * (taken[last] - since)


@given(rate=st.integers(1, MOST_RATE), burst=st.integers(1, 30), asked=st.integers(0, 100), at=st.integers(0, 10**18))
def test_who_waits_as_long_as_told_is_served(rate, burst, asked, at):
    bucket = Bucket(rate, burst)
    waits = [bucket.take(at) for _ in range(burst + asked)]  # to ask in vain makes nothing later
    assert waits[:burst] == [0] * burst and len(set(waits[burst:])) <= 1
    wait = bucket.take(at)
    assert wait > 0 and bucket.take(at + wait - 1) == 1 and bucket.take(at + wait) == 0


@given(rate=st.integers(1, 6000), burst=st.integers(1, 30))
def test_who_keeps_to_the_rate_always_passes(rate, burst):
    bucket, gap = Bucket(rate, burst), -(-60 * SECOND_NS // rate)
    assert all(bucket.take(number * gap) == 0 for number in range(burst + 50))


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (MOST_RATE + 1, 1)])
def test_a_bucket_without_water_is_none(rate, burst):
    with pytest.raises(ValueError):
        Bucket(rate, burst)


def test_addresses_are_forgotten_before_they_fill_the_memory():
    wrongs = Wrongs(rate_per_minute=1, burst=1, most=100)
    for number in range(1000):
        assert wrongs.take(f"10.0.{number // 256}.{number % 256}", number) == 0
    assert len(wrongs) == 100 and wrongs.take("10.0.3.231", 1000) > 0  # the latest is known
    assert wrongs.take("10.0.0.1", 1000) == 0


def test_an_ipv6_network_is_one_address():
    wrongs = Wrongs(rate_per_minute=1, burst=1)
    assert wrongs.take("2001:db8:1:2::1", 0) == 0 and wrongs.take("2001:db8:1:2:ffff::9", 0) > 0
    assert wrongs.take("2001:db8:1:3::1", 0) == 0
    assert wrongs.take("::ffff:10.0.0.1", 0) == 0 and wrongs.take("10.0.0.1", 0) > 0
    assert wrongs.take(None, 0) == 0 and wrongs.take("", 0) > 0 and wrongs.take("somewhere", 0) == 0


# --- which headers


def test_a_key_passes_in_either_header_and_in_both(access, shop):
    plain = access.check(bearer(shop), "predict")
    assert plain.name == "shop"
    for headers in (
        x_api_key(shop),
        bearer(shop) + x_api_key(shop),
        bearer(shop) + bearer(shop),
        [(b"AUTHORIZATION", f" bEARER   {shop}\t".encode())],
    ):
        assert access.check(headers, "feedback") == plain


def test_without_a_key_one_is_asked_for(access):
    for headers in ([], [(b"cookie", b"key=1")]):
        error = refused(access, headers, "predict")
        assert (error.status, error.field, challenge(error)) == (401, None, {"WWW-Authenticate": "Bearer"})
        assert "Authorization: Bearer lep_…" in error.message


def test_what_is_no_key_is_told(access, shop, keys):
    typo = shop[:20] + ("a" if shop[20] != "a" else "b") + shop[21:]
    other = keys.create(f"other-{time.monotonic_ns()}")[1]
    cases = {
        "Authorization": [
            [(b"authorization", shop.encode())],
            [(b"authorization", b"Basic " + shop.encode())],
            [(b"authorization", b"Bearer")],
            [(b"authorization", f"Bearer {shop}, Bearer {shop}".encode())],
            [(b"authorization", f"Bearer {shop}\n".encode())],
            bearer("lep_"),
            bearer(typo),
            [*bearer(shop), (b"authorization", b"")],
        ],
        "X-API-Key": [x_api_key(""), x_api_key(f"Bearer {shop}"), x_api_key(typo), bearer(shop) + x_api_key(other)],
    }
    for number, (field, headers) in enumerate((f, h) for f, several in cases.items() for h in several):
        error = refused(access, headers, "predict", f"10.1.0.{number}")
        assert (error.status, error.field) == (401, field), headers
        assert shop[:12] not in error.message and other[:12] not in error.message
    assert "copied" in refused(access, bearer(typo)).message


def test_a_key_in_the_address_is_none(access, shop):
    assert refused(access, [(b":path", f"/v1?key={shop}".encode()), (b"referer", shop.encode())]).status == 401


values = st.binary(max_size=80) | st.sampled_from([b"Bearer ", b"Bearer lep_", b"Basic YTpi", b"lep_" + b"0" * 49])
names = st.sampled_from([b"authorization", b"x-api-key", b"Authorization", b"cookie"]) | st.binary(max_size=20)


@given(data=st.data())
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_headers_are_a_key_or_a_refusal(access, shop, data):
    known = st.sampled_from([shop, new_secret(), shop[:-1], shop.swapcase()])
    shaped = known.map(lambda secret: b"Bearer " + secret.encode()) | known.map(str.encode)
    headers = data.draw(st.lists(st.tuples(names, values | shaped), max_size=4))
    address = data.draw(st.none() | st.text(max_size=50) | st.ip_addresses().map(str))
    scope = data.draw(st.sampled_from([None, "predict", "admin"]))
    try:
        found = access.check(headers, scope, address)
    except Rejected as error:
        assert error.status in {401, 403, 429} and shop not in error.message
        assert (error.status == 429) == (error.retry_after_s is not None)
    else:
        assert isinstance(found, Key) and found.name == "shop" and scope != "admin"
        assert any(shop.encode() in value for _, value in headers)


# --- which keys


def test_a_scope_opens_its_own_routes_only(access, keys, shop):
    error = refused(access, bearer(shop), "admin")
    assert error.status == 403 and "scope admin" in error.message and challenge(error) == {}
    ruler = keys.create(f"ruler-{time.monotonic_ns()}", ["admin"])[1]
    until(lambda: passes(access, ruler), 2)
    assert access.check(bearer(ruler), "admin") and refused(access, bearer(ruler), "predict").status == 403


def test_a_key_that_nobody_made_is_unknown_by_the_same_comparison(access, shop, monkeypatch):
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    stranger = new_secret()
    snapshot = access._snapshot
    monkeypatch.setattr(module.hmac, "compare_digest", spy)
    assert stranger[:10].encode() not in snapshot.by_prefix
    assert refused(access, bearer(stranger)).status == 401
    unknown, compared[:] = list(compared), []
    twin = {**snapshot.by_prefix, stranger[:10].encode(): snapshot.by_prefix[shop[:10].encode()]}
    monkeypatch.setattr(access, "_snapshot", replace(snapshot, by_prefix=twin))
    assert refused(access, bearer(stranger)).status == 401  # begins as a known key does
    same_beginning, compared[:] = list(compared), []
    access.check(bearer(shop))
    assert unknown == same_beginning == compared == [(32, 32)]


def test_new_and_revoked_keys_are_seen_within_two_seconds(access, keys):
    name = f"brief-{time.monotonic_ns()}"
    secret = keys.create(name)[1]
    until(lambda: passes(access, secret), 2)
    keys.revoke(name)
    took = until(lambda: not passes(access, secret), 2)
    error = refused(access, bearer(secret))
    assert took < 2 and error.status == 401 and f"'{name}' was revoked" in error.message


def test_an_expired_key_is_refused_at_that_moment(keys):
    secret = keys.create(f"short-{time.monotonic_ns()}", lifetime=timedelta(seconds=1))[1]
    with Access(keys) as access:
        assert access.check(bearer(secret))
        time.sleep(1.01)
        assert "expired at" in refused(access, bearer(secret)).message
    assert [key.state for key in keys.all() if secret.startswith(key.prefix)] == ["expired"]


def test_a_rate_holds_across_readings(keys, monkeypatch):
    monkeypatch.setattr(module, "REREAD_S", 0.01)
    secret = keys.create(f"slow-{time.monotonic_ns()}", rate_per_minute=6, burst=3)[1]
    with Access(keys) as access:
        for _ in range(3):
            assert access.check(bearer(secret), "predict")
            time.sleep(0.03)
        error = refused(access, bearer(secret), "predict")
    assert error.status == 429 and error.retry_after_s in {9, 10} and "6 times a minute" in error.message


def test_guessing_is_slow_and_shuts_nobody_else_out(access, shop):
    statuses = [refused(access, bearer(new_secret()), "predict", "10.9.9.9").status for _ in range(40)]
    assert statuses == [401] * WRONG_BURST + [429] * (40 - WRONG_BURST)
    assert refused(access, bearer(new_secret()), None, "10.9.9.9").retry_after_s in range(1, 7)
    assert refused(access, bearer(new_secret()), None, "10.9.9.8").status == 401
    assert access.check(bearer(shop), "predict", "10.9.9.9")
    assert refused(access, [], "predict", "10.9.9.9").status == 401  # no key is no guess


def test_the_last_use_is_noted_behind_the_requests(keys, monkeypatch):
    name = f"used-{time.monotonic_ns()}"
    secret = keys.create(name)[1]

    def noted() -> str | None:
        return next(key.last_used_at for key in keys.all() if key.name == name)

    with Access(keys) as access:
        access.check(bearer(secret))
        assert noted() is None
    first = noted()
    assert first is not None
    monkeypatch.setattr(module, "NOTE_S", 0.05)
    with Access(keys) as access:
        access.check(bearer(secret))
        until(lambda: noted() != first, 5)


def test_while_the_database_is_away_what_was_known_holds(keys, shop, monkeypatch, caplog):
    monkeypatch.setattr(module, "REREAD_S", 0.01)
    read = keys.version

    def away():
        raise OSError("the database is away")

    with Access(keys) as access:
        monkeypatch.setattr(keys, "version", away)
        until(lambda: "database is away" in caplog.text, 5)
        time.sleep(0.1)
        assert access.check(bearer(shop)) and caplog.text.count("database is away") == 1
        monkeypatch.setattr(module, "MOST_STALE_S", 0.0)
        error = refused(access, bearer(shop))
        assert error.status == 503 and error.retry_after_s
        monkeypatch.setattr(keys, "version", read)
        monkeypatch.setattr(module, "MOST_STALE_S", 300.0)
        with caplog.at_level(logging.INFO, "lepton.gateway"):
            until(lambda: "read again" in caplog.text, 5)


def test_a_writer_that_locks_the_database_delays_no_revocation(keys, shop, monkeypatch):
    for name, seconds in {"REREAD_S": 0.01, "NOTE_S": 0.01, "STOP_S": 0.1}.items():
        monkeypatch.setattr(module, name, seconds)
    with keys._engine.connect() as writer, Access(keys) as access:
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        access.check(bearer(shop))
        time.sleep(0.1)  # the last use waits to be written
        last = access._snapshot.read_s
        until(lambda: access._snapshot.read_s > last, 1)
        writer.rollback()


# --- off


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_on_this_machine_alone_keys_may_be_off(host):
    assert loopback(host)
    with Access.off(host) as access:
        assert not access.authentication and access.check([], "admin").name == "anyone"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "128.0.0.1", "localhost.example", "127.1", "::2"])
def test_elsewhere_they_may_not(host):
    with pytest.raises(StageFailed, match="lepton keys create"):
        Access.off(host)


# --- logs


@pytest.fixture
def written() -> Iterator[Callable[[], str]]:
    """What a root handler wrote, of records of any logger below it."""
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(peer)s", defaults={"peer": ""}))
    root.addHandler(handler)
    redact_logs()
    redact_logs()
    assert len(handler.filters) == 1
    yield stream.getvalue
    root.removeHandler(handler)
    for other in root.handlers:
        for known in [f for f in other.filters if isinstance(f, Redacting)]:
            other.removeFilter(known)


def test_a_log_tells_no_key(written, shop, capfd):
    log = logging.getLogger("uvicorn.error.somewhere")
    log.warning("GET /v1?key=%s", shop)
    log.warning(f"100 % of {shop}")
    log.warning("headers: %s", {b"x-api-key": shop.encode()})
    log.warning("peer", extra={"peer": f"lep%5F{shop[4:]}"})
    log.warning("two %s", shop, shop)  # logging would print these arguments to standard error
    try:
        raise RuntimeError(f"no such thing as {shop}")
    except RuntimeError:
        log.exception("failed")
    log.warning("nothing to hide: %d of %s", 3, "lepton_requests")
    said = written()
    assert shop[4:12] not in said and said.count("lep_…") == 7
    assert shop[4:12] not in capfd.readouterr().err
    assert "RuntimeError: no such thing as lep_…" in said and "Traceback" in said
    assert "nothing to hide: 3 of lepton_requests" in said and "100 % of lep_…" in said


@given(before=st.text(), after=st.text())
def test_nothing_around_a_key_hides_it(before, after):
    secret = new_secret()
    assert secret[4:20] not in redact(before + secret + after)


def test_a_check_is_quick(access, shop):
    """Not a measurement: 200 µs would be something slow, such as the database, on the way of a request."""
    headers = [(f"header-{n}".encode(), b"value") for n in range(10)] + bearer(shop)
    best = min(_seconds(access, headers) for _ in range(5))
    assert best < 200e-6


def _seconds(access: Access, headers) -> float:
    began = time.perf_counter()
    for _ in range(500):
        access.check(headers, "predict", "10.0.0.1")
    return (time.perf_counter() - began) / 500
