"""Expectations of a column of cleaned recordings: FLAC files, which tell in their first block what they are.

That block, STREAMINFO, is 34 bytes behind a signature of 4 and a header of 4 (RFC 9639, §8.2). Its eight bytes from
the tenth on hold the rate (20 bits), the channels less one (3), the bits of a sample less one (5) and the samples (36).
"""

from lepton_platform.data.contracts.suite import Expectation, rows

_SIGNATURE = "664C614300000022"  # "fLaC"; the first block is of type 0 and 34 bytes long
_FIRST, _LAST = 19, 26  # bytes, counted from 1
_SAMPLES_BITS, _BITS_BITS, _CHANNELS_BITS = 36, 5, 3


def readable(column: str) -> Expectation:
    """Every value begins as a FLAC does, with its header."""
    return rows(
        f"SELECT id, hex({column}[1:8]) AS first_bytes FROM {{batch}} "
        f"WHERE hex({column}[1:8]) NOT IN ('{_SIGNATURE}', '{_last_block(_SIGNATURE)}') OR octet_length({column}) < 42",
        f"Every '{column}' is a FLAC file.",
    )


def sound(column: str, rate: int, channels: int, bits: int) -> Expectation:
    """As the file's header says."""
    said = "one channel" if channels == 1 else f"{channels} channels"
    found = ", ".join(f"{_part(column, name)} AS {name}" for name in ("rate", "channels", "bits"))
    return rows(
        f"SELECT id, rate, channels, bits FROM (SELECT id, {found} FROM {{batch}}) "
        f"WHERE (rate, channels, bits) IS DISTINCT FROM ({rate}, {channels}, {bits})",
        f"Every '{column}' has {said} of {rate:,} samples a second of {bits} bits.",
    )


def lengths(column: str, shortest_s: float, longest_s: float) -> Expectation:
    """Seconds as the file's header says; a file that does not tell them has none."""
    return rows(
        f"SELECT id, seconds FROM (SELECT id, round({seconds(column)}, 3) AS seconds FROM {{batch}}) "
        f"WHERE seconds IS NULL OR seconds < {shortest_s!r} OR seconds > {longest_s!r}",
        f"'{column}' is {shortest_s:g} to {longest_s:g} seconds long.",
    )


def all_different(column: str) -> Expectation:
    """No two recordings have the same samples: their MD5 stands in the header's last 16 bytes."""
    return rows(
        f"SELECT min(id) AS id, count(*) AS copies FROM {{batch}} GROUP BY hex({column}[27:42]) HAVING count(*) > 1",
        f"No two rows share '{column}'.",
    )


def paces(column: str, text: str, slowest: float, fastest: float) -> Expectation:
    """Characters of ``text`` a second: what a recording and a text of something else seldom agree in."""
    return rows(
        f"SELECT id, pace FROM (SELECT id, round(length({text}) / {seconds(column)}, 2) AS pace FROM {{batch}}) "
        f"WHERE pace IS NULL OR pace < {slowest!r} OR pace > {fastest!r}",
        f"In '{column}' {slowest:g} to {fastest:g} characters of '{text}' are said a second.",
    )


def speakable(text: str) -> Expectation:
    """No text is empty or the description of a sound: "[beep]", "(one second of silence)"."""
    letter = "[\\pL\\pN]"
    described = f"\\[[^\\]]*{letter}[^\\]]*\\]|\\([^)]*{letter}[^)]*\\)|<[^>]*{letter}[^>]*>"
    return rows(
        f"SELECT id FROM {{batch}} WHERE NOT regexp_matches({text}, '{letter}') OR regexp_matches({text}, '{described}')",
        f"Somebody can have said every '{text}'.",
    )


def seconds(column: str) -> str:
    """SQL: how long a FLAC lasts; null where it is none, or does not tell."""
    return f"(nullif({_part(column, 'samples')}, 0) / nullif({_part(column, 'rate')}, 0))"


def _part(column: str, name: str) -> str:
    """SQL: a number of the header; null where there is none."""
    after = {"samples": 0, "bits": _SAMPLES_BITS, "channels": _SAMPLES_BITS + _BITS_BITS}
    after["rate"] = after["channels"] + _CHANNELS_BITS
    width = {"samples": _SAMPLES_BITS, "bits": _BITS_BITS, "channels": _CHANNELS_BITS, "rate": 20}[name]
    whole = f"try_cast('0x' || hex({column}[{_FIRST}:{_LAST}]) AS UBIGINT)"
    more = 1 if name in ("channels", "bits") else 0
    return f"(({whole} // {1 << after[name]}) % {1 << width} + {more})::BIGINT"


def _last_block(signature: str) -> str:
    """The same where no other block follows: the header's first bit is set (§8.1)."""
    return signature[:8] + "80" + signature[10:]
