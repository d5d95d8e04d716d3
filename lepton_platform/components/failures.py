"""Why steps of a run failed, in the words of whoever raised it."""

import dagster as dg

_STOPPED = "DagsterExecutionInterruptedError"


def failed_steps(instance: dg.DagsterInstance, run_id: str) -> list[dg.DagsterEvent]:
    """In the order in which they failed."""
    told = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return [entry.dagster_event for entry in told if entry.dagster_event is not None]


def was_stopped(event: dg.DagsterEvent) -> bool:
    """Did somebody stop the step from outside?"""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error is not None and error.cls_name == _STOPPED


def words(event: dg.DagsterEvent) -> str:
    """The failure in the words of whoever raised it; what nobody meant to raise is told with where it was."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return f"{event.step_key}: {data.user_failure_data.description}"
    if was_stopped(event):
        return f"{event.step_key}: stopped from outside; the next run goes on from what is finished."
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return f"{event.step_key}: failed"
    where = error.stack[-1].split("\n")[0].strip() if error.stack else "all of it is in Dagster's UI"
    return f"{event.step_key}: {error.message.strip()} ({where})"
