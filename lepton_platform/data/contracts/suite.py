"""Expectations as plain data, in Great Expectations' own notation: ``type`` and its keyword arguments.

Any expectation of Great Expectations can be written so; these functions write the ones that every task wants.
``description`` is what a person reads in reports.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Expectation = dict[str, Any]

SQL = "unexpected_rows_expectation"


def columns(types: Mapping[str, str]) -> list[Expectation]:
    """These columns and no others, of these DuckDB types (VARCHAR, TIMESTAMP WITH TIME ZONE, DOUBLE, FLOAT[] …).

    Quotes in a type do not count: which names in a STRUCT are words of SQL, and quoted, changes from version to version.
    """
    pairs = ", ".join(f"({_text(name)}, {_text(kind)})" for name, kind in types.items())
    return [
        {
            "type": "expect_table_columns_to_match_set",
            "column_set": list(types),
            "exact_match": True,
            "description": f"The columns are {', '.join(types)}.",
        },
        {
            "type": SQL,
            "unexpected_rows_query": (
                "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {batch}) "
                f"WHERE (column_name, replace(column_type, '\"', '')) NOT IN ({pairs})"
            ),
            "description": "Every column has its type.",
        },
    ]


def rows(query: str, description: str) -> Expectation:
    """``query``, SQL over ``{batch}``, finds no row. What it finds is shown: it should select ids, and no content."""
    return {"type": SQL, "unexpected_rows_query": query, "description": description}


def row_count(at_least: int, at_most: int | None = None) -> Expectation:
    said = f"There are at least {at_least} rows" + ("." if at_most is None else f" and at most {at_most}.")
    return {
        "type": "expect_table_row_count_to_be_between",
        "min_value": at_least,
        "max_value": at_most,
        "description": said,
    }


def not_null(*names: str) -> list[Expectation]:
    return [
        {"type": "expect_column_values_to_not_be_null", "column": name, "description": f"'{name}' is never missing."}
        for name in names
    ]


def unique(*names: str) -> list[Expectation]:
    return [
        {"type": "expect_column_values_to_be_unique", "column": name, "description": f"No two rows share '{name}'."}
        for name in names
    ]


def one_of(column: str, values: Iterable[str]) -> Expectation:
    values = sorted(values)
    return {
        "type": "expect_column_values_to_be_in_set",
        "column": column,
        "value_set": values,
        "description": f"'{column}' is one of {', '.join(values)}.",
    }


def share_of_each(column: str, values: Iterable[str], at_least: float) -> Expectation:
    """Every one of the values makes up at least that share of the rows: none is absent, none is drowned."""
    wanted = ", ".join(f"({_text(value)})" for value in sorted(values))
    return {
        "type": SQL,
        "unexpected_rows_query": (
            f"SELECT value, count(t.{_name(column)}) AS rows, "
            "round(count(t." + _name(column) + ") / (SELECT greatest(count(*), 1) FROM {batch}), 4) AS share "
            f"FROM (VALUES {wanted}) AS wanted(value) "
            f"LEFT JOIN (SELECT {_name(column)} FROM {{batch}}) AS t ON t.{_name(column)} = value "
            f"GROUP BY value HAVING share < {at_least!r} ORDER BY value"
        ),
        "description": f"Each '{column}' makes up at least {at_least:.0%} of the rows.",
    }


def lengths(column: str, at_least: int, at_most: int) -> Expectation:
    return {
        "type": "expect_column_value_lengths_to_be_between",
        "column": column,
        "min_value": at_least,
        "max_value": at_most,
        "description": f"'{column}' is {at_least} to {at_most} characters long.",
    }


def between(column: str, at_least: float | None, at_most: float | None) -> Expectation:
    return {
        "type": "expect_column_values_to_be_between",
        "column": column,
        "min_value": at_least,
        "max_value": at_most,
        "description": f"'{column}' lies between {at_least} and {at_most}.",
    }


def _text(value: str) -> str:
    """A SQL literal; braces doubled, because Great Expectations formats the query."""
    return "'" + value.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""').replace("{", "{{").replace("}", "}}") + '"'
