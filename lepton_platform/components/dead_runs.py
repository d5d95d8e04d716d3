"""Runs whose process is gone: marked as failed, their pool slots freed, so that the next run is not kept waiting."""

import os
import socket

import dagster as dg

from lepton_platform.components.failures import failed_steps, was_stopped
from lepton_platform.processes import alive, born

PID_TAG, BORN_TAG, HOST_TAG = "lepton/pid", "lepton/born", "lepton/host"
DEAD_TAG = "lepton/dead"  # of a run that ended with its process and not by what it did


def process_tags() -> dict[str, str]:
    """This process, told from another that has its pid after a restart of the machine."""
    pid = os.getpid()
    return {PID_TAG: str(pid), BORN_TAG: f"{born(pid) or 0:.2f}", HOST_TAG: socket.gethostname()}


def mark_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note on the run which process works on it; cheap, and true for every launcher."""
    instance.add_run_tags(run_id, process_tags())


def mark_killed(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note on the run that what ends it is not its own doing."""
    instance.add_run_tags(run_id, {DEAD_TAG: "true"})


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End the runs of this host whose process was killed; returns their ids."""
    ended = []
    going = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(going):
        pid = run.tags.get(PID_TAG, "")
        since = float(run.tags[BORN_TAG]) if BORN_TAG in run.tags else None
        if run.tags.get(HOST_TAG) != socket.gethostname() or not pid.isdigit() or alive(int(pid), since):
            continue
        mark_killed(instance, run.run_id)
        instance.report_run_failed(run, "Its process is gone; a later run found it.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(run.run_id)
    return ended


def was_killed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Did a run that failed end with its process, and not by what it did?

    Whoever launched it may have seen its end before ``end_dead_runs`` did: Dagster's code server looks every second. Then
    no step of it has failed, or only by being stopped from outside.
    """
    return DEAD_TAG in run.tags or all(map(was_stopped, failed_steps(instance, run.run_id)))
