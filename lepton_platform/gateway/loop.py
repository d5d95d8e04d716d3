"""The state of the loop, as the gateway tells it: drift, labels, alerts, requests to retrain. Read here, written elsewhere.

What is read are the state database, the drift check's ``result.json`` and the log, never within a request's way: in a
thread, kept for a few seconds. What cannot be read is left as it was; the time of the last reading says so.
"""

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.gateway.labelled import DAYS, Agreed, Labelled
from lepton_platform.settings import Settings

if TYPE_CHECKING:
    from lepton_platform.monitoring.alerts import Alert
    from lepton_platform.monitoring.quality import ServedQuality
    from lepton_platform.monitoring.retraining import RetrainRequest

KEPT_S = 5.0  # between two looks at the database and the drift check's results
LABELS_S = 60.0  # between two looks at the log's feedback
STATES = ("passed", "failed", "not_judged")
logger = logging.getLogger("lepton.gateway")


@dataclass(frozen=True)
class Signal:
    """One signal of the last check; all are distances on one scale, each with its threshold."""

    name: str
    method: str
    distance: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """The drift check's last word. ``checked_at``: seconds since 1970; ``rows``: predictions of the window."""

    state: str
    why: str
    checked_at: float
    rows: int
    signals: tuple[Signal, ...] = ()


@dataclass(frozen=True)
class TaskState:
    """``served``: the last verdict on the served quality, from its book; ``agreed``: by Bento tag, how far answers agree
    with what people said. ``serving_since``: seconds since 1970.
    """

    drift: Drift | None = None
    served: "ServedQuality | None" = None
    agreed: Mapping[str, Agreed] = field(default_factory=dict)
    retrain: "RetrainRequest | None" = None
    serving_since: float | None = None


@dataclass(frozen=True)
class State:
    """Of all tasks. ``read_at``: seconds since 1970, 0 before the first reading; ``alerts``: those that are open."""

    read_at: float = 0.0
    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    alerts: tuple["Alert", ...] = ()


class Loop:
    """Reads the state; one for a process, used from its event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State()
        self._labelled = Labelled(settings.predictions_dir)
        self._agreed: dict[str, Mapping[str, Agreed]] = {}
        self._labels_at = -LABELS_S
        self._read_at = -KEPT_S
        self._reading = asyncio.Lock()

    async def latest(self, tasks: Iterable[str]) -> State:
        """The state, at most ``KEPT_S`` old; the one before where it cannot be read."""
        async with self._reading:
            if time.monotonic() - self._read_at >= KEPT_S:
                named = sorted(tasks)
                self.state = await asyncio.get_running_loop().run_in_executor(None, self._read, named)
                self._read_at = time.monotonic()
        return self.state

    async def events(self, tasks: list[str], most: int) -> dict[str, list[dict[str, Any]]]:
        """The latest of each task's history, the latest first."""

        def told() -> dict[str, list[dict[str, Any]]]:
            return {task: self._events(task, most) for task in tasks}

        return await asyncio.get_running_loop().run_in_executor(None, told)

    def _read(self, tasks: list[str]) -> State:
        try:
            return self.read(tasks)
        except Exception as error:  # the database may be away for a while
            logger.warning("the state of the loop cannot be read: %s", error)
            return self.state

    def read(self, tasks: list[str]) -> State:
        """All of it, in the caller's thread."""
        from lepton_platform.monitoring.alerts import Alerts
        from lepton_platform.monitoring.quality_book import QualityBook
        from lepton_platform.monitoring.retraining import RetrainBook
        from lepton_platform.serving.deployments import Deployments

        self._look_at_labels(tasks)
        book, judged = RetrainBook(self.settings), QualityBook(self.settings)
        since = {found.task: _seconds(found.created_at) for found in Deployments(self.settings).live()}
        states = {
            task: TaskState(
                read_drift(self.settings.path("reports", task, "drift", "result.json")),
                next(iter(judged.of(task, 1)), None),
                self._agreed.get(task, {}),
                book.last(task),
                since.get(task),
            )
            for task in tasks
        }
        return State(time.time(), states, tuple(Alerts(self.settings, []).open()))

    def _look_at_labels(self, tasks: list[str]) -> None:
        if time.monotonic() - self._labels_at < LABELS_S:
            return
        self._labels_at = time.monotonic()
        since = datetime.now(UTC) - timedelta(days=DAYS)
        for task in tasks:
            try:
                self._agreed[task] = self._labelled.of(task, since)
            except OSError as error:  # an hour is being swept
                logger.warning("the feedback of %s cannot be read: %s", task, error)

    def _events(self, task: str, most: int) -> list[dict[str, Any]]:
        from lepton_platform.pipeline.history import history

        try:
            return [event.as_dict() for event in history(self.settings, task, most)][::-1]
        except Exception as error:
            logger.warning("the history of %s cannot be read: %s", task, error)
            return []


def read_drift(path: Path) -> Drift | None:
    """The last check's result; ``None`` where there is none that can be read."""
    try:
        told, at = json.loads(path.read_text("utf-8")), path.stat().st_mtime
        signals = tuple(found for one in told.get("signals", ()) if (found := _signal(one)) is not None)
        state = told["state"] if told.get("state") in STATES else "not_judged"
        return Drift(
            state, str(told.get("why", "")), at, int(told.get("n_served", told.get("n_current")) or 0), signals
        )
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _signal(told: Mapping[str, Any]) -> Signal | None:
    try:
        distance, threshold = float(told["distance"]), float(told["threshold"])
        drifted = bool(told.get("drifted", distance > threshold))
        return Signal(str(told["name"]), str(told.get("method", "")), distance, threshold, drifted)
    except (KeyError, TypeError, ValueError):
        return None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
