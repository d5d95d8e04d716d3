"""What the gateway tells Prometheus: requests by task and status, and how long they took, its own time apart."""

from typing import Any

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
        self.in_flight = named(Gauge, "requests_in_flight", "Requests being answered.")
        self._known: dict[tuple[str, str, int], Any] = {}

    def request(self, task: str, route: str, status: int, seconds: float) -> None:
        known = self._known.get((task, route, status))
        if known is None:
            known = self.requests.labels(task, route, str(status)), self.seconds.labels(task, route)
            self._known[task, route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """→ the exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
