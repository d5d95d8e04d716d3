"""Services that have something to tell: two tasks, a canary, labels, drift, an alert, a request; and keys are asked for."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import sqlalchemy as sa

from lepton_platform.database import engine
from lepton_platform.gateway.keys import Keys
from lepton_platform.gateway.samples import Samples
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.monitoring.drift import DriftResult, SignalDrift
from lepton_platform.monitoring.quality import ServedQuality
from lepton_platform.monitoring.quality_book import QualityBook
from lepton_platform.monitoring.retraining import RetrainBook
from lepton_platform.monitoring.words import Counts
from tests.gateway.conftest import Serving, new_settings, offer, serve
from tests.loop.traffic import TRAFFIC
from tests.serving.conftest import make_bento

WHY = "Drift in 1 of 2 signals: length 0.42 (limit 0.10)."
SIGNALS = (
    SignalDrift("length", "wasserstein", 0.42, 0.1, 0.05, True, 312),
    SignalDrift("score", "wasserstein", 0.031, 0.12, 0.12, False, 4_000),
)
QUALITY = ServedQuality(
    "passed", "As good as tested: accuracy 0.840.", "sentiment:1", "2026-11-25T09:00:00+00:00", "accuracy",
    Counts(labelled=120), 120, 0, 0.84, 0.77, 0.9, 0.85, 0.83,
)  # fmt: skip
ASKED, RIGHT = 24, 18


@dataclass
class Seen:
    """Services that ask for keys: two tasks, of one a canary; labels, drift, an alert and a request of it."""

    serving: Serving
    admin: dict[str, str]
    user: dict[str, str]
    secret: str

    def get(self, path: str, key: dict[str, str] | None = None) -> httpx.Response:
        return self.serving.client.get(f"{self.serving.url}{path}", headers=self.admin if key is None else key)


@contextmanager
def overseen(bentos: dict[str, Path], frozen: Path, folder: Path) -> Iterator[Seen]:
    settings = new_settings(folder / "workspace", ("sentiment", "digits"), auth="on")
    for task in ("sentiment", "digits"):
        offer(settings, task, bentos[task])
    offer(settings, "sentiment", make_bento(folder / "other", max_batch=3), frozen, steps=(50,), every_s=3600)
    keys = Keys(settings)
    secret, user = (
        keys.create(name, scopes)[1] for name, scopes in (("ops", ("admin",)), ("x", ("predict", "feedback")))
    )
    with serve(settings) as running:
        made = Seen(running, {"X-API-Key": secret}, {"X-API-Key": user}, secret)
        write_down(made)
        ask(made)
        settle(made)
        yield made


def write_down(seen: Seen) -> None:
    """What a failing drift check leaves."""
    settings, at = seen.serving.settings, datetime.now(UTC)
    out = settings.path("reports", "sentiment", "drift")
    out.mkdir(parents=True)
    found = DriftResult("failed", WHY, 4_000, 312, 2_000, 1_900, 0.5, SIGNALS)
    (out / "result.json").write_text(json.dumps(found.as_dict()), "utf-8")
    QualityBook(settings).write("sentiment", QUALITY)
    Alerts(settings, []).raised("sentiment", "drift", WHY)
    RetrainBook(settings)  # makes the table, to which the sensor would have written this
    row = {
        "id": "sentiment-1",
        "task": "sentiment",
        "reason": WHY,
        "requested_at": at.isoformat(),
        "state": "requested",
    }
    with engine(settings.database_url).begin() as connection:
        names = ", ".join(row)
        connection.execute(sa.text(f"INSERT INTO retrain_request ({names}) VALUES (:{', :'.join(row)})"), row)


def ask(seen: Seen) -> None:
    """Requests that are answered, one that is refused, labels of which a quarter say that it was wrong."""
    client, url, told = seen.serving.client, seen.serving.url, []
    for number in range(ASKED):
        given = {"texts": ["good film"]}
        answer = client.post(f"{url}/v1/sentiment/predict", json=given, headers=seen.user)
        [found] = answer.raise_for_status().json()["predictions"]
        right, wrong = found["label"], {"fresh": "rotten", "rotten": "fresh"}[found["label"]]
        told.append({"id": found["id"], "label": right if number < RIGHT else wrong})
    client.post(f"{url}/v1/sentiment/feedback", json={"feedback": told}, headers=seen.user).raise_for_status()
    assert client.post(f"{url}/v1/sentiment/predict", json={"texts": []}, headers=seen.user).status_code == 422
    picture = {"images": ("digit.png", TRAFFIC["digits"].example)}
    client.post(f"{url}/v1/digits/predict", files=picture, headers=seen.user).raise_for_status()


def settle(seen: Seen) -> None:
    """Until the answers that are only compared, which come behind the others, have been counted."""
    before, counted = -1.0, 0.0
    while before != counted:
        before = counted
        time.sleep(0.5)
        counted = Samples.of([({}, seen.get("/metrics").text)]).sum(
            "lepton_requests_total", route="/predict (mirrored)"
        )
