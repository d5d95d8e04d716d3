"""What a run in this process says of a step that failed."""

import dagster as dg

from lepton_platform.components.launch import _ended


@dg.asset
def refused() -> None:
    raise dg.Failure("The rows are too few. Add some.")


@dg.asset
def broken() -> None:
    {}["column"]


def test_a_gate_speaks_for_itself_and_a_fault_is_told_with_where_it_was():
    with dg.instance_for_test() as instance:
        result = dg.materialize([refused, broken], instance=instance, raise_on_error=False)
    said = dict(text.split(": ", 1) for text in _ended(result).failures)
    assert said["refused"] == "The rows are too few. Add some."
    assert said["broken"].startswith("KeyError: 'column' (File ") and f'{__file__}", line' in said["broken"]
    assert "\n" not in said["broken"]
