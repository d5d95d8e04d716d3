"""Where alerts go: the log, a webhook that takes what Slack takes, e-mail. Chosen by the settings."""

import json
import logging
import smtplib
import ssl
import urllib.request
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import unquote, urlsplit

from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

TIMEOUT_S = 10.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
logger = logging.getLogger("lepton.alerts")


class Channel(Protocol):
    """``name`` is written down where it has been told: it must stay the same. ``send`` raises where it could not.

    What is sent is a line that says it all, and lines on what to do.
    """

    @property
    def name(self) -> str: ...

    def send(self, words: str) -> None: ...


@dataclass(frozen=True)
class Log:
    name: str = "log"

    def send(self, words: str) -> None:
        logger.warning("%s", words.replace("\n", " "))  # one line an event


@dataclass(frozen=True)
class Webhook:
    """``{"text": …}`` by POST: Slack's incoming webhooks, Mattermost's, Rocket.Chat's."""

    url: str
    name: str = "webhook"

    def send(self, words: str) -> None:
        request = urllib.request.Request(
            self.url, json.dumps({"text": words}).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return


@dataclass(frozen=True)
class Email:
    """``server``: smtp://user:password@host:port (STARTTLS where it is offered) or smtps://…, TLS from the start.

    A password goes over TLS only, to a server whose certificate is good for its name, or to this machine itself.
    """

    server: str
    to: tuple[str, ...]
    sender: str
    name: str = "email"

    def send(self, words: str) -> None:
        message = EmailMessage()
        message["Subject"], _, _ = words.partition(". ")
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message.set_content(words + "\n")
        where = urlsplit(self.server)
        host = where.hostname or ""
        careful, context = bool(where.username) and host not in LOOPBACK, ssl.create_default_context()
        if not careful:  # a relay in the house seldom has a certificate that others know
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with _connected(where.scheme, host, where.port, context) as server:
            server.ehlo()
            if where.scheme == "smtp" and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
            if where.username:
                if careful and not isinstance(server.sock, ssl.SSLSocket):
                    raise ConnectionError(f"{host} offers no TLS, and the password is not sent without")
                server.login(unquote(where.username), unquote(where.password or ""))
            server.send_message(message)


def _connected(scheme: str, host: str, port: int | None, context: ssl.SSLContext) -> smtplib.SMTP:
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_S, context=context)
    return smtplib.SMTP(host, port or 25, timeout=TIMEOUT_S)


def channels(settings: Settings) -> list[Channel]:
    """The log, and what the settings name. ``StageFailed`` where a setting cannot be used."""
    found: list[Channel] = [Log()]
    if settings.alert_webhook:
        if urlsplit(settings.alert_webhook).scheme not in ("http", "https"):
            raise StageFailed("LEPTON_ALERT_WEBHOOK is an address that begins with https:// or http://.")
        found.append(Webhook(settings.alert_webhook))
    if settings.alert_email:
        if urlsplit(settings.smtp_url).scheme not in ("smtp", "smtps"):
            raise StageFailed(
                "LEPTON_ALERT_EMAIL needs LEPTON_SMTP_URL: smtp://host:port or smtps://user:password@host."
            )
        to = tuple(part.strip() for part in settings.alert_email.split(",") if part.strip())
        found.append(Email(settings.smtp_url, to, settings.alert_sender or to[0]))
    return found
