"""UUIDv7 (RFC 9562, §5.7 and §6.2 method 1): an id tells its time, and later ids sort later."""

import os
import re
import threading
import time
from datetime import UTC, datetime

_COUNTER_BITS = 12
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HOUR_FORMAT = "%Y-%m-%dT%H"


class Ids:
    """Strictly increasing ids of one process; a clock that steps back does not take them back."""

    def __init__(self) -> None:
        self._ms = self._counter = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> list[str]:
        """``count`` new ids, of now."""
        with self._lock:
            random = os.urandom(8 * count)
            return [self._next(int.from_bytes(random[8 * i : 8 * i + 8], "big") >> 2) for i in range(count)]

    def _next(self, random: int) -> str:
        now = time.time_ns() // 1_000_000
        if now > self._ms:
            self._ms, self._counter = now, random & 0x7FF  # half the range is left to count in
        elif self._counter + 1 < 1 << _COUNTER_BITS:
            self._counter += 1
        else:
            self._ms, self._counter = self._ms + 1, 0
        value = self._ms << 80 | 0x7 << 76 | self._counter << 64 | 0b10 << 62 | random
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def time_of(identifier: str) -> datetime | None:
    """When an id was made, to the millisecond; ``None`` where it is not a UUIDv7 in its canonical form."""
    if not _CANONICAL.fullmatch(identifier):
        return None
    milliseconds = int(identifier[:8] + identifier[9:13], 16)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def first_id(moment: datetime) -> str:
    """No id that is made at that moment or later, to the millisecond, sorts before it."""
    text = f"{int(moment.timestamp() * 1000):012x}"
    return f"{text[:8]}-{text[8:]}"


def hour_of(identifier: str) -> str | None:
    """The hour (UTC, ``2026-03-01T14``) in whose folder its row lies."""
    moment = time_of(identifier)
    return moment.strftime(HOUR_FORMAT) if moment else None
