"""Alerts: told once when they begin and once when they are over, over real sockets; what could not be told is told later."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.monitoring.channels import Channel, Email, Log, Webhook, channels
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed


@dataclass
class Heard:
    """A channel of the test's own; ``deaf``: what is sent does not arrive."""

    words: list[str] = field(default_factory=list)
    deaf: bool = False
    name: str = "heard"

    def send(self, words: str) -> None:
        if self.deaf:
            raise ConnectionError("nobody is there")
        self.words.append(words)


def alerts(folder: Path, *told: Channel, **more: str) -> Alerts:
    return Alerts(Settings(workspace=folder, **more), list(told) if told else None)


def test_what_is_seen_again_is_counted_and_not_told(tmp_path: Path) -> None:
    heard = Heard()
    book = alerts(tmp_path, heard)
    assert not book.cleared("trees", "drift", "nothing was wrong")
    for _ in range(3):
        book.raised("trees", "drift", "brightness has moved")
    assert book.cleared("trees", "drift", "it is as it was")
    assert not book.cleared("trees", "drift", "again")
    book.raised("trees", "drift", "fog")
    assert heard.words == [
        "[alert] trees: drift. brightness has moved",
        "[resolved] trees: drift. it is as it was",
        "[alert] trees: drift. fog",
    ]
    later, first = book.of("trees")
    assert (first.seen, first.resolved_why, later.resolved_at) == (3, "it is as it was", None)
    assert [alert.id for alert in book.open()] == [later.id]


def test_what_could_not_be_told_is_told_with_the_next_word(tmp_path: Path) -> None:
    deaf, heard = Heard(deaf=True, name="deaf"), Heard()
    book = alerts(tmp_path, deaf, heard)
    book.raised("digits", "drift", "ink")
    book.cleared("digits", "drift", "paper")
    assert not deaf.words and len(heard.words) == 2
    deaf.deaf = False
    alerts(tmp_path, deaf, heard).deliver()  # another process, after a restart
    assert deaf.words == heard.words and len(heard.words) == 2


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.booleans()), max_size=30))
@settings(deadline=None, max_examples=40)
def test_every_beginning_and_every_end_is_told_exactly_once(tmp_path_factory, steps) -> None:
    heard = Heard()
    book = alerts(tmp_path_factory.mktemp("alerts"), heard)
    wrong, begun, over = dict.fromkeys("ab", False), 0, 0
    for task, now, deaf in steps:
        heard.deaf = deaf
        (book.raised if now else book.cleared)(task, "drift", "it")
        begun += now and not wrong[task]
        over += wrong[task] and not now
        wrong[task] = now
    heard.deaf = False
    book.deliver()
    assert len(heard.words) == begun + over
    assert sum(words.startswith("[alert]") for words in heard.words) == begun
    assert {alert.task for alert in book.open()} == {task for task, is_wrong in wrong.items() if is_wrong}


def test_processes_that_see_it_at_once_open_one(tmp_path: Path) -> None:
    heard = Heard()
    alerts(tmp_path, heard)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: alerts(tmp_path, Heard()).raised("prompts", "drift", "music"), range(16)))
    [found] = alerts(tmp_path, heard).of("prompts")
    assert found.seen == 16 and found.resolved_at is None


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict]]]:
    """A server that notes what is posted to it."""
    posted: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/services/T0/B0/x", posted
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mail() -> Iterator[tuple[str, list[str]]]:
    """A server that takes mail (RFC 5321, as far as one sender needs it)."""
    taken: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            verb = line.decode().upper()
            if verb.startswith("DATA"):
                writer.write(b"354 go on\r\n")
                taken.append((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"221 bye\r\n" if verb.startswith("QUIT") else b"250 ok\r\n")
            await writer.drain()
            if verb.startswith("QUIT"):
                break
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(talk, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_webhook_and_mail_are_told_by_the_settings(tmp_path: Path, hook, mail, caplog) -> None:
    (url, posted), (server, taken) = hook, mail
    people = "ops@example.org, ml@example.org"
    book = alerts(tmp_path, alert_webhook=url, alert_email=people, smtp_url=server, alert_sender="lepton@example.org")
    book.raised("sentiment", "drift", "Reviews have become e-mails.")
    book.raised("sentiment", "drift", "Reviews have become e-mails.")
    assert posted == [{"text": "[alert] sentiment: drift. Reviews have become e-mails."}]
    [message] = taken
    assert "Subject: [alert] sentiment: drift" in message and "To: ops@example.org, ml@example.org" in message
    assert "From: lepton@example.org" in message and "Reviews have become e-mails." in message
    assert caplog.text.count("[alert] sentiment: drift") == 1
    [found] = book.open()
    assert found.told_opened == ["log", "webhook", "email"]


def test_a_server_that_is_away_stops_nothing(tmp_path: Path) -> None:
    book = alerts(tmp_path, alert_webhook="http://127.0.0.1:9/x")
    assert book.raised("trees", "drift", "dusk").told_opened == ["log"]


def test_settings_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    assert channels(Settings(workspace=tmp_path)) == [Log()]
    with pytest.raises(StageFailed, match="LEPTON_ALERT_WEBHOOK"):
        channels(Settings(workspace=tmp_path, alert_webhook="ftp://x"))
    with pytest.raises(StageFailed, match="LEPTON_SMTP_URL"):
        channels(Settings(workspace=tmp_path, alert_email="a@example.org"))
    more = {"alert_webhook": "https://x.example/y", "alert_email": "a@example.org", "smtp_url": "smtps://u:p@h"}
    found = channels(Settings(workspace=tmp_path, **more))
    assert found[1:] == [Webhook("https://x.example/y"), Email("smtps://u:p@h", ("a@example.org",), "a@example.org")]
