"""How bringing the graph up to date ended."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ended:
    """Assets that really ran (``task/stage``), and a paragraph for each failure."""

    ran: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
