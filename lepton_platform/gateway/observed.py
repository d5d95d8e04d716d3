"""What a deployment did since it was last looked at: requests, failures, latencies, agreement with the champion.

Kept by the gateway a second at a time, sent to the supervisor, added up there: plain sums, so that nothing is lost or
counted twice whichever process is started again.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Upper bounds of latency classes in seconds, 12 % apart: from a tenth of a millisecond to two minutes
BOUNDS_S = tuple(1e-4 * 10 ** (step / 20) for step in range(122))


@dataclass
class Observed:
    """``errors``: answers of 500 and above, and none at all. ``classes``: requests by class of latency.

    ``compared`` inputs were answered by both; ``agreement`` is the sum of how far the answers agree, 0 to 1 each.
    """

    requests: int = 0
    errors: int = 0
    classes: dict[int, int] = field(default_factory=dict)
    compared: int = 0
    agreement: float = 0.0
    crashes: int = 0

    def answered(self, seconds: float, failed: bool) -> None:
        self.requests += 1
        self.errors += failed
        place = min(bisect_left(BOUNDS_S, seconds), len(BOUNDS_S) - 1)
        self.classes[place] = self.classes.get(place, 0) + 1

    def agreed(self, how_far: float) -> None:
        self.compared += 1
        self.agreement += how_far

    def add(self, other: "Observed") -> None:
        for name in ("requests", "errors", "compared", "agreement", "crashes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for place, many in other.classes.items():
            self.classes[place] = self.classes.get(place, 0) + many

    def quantile_s(self, share: float) -> float:
        """The latency that so many of the requests stay below: a class's upper bound; NaN where there are none."""
        total, seen = sum(self.classes.values()), 0
        for place in sorted(self.classes):
            seen += self.classes[place]
            if seen >= share * total:
                return BOUNDS_S[place]
        return math.nan

    @property
    def disagreement(self) -> float:
        return 1 - self.agreement / self.compared if self.compared else 0.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "classes": {str(place): many for place, many in self.classes.items()}}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Observed":
        return cls(**{**told, "classes": {int(place): many for place, many in told["classes"].items()}})
