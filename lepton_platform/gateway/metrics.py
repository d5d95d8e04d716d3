"""What Prometheus is told: the gateway's own figures, those of every worker, which only it can reach, and the loop's state."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Metric

_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
Told = tuple[Mapping[str, str], str]  # labels that tell a worker's figures apart, and its exposition


class Metrics:
    """Counters and histograms of the gateway's process, in a registry of their own; its supervisor's process beside it."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(namespace="lepton_gateway", registry=self.registry)
        ProcessCollector(namespace="lepton_supervisor", pid=os.getppid, registry=self.registry)

        def named(kind: Any, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"lepton_gateway_{name}", text, labels, registry=self.registry, **options)

        self.requests = named(Counter, "requests", "Requests answered.", "task", "route", "status")
        self.seconds = named(Histogram, "request_seconds", "To the answer.", "task", "route", buckets=_SECONDS)
        self.answered = named(Counter, "answered", "Predictions' requests by who answered.", "task", "model", "role")
        self.percent = named(Gauge, "canary_percent", "Share of the requests that is the canary's.", "task")
        self.up = named(Gauge, "worker_up", "Does a worker answer?", "task", "role")
        self.in_flight = named(Gauge, "requests_in_flight", "Requests being answered.")
        self._known: dict[tuple[str, str, int], Any] = {}
        self._answers: dict[tuple[str, str, str], Any] = {}  # a lock and a look-up saved for every request

    def request(self, task: str, route: str, status: int, seconds: float) -> None:
        known = self._known.get((task, route, status))
        if known is None:
            known = self.requests.labels(task, route, str(status)), self.seconds.labels(task, route)
            self._known[task, route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def answer(self, task: str, model: str, role: str) -> None:
        known = self._answers.get((task, model, role))
        if known is None:
            known = self._answers[task, model, role] = self.answered.labels(task, model, role)
        known.inc()

    def render(self, workers: Iterable[Told] = (), more: "Iterable[Metric]" = ()) -> tuple[bytes, str]:
        """→ the exposition and its content type. ``more``: families that are told with it."""
        from prometheus_client import CONTENT_TYPE_LATEST

        own = text(self.registry.collect()).encode()
        return own + text([*more, *merged(workers)]).encode(), CONTENT_TYPE_LATEST


def merged(told: Iterable[Told]) -> "list[Metric]":
    """Several expositions as one: a family once, with the samples of all."""
    from prometheus_client.core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    for labels, exposition in told:
        for found in text_string_to_metric_families(exposition):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for one in found.samples:
                family.add_sample(one.name, {**labels, **one.labels}, one.value)
    return list(families.values())


def text(families: "Iterable[Metric]") -> str:
    """In Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Families(families))  # pyright: ignore[reportArgumentType] - it collects, which is all that is asked
    return generate_latest(registry).decode()


class _Families:
    """Families that are made already, as a registry collects them."""

    def __init__(self, found: "Iterable[Metric]") -> None:
        self.found = found

    def collect(self) -> "Iterable[Metric]":
        return self.found

    def describe(self) -> "Iterable[Metric]":
        """Nothing in advance: what a worker measures is its Bento's."""
        return ()
