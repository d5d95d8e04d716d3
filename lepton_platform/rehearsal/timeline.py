"""What happened in a rehearsal, in one order: told as it happens, kept for the report."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Beat:
    """``at``: ISO 8601, UTC. ``after_s``: seconds since the rehearsal began."""

    at: str
    after_s: float
    what: str
    said: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class Timeline:
    """``tell`` is called with each beat as it comes."""

    tell: Callable[[Beat], None] = lambda _: None
    beats: list[Beat] = field(default_factory=list)
    _begun: datetime = field(default_factory=lambda: datetime.now(UTC))

    def add(self, what: str, said: str, *, at: datetime | None = None, **figures: Any) -> None:
        """``at``: when it was so, where that is not now."""
        when = at or datetime.now(UTC)
        text = when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        beat = Beat(text, round((when - self._begun).total_seconds(), 1), what, said, figures)
        self.beats.append(beat)
        self.tell(beat)

    def as_list(self) -> list[dict[str, Any]]:
        return [asdict(beat) for beat in self.beats]
