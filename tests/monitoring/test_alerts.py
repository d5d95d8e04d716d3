"""Alerts: told once when they begin and once when they are over, over real sockets; what could not be told is told later."""

import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path
from typing import Any, get_args

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from lepton_platform.cli.main import app
from lepton_platform.monitoring.alerts import MACHINE, Alerts, Kind
from lepton_platform.monitoring.channels import Channel, Email, Log, Webhook, channels
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from tests.hooks import Hook, hooked
from tests.workspaces import free_port


@dataclass
class Heard:
    """A channel of the test's own; ``deaf``: what is sent does not arrive."""

    texts: list[str] = field(default_factory=list)
    deaf: bool = False
    name: str = "heard"

    @property
    def words(self) -> list[str]:
        return [text.splitlines()[0] for text in self.texts]

    def send(self, words: str) -> None:
        if self.deaf:
            raise ConnectionError("nobody is there")
        self.texts.append(words)


def alerts(folder: Path, *told: Channel, **more: str) -> Alerts:
    """That tell an end at once."""
    return Alerts(Settings(workspace=folder, **more), list(told) if told else None, {})


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


STAYS = timedelta(minutes=10)


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=30))
@settings(deadline=None, max_examples=40)
def test_what_comes_and_goes_is_one_alert_until_it_stays_away(tmp_path_factory, steps) -> None:
    """``steps``: minutes until the next look, and whether it is so then. In between somebody delivers each minute."""
    heard, now = Heard(), datetime.now(UTC)
    book = Alerts(Settings(workspace=tmp_path_factory.mktemp("alerts")), [heard], {"errors": STAYS})
    expected: list[str] = []
    open_, over_at, minute = False, None, 0
    for pause, wrong in steps:
        for _ in range(pause):
            minute += 1
            book.deliver(now + timedelta(minutes=minute))
            if over_at is not None and minute - over_at >= 10:
                expected.append("[resolved]")
                open_, over_at = False, None
        (book.raised if wrong else book.cleared)("trees", "errors", "it", now + timedelta(minutes=minute))
        if wrong and not open_:
            expected.append("[alert]")
        over_at = minute if not wrong and open_ and over_at is None else None if wrong else over_at
        open_ = open_ or wrong
    assert [words.split(" ")[0] for words in heard.words] == expected
    assert len(book.of("trees")) == expected.count("[alert]")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_who_is_woken_is_told_where_to_look_and_what_to_do(tmp_path: Path, kind: Kind) -> None:
    heard = Heard()
    book = Alerts(Settings(workspace=tmp_path, service_port=3111), [heard], {})
    for task in ("trees", MACHINE):
        book.raised(task, kind, "It is so.", datetime.now(UTC) - timedelta(minutes=12))
        _, first, link = heard.texts[-1].splitlines()
        assert link == "http://127.0.0.1:3111/overview" and first.endswith(".") and "{" not in first
        named = re.findall(r"`lepton (\w+)", first)
        assert set(named) <= set(get_command(app).commands), named  # pyright: ignore[reportAttributeAccessIssue]
        book.cleared(task, kind, "It is over.")
        assert heard.texts[-1].splitlines()[1:] == ["It lasted 12 min, and began with: It is so."]
    elsewhere = Alerts(Settings(workspace=tmp_path, alert_link="https://models.example.org"), [heard], {})
    elsewhere.raised("digits", kind, "It is so.")
    assert heard.texts[-1].splitlines()[-1] == "https://models.example.org/overview"


def test_processes_that_see_it_at_once_open_one(tmp_path: Path) -> None:
    heard = Heard()
    alerts(tmp_path, heard)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: alerts(tmp_path, Heard()).raised("prompts", "drift", "music"), range(16)))
    [found] = alerts(tmp_path, heard).of("prompts")
    assert found.seen == 16 and found.resolved_at is None


@pytest.fixture
def hook() -> Iterator[Hook]:
    with hooked() as found:
        yield found


