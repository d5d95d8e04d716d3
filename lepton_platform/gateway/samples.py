"""What was told at a moment, looked up by name and labels; what was told since an earlier moment; shares of a histogram.

As Prometheus counts: ``increase`` of a counter that has begun again is what it counts now, and a ``quantile`` lies
between a class's bounds, in proportion (``histogram_quantile``).
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from lepton_platform.gateway.metrics import Told

Labels = frozenset[tuple[str, str]]
NAMES = (  # what the overview is made of; nothing else is kept
    "lepton_gateway_requests_total",
    "lepton_gateway_request_seconds_bucket",
    "lepton_gateway_canary_percent",
    "lepton_gateway_worker_up",
    "lepton_requests_total",
    "lepton_request_seconds_bucket",
    "lepton_stage_seconds_bucket",
    "lepton_batch_inputs_sum",
    "lepton_batch_inputs_count",
    "lepton_process_cpu_seconds_total",
    "lepton_process_resident_memory_bytes",
    "lepton_process_start_time_seconds",
    "lepton_gateway_process_cpu_seconds_total",
    "lepton_gateway_process_resident_memory_bytes",
    "lepton_disk_free_bytes",
    "lepton_disk_size_bytes",
)


class Samples:
    """The samples of ``NAMES``."""

    def __init__(self, values: Mapping[str, Mapping[Labels, float]] | None = None) -> None:
        self.values = values or {}

    @classmethod
    def of(cls, told: Iterable[Told]) -> "Samples":
        """Of several expositions, each with the labels that tell its samples from the others'."""
        from prometheus_client.parser import text_string_to_metric_families

        wanted, values = set(NAMES), {}
        for labels, exposition in told:
            lines = [line for line in exposition.splitlines() if line.split("{")[0].split(" ")[0] in wanted]
            for family in text_string_to_metric_families("".join(f"{line}\n" for line in lines)):
                for one in family.samples:
                    values.setdefault(one.name, {})[frozenset({**labels, **one.labels}.items())] = one.value
        return cls(values)

    def since(self, before: "Samples") -> "Samples":
        """How much each has grown; one that is less than it was has begun again."""
        grown = {
            name: {k: v - old if (old := before.values.get(name, {}).get(k, 0.0)) <= v else v for k, v in found.items()}
            for name, found in self.values.items()
        }
        return Samples(grown)

    def each(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """Those that have these labels, with all of theirs."""
        for found, value in self.values.get(name, {}).items():
            if labels.items() <= found:
                yield dict(found), value

    def sum(self, name: str, **labels: str) -> float:
        return math.fsum(value for _, value in self.each(name, **labels))

    def one(self, name: str, **labels: str) -> float | None:
        return next((value for _, value in self.each(name, **labels)), None)

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """A histogram's cumulated classes by upper bound, of all that have these labels together."""
        found: dict[float, float] = {}
        for other, value in self.each(f"{name}_bucket", **labels):
            bound = float(other["le"])
            found[bound] = found.get(bound, 0.0) + value
        return dict(sorted(found.items()))


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """What so large a share stays below; ``None`` of nothing. Beyond the last bound it is that bound."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = share * buckets[bounds[-1]]
    below_bound, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return below_bound
            inside = buckets[bound] - below
            return bound if inside <= 0 else below_bound + (bound - below_bound) * (rank - below) / inside
        below_bound, below = bound, buckets[bound]
    return below_bound


def quantiles(buckets: Mapping[float, float], shares: Iterable[int] = (50, 95, 99)) -> dict[str, float | None]:
    """By name, ``p50_s`` …, in seconds."""
    return {f"p{share}_s": quantile(share / 100, buckets) for share in shares}
