"""What the platform says by itself is wrong with what serves: judged every half minute by the overview's own figures.

An alert begins when it is sure and ends when it is sure, too: in between, as right after a start, nothing is said. Drift,
quality and rollouts have judges of their own; whether the gateway itself answers, only somebody outside can tell.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lepton_platform.monitoring.alerts import MACHINE, Alerts, Kind

DOWN_S = 60.0  # without a process that answers for a task
RESTARTS, RESTARTS_S = 3, 600.0  # so many within so long are too many
FEW, KNOWN_S = 20, 60.0  # requests, and seconds, that say nothing about a share yet
FAILING, FINE = (
    0.01,
    0.005,
)  # share of errors that must surely be exceeded to be wrong, and below which it is right again
FULL, FREE = 0.05, 0.07  # share of the disk that is free, likewise
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """``wrong``: it is so, or it is not so (any more)."""

    task: str
    kind: Kind
    wrong: bool
    why: str


class Watch:
    """Remembers since when a task has had no process, and when processes began."""

    def __init__(self, overdue_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.overdue_s, self.clock = overdue_s, clock
        self._down: dict[str, float] = {}
        self._begun: dict[tuple[str, int], str] = {}
        self._again: dict[str, deque[float]] = {}  # when a task's processes were started again

    def judge(self, told: Json) -> list[Finding]:
        """``told``: the overview."""
        found = list(self._disk(told["machine"]))
        for task in told["tasks"]:
            found += self._service(task["name"], task["versions"])
            found += _errors(task["name"], task["requests"], told["window_s"])
            found += self._drift_check(task)
        return found

    def _service(self, task: str, versions: list[Json]) -> Iterator[Finding]:
        now, again = self.clock(), self._again.setdefault(task, deque())
        for version in versions:
            key, begun = (task, version["deployment"]), version["started_at"]
            if begun is None:
                continue
            if self._begun.setdefault(key, begun) != begun and version["role"] == "champion":
                again.append(now)
            self._begun[key] = begun
        while again and again[0] < now - RESTARTS_S:
            again.popleft()
        up = any(version["role"] == "champion" and version["up"] for version in versions)
        since = now - self._down.setdefault(task, now) if not up else 0.0
        if up:
            self._down.pop(task, None)
        if since >= DOWN_S:
            yield Finding(task, "service", True, f"No process has answered for {since:.0f} s.")
        elif len(again) >= RESTARTS:
            many = f"Its process was started again {len(again)} times in {RESTARTS_S / 60:.0f} minutes."
            yield Finding(task, "service", True, many)
        elif up:
            yield Finding(task, "service", False, "A process answers.")

    def _drift_check(self, task: Json) -> Iterator[Finding]:
        last = task["drift"]["checked_at"] if task["drift"] else None
        since = max(filter(None, (last, task["serving_since"])), default=None)
        if since is None:
            return
        age_s = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
        if age_s <= self.overdue_s:
            if last is not None:
                yield Finding(task["name"], "drift_check", False, f"Drift was checked at {last}.")
        elif task["requests"]["count"]:
            when = f"The last drift check was at {last}" if last else "Drift has never been checked"
            why = f"{when}, and it answers: is Dagster's daemon running? `lepton up` starts it."
            yield Finding(task["name"], "drift_check", True, why)

    @staticmethod
    def _disk(machine: Json) -> Iterator[Finding]:
        free, size = machine["disk_free_bytes"], machine["disk_size_bytes"]
        if not size:
            return
        words = f"{free / 1e9:.1f} GB of the disk that the logs are written to are free, {100 * free / size:.1f} %."
        if free / size < FULL:
            yield Finding(MACHINE, "disk", True, f"{words} What cannot be logged is not answered.")
        elif free / size > FREE:
            yield Finding(MACHINE, "disk", False, words)


def _errors(task: str, requests: Json, window_s: float) -> Iterator[Finding]:
    if window_s < KNOWN_S:
        return
    from lepton_platform.monitoring.performance import wilson

    share, count = requests["error_share"] or 0.0, requests["count"]
    words = f"{requests['errors']} of {count} requests failed in {window_s:.0f} s."
    words = words if count else f"No request has come for {window_s:.0f} s."
    if count >= FEW and wilson(requests["errors"], count)[0] > FAILING:
        yield Finding(task, "errors", True, f"{words} {share:.1%} is surely more than {FAILING:.0%}.")
    elif share < FINE:
        yield Finding(task, "errors", False, words)


def tell(alerts: Alerts, found: list[Finding]) -> None:
    """Open and close what follows, and tell every channel what it has not been told yet."""
    is_open = {(alert.task, alert.kind) for alert in alerts.open()}
    for one in found:
        if one.wrong:
            alerts.raised(one.task, one.kind, one.why)
        elif (one.task, one.kind) in is_open:
            alerts.cleared(one.task, one.kind, one.why)
    alerts.deliver()