class Post:
    """A mail server's handler that keeps what it takes; ``full``: it says that it cannot just now."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.passwords: list[str] = []
        self.full = False

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        if self.full:
            return "452 Requested action not taken: insufficient system storage"
        assert session.host_name
        self.encrypted = session.ssl is not None
        self.taken.append(message_from_bytes(envelope.content, policy=default_policy))  # pyright: ignore[reportArgumentType]
        self.to.append(envelope.rcpt_tos)
        return "250 OK"


@contextmanager
def posted(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, Post]]:
    """A mail server that wants to know who sends; → its address without user, and what it took."""

    def known(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        post.passwords.append(given.password.decode())
        return AuthResult(success=(given.login, given.password) == (b"lepton", b"p@ss"))

    post = Post()
    options: dict[str, Any] = {
        "authenticator": known,
        "auth_required": tls is None,
        "auth_require_tls": tls is not None,
    }
    controller = Controller(post, hostname=host, port=free_port(), tls_context=tls, **options)
    controller.start()
    yield f"{host}:{controller.port}", post
    controller.stop()


@pytest.fixture
def mail() -> Iterator[tuple[str, Post]]:
    with posted() as (server, post):
        yield f"smtp://lepton:p%40ss@{server}", post


def test_webhook_and_mail_are_told_by_the_settings(tmp_path: Path, hook: Hook, mail, caplog) -> None:
    server, post = mail
    people = "ops@example.org, ml@example.org"
    more = {"alert_email": people, "smtp_url": server, "alert_sender": "lepton@example.org"}
    book = alerts(tmp_path, alert_webhook=hook.url, **more)
    for _ in range(2):
        book.raised("sentiment", "drift", "Reviews have become e-mails.")
    assert hook.words == ["[alert] sentiment: drift. Reviews have become e-mails."]
    [message] = post.taken
    assert message["Subject"] == "[alert] sentiment: drift" and message["From"] == "lepton@example.org"
    assert (
        post.to == [["ops@example.org", "ml@example.org"]] and "Reviews have become e-mails." in message.get_content()
    )
    assert caplog.text.count("[alert] sentiment: drift") == 1
    [found] = book.open()
    assert found.told_opened == ["log", "webhook", "email"]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_begins_and_ends_once_wherever_it_is_told(tmp_path: Path, hook: Hook, mail, kind: Kind) -> None:
    server, post = mail
    book = alerts(tmp_path, alert_webhook=hook.url, alert_email="ops@example.org", smtp_url=server)
    for _ in range(3):
        book.raised("trees", kind, "It is so.")
    for _ in range(3):
        book.cleared("trees", kind, "It is over.")
    book.deliver()
    assert hook.words == [f"[alert] trees: {kind}. It is so.", f"[resolved] trees: {kind}. It is over."]
    assert [m["Subject"] for m in post.taken] == [f"[alert] trees: {kind}", f"[resolved] trees: {kind}"]


def test_servers_that_refuse_are_asked_again_and_lose_nothing(tmp_path: Path, hook: Hook, mail) -> None:
    server, post = mail
    book = alerts(tmp_path, alert_webhook=hook.url, alert_email="ops@example.org", smtp_url=server)
    hook.status, post.full = 503, True
    book.raised("trees", "drift", "Fog.")
    book.raised("digits", "errors", "Ink.")
    book.cleared("trees", "drift", "Sun.")
    assert hook.words == [] and post.taken == [] and [alert.told_opened for alert in book.open()] == [["log"]]
    hook.status = 200
    book.deliver()
    everything = ["[alert] trees: drift. Fog.", "[resolved] trees: drift. Sun.", "[alert] digits: errors. Ink."]
    assert hook.words == everything and post.taken == []
    post.full = False
    for _ in range(2):
        alerts(tmp_path, alert_webhook=hook.url, alert_email="ops@example.org", smtp_url=server).deliver()
    assert hook.words == everything
    assert [message.get_content().splitlines()[0] for message in post.taken] == everything


def test_a_channel_that_is_new_hears_what_is_open_and_no_old_stories(tmp_path: Path) -> None:
    then = datetime.now(UTC) - timedelta(days=3)
    book = alerts(tmp_path, Heard(name="first"))
    book.raised("trees", "drift", "fog", then)
    book.cleared("trees", "drift", "sun", then + timedelta(days=1))
    book.raised("digits", "drift", "ink", then)
    late = Heard(name="late")
    alerts(tmp_path, late).deliver()
    assert late.words == ["[alert] digits: drift. ink"]


def test_of_many_who_tell_at_once_one_does(tmp_path: Path, hook: Hook) -> None:
    """The gateway's watch, Dagster's run, the supervisor: each has channels of its own to the same people."""
    alerts(tmp_path, Heard(deaf=True)).raised("prompts", "drift", "music")
    hook.slow_s = 0.1
    with ThreadPoolExecutor(8) as pool:
        books = [alerts(tmp_path, Webhook(hook.url)) for _ in range(8)]
        list(pool.map(lambda book: book.deliver(), books))
        list(pool.map(lambda book: book.cleared("prompts", "drift", "speech"), books))
    books[0].deliver()
    assert hook.words == ["[alert] prompts: drift. music", "[resolved] prompts: drift. speech"]


DIES = """
import os, signal, sys
from lepton_platform.cli.main import app
from lepton_platform.monitoring.alerts import MACHINE, Alerts, Kind
from lepton_platform.settings import Settings

class Dies:
    name = "heard"
    def send(self, words):
        os.kill(os.getpid(), signal.SIGKILL)

Alerts(Settings(workspace=sys.argv[1]), [Dies()]).raised("trees", "drift", "fog")
"""


def test_what_a_killed_process_was_about_to_tell_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    heard = Heard()
    book = alerts(tmp_path, heard)
    book.deliver()
    assert heard.words == []  # it might be about to tell it still
    monkeypatch.setattr("lepton_platform.monitoring.alerts.CLAIMED", timedelta(0))
    book.deliver()
    book.deliver()
    assert heard.words == ["[alert] trees: drift. fog"]


@pytest.fixture
def unknown(tmp_path: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody else knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.example.org")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "server.pem"
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_a_password_is_sent_to_nobody_who_could_be_anybody(unknown: ssl.SSLContext) -> None:
    elsewhere = "127.0.0.2"  # stands for another machine
    for tls, why in ((unknown, "certificate"), (None, "offers no TLS")):
        with posted(elsewhere, tls) as (server, post):
            with pytest.raises(OSError, match=why):
                Email(f"smtp://lepton:p%40ss@{server}", ("a@example.org",), "b@example.org").send("[alert] x. y")
            assert post.passwords == [] and post.taken == []
    with posted(elsewhere, unknown) as (server, post):  # without a password TLS is better than none
        Email(f"smtp://{server}", ("a@example.org",), "b@example.org").send("[alert] x. y")
        assert len(post.taken) == 1 and post.encrypted


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
