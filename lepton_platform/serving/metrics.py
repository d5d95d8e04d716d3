"""What the service tells Prometheus of itself."""

from typing import Any

STAGES = ("preprocess", "queue", "model", "log")
_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and histograms of one process, in a registry of their own."""

    def __init__(self, model: str) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(namespace="lepton", registry=self.registry)  # resident memory, CPU seconds, open files

        def named(kind: Any, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"lepton_{name}", text, labels, registry=self.registry, **options)

        named(Gauge, "service_info", "The model that answers.", "model").labels(model).set(1)
        self.requests = named(Counter, "requests", "Requests answered.", "route", "status")
        self.request_seconds = named(
            Histogram, "request_seconds", "From the request to its answer.", "route", buckets=_SECONDS
        )
        stage = named(Histogram, "stage_seconds", "Where an answer's time goes.", "stage", buckets=_SECONDS)
        self.stage_seconds = {name: stage.labels(name) for name in STAGES}
        self.batch_inputs = named(Histogram, "batch_inputs", "Inputs run together.", buckets=(1, 2, 4, 8, 16, 32, 64))
        self.predictions = named(Counter, "predictions", "Inputs answered.", "label")
        self.in_flight = named(Gauge, "requests_in_flight", "Requests being answered.")
        self.waiting = named(Gauge, "inputs_waiting", "Inputs that wait for a lane.")
        self._known: dict[tuple[str, int], Any] = {}

    def batch(self, inputs: int, seconds: float) -> None:
        self.batch_inputs.observe(inputs)
        self.stage_seconds["model"].observe(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        key = (route, status)
        known = self._known.get(key)
        if known is None:
            labels = (self.requests.labels(route, str(status)), self.request_seconds.labels(route))
            known = self._known[key] = labels
        known[0].inc()
        known[1].observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """→ the exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
