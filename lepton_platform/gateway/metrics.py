"""What Prometheus is told: the gateway's own figures, and beside them those of every worker, which only it can reach."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Metric

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters and histograms of the gateway's process, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(namespace="lepton_gateway", registry=self.registry)

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

    def render(self, workers: Iterable[tuple[Mapping[str, str], str]] = ()) -> tuple[bytes, str]:
        """→ the exposition and its content type. ``workers``: labels that tell a worker's figures apart, its exposition."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        both = CollectorRegistry()
        both.register(self.registry)  # pyright: ignore[reportArgumentType] - a registry collects, too
        both.register(_Workers(list(workers)))  # pyright: ignore[reportArgumentType]
        return generate_latest(both), CONTENT_TYPE_LATEST


class _Workers:
    """Several expositions as one: a family once, with the samples of all."""

    def __init__(self, told: list[tuple[Mapping[str, str], str]]) -> None:
        self.told = told

    def collect(self) -> "Iterable[Metric]":
        from prometheus_client.core import Metric
        from prometheus_client.parser import text_string_to_metric_families

        families: dict[str, Metric] = {}
        for labels, exposition in self.told:
            for found in text_string_to_metric_families(exposition):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for one in found.samples:
                    family.add_sample(one.name, {**labels, **one.labels}, one.value)
        return families.values()

    def describe(self) -> "Iterable[Metric]":
        """Nothing in advance: what a worker measures is its Bento's."""
        return ()
