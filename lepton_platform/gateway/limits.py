"""How often: a token bucket for a key, and one for each address that sends wrong keys. Pure: the time is passed in.

Times are nanoseconds of a clock that never goes back (``time.monotonic_ns``).
"""

import ipaddress
from collections import OrderedDict

_MINUTE_NS = 60 * 10**9
MOST_RATE = 10**9  # a minute; a burst likewise: what the database's integers hold
WRONG_RATE, WRONG_BURST = 10, 20  # wrong keys a minute, and at once
MOST_ADDRESSES = 4096


class Bucket:
    """``burst`` tokens, refilled at ``rate_per_minute``: in any t minutes, at most burst + rate × t are taken.

    It is kept as one number, the time when it will be full again, in whole nanoseconds, so that the bound is exact
    (the generic cell rate algorithm: ITU-T I.371, annex A; a token bucket by another name).
    """

    __slots__ = ("_capacity_ns", "_full_at_ns", "_token_ns")

    def __init__(self, rate_per_minute: int, burst: int) -> None:
        if not (1 <= rate_per_minute <= MOST_RATE and 1 <= burst <= MOST_RATE):
            raise ValueError(
                f"A rate of {rate_per_minute} a minute with a burst of {burst}: both must be 1 to {MOST_RATE:,}."
            )
        self._token_ns = -(-_MINUTE_NS // rate_per_minute)  # rounded up: never more than was promised
        self._capacity_ns = burst * self._token_ns
        self._full_at_ns = 0

    def take(self, now_ns: int) -> int:
        """0: a token is taken. Else the nanoseconds until there will be one; to ask in vain costs nothing."""
        full_at = max(self._full_at_ns, now_ns) + self._token_ns
        wait = full_at - now_ns - self._capacity_ns
        if wait > 0:
            return wait
        self._full_at_ns = full_at
        return 0


class Wrongs:
    """A bucket for each address that sent a wrong key, of the ``most`` that did so last.

    An IPv6 client has a network of 64 bits to itself, which counts as one address.
    """

    def __init__(self, rate_per_minute: int = WRONG_RATE, burst: int = WRONG_BURST, most: int = MOST_ADDRESSES) -> None:
        self._rate, self._burst, self._most = rate_per_minute, burst, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str | None, now_ns: int) -> int:
        """As ``Bucket.take``; ``None`` is an address too (a Unix socket has none)."""
        origin = _origin(address or "")
        bucket = self._buckets.get(origin)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[origin] = Bucket(self._rate, self._burst)
        self._buckets.move_to_end(origin)
        return bucket.take(now_ns)

    def __len__(self) -> int:
        return len(self._buckets)


def _origin(address: str) -> str:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    return str(known.ipv4_mapped or ipaddress.IPv6Address(known.packed[:8] + bytes(8)))


def whole_seconds(wait_ns: int) -> int:
    """For ``Retry-After``: rounded up, at least 1."""
    return max(1, -(-wait_ns // 10**9))
