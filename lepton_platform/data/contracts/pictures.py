"""Expectations of a column of cleaned pictures: PNG files, whose size stands in their first bytes (PNG, §11.2.1)."""

from lepton_platform.data.contracts.suite import Expectation, rows

_SIGNATURE = "89504E470D0A1A0A"


def readable(column: str) -> Expectation:
    """Every value begins as a PNG does, with its header."""
    return rows(
        f"SELECT id, hex({column}[1:8]) AS first_bytes FROM {{batch}} "
        f"WHERE hex({column}[1:8]) <> '{_SIGNATURE}' OR octet_length({column}) < 33",
        f"Every '{column}' is a PNG file.",
    )


def sides(column: str, shortest_px: int, longest_px: int) -> Expectation:
    """Width and height as the file's header says."""
    return rows(
        f"SELECT id, width, height FROM (SELECT id, {side(column, 'width')} AS width, "
        f"{side(column, 'height')} AS height FROM {{batch}}) "
        f"WHERE width IS NULL OR height IS NULL OR least(width, height) < {shortest_px} "
        f"OR greatest(width, height) > {longest_px}",
        f"'{column}' is {shortest_px} to {longest_px} pixels wide and high.",
    )


def all_different(column: str) -> Expectation:
    """No two files are the same, byte for byte."""
    return rows(
        f"SELECT min(id) AS id, count(*) AS copies FROM {{batch}} GROUP BY md5({column}) HAVING count(*) > 1",
        f"No two rows share '{column}'.",
    )


def side(column: str, name: str) -> str:
    """SQL: the ``width`` or ``height`` of a PNG; null where it is none."""
    first = {"width": 17, "height": 21}[name]
    return f"try_cast('0x' || hex({column}[{first}:{first + 3}]) AS INTEGER)"
