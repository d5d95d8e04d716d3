"""Runs whose process is gone: marked as failed, their pool slots freed, so that the next run is not kept waiting."""

import os
import socket

import dagster as dg

PID_TAG, HOST_TAG = "lepton/pid", "lepton/host"
DEAD_TAG = "lepton/dead"  # of a run that ended with its process and not by what it did


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def mark_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note on the run which process works on it; cheap, and true for every launcher."""
    instance.add_run_tags(run_id, {PID_TAG: str(os.getpid()), HOST_TAG: socket.gethostname()})


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End the runs of this host whose process was killed; returns their ids."""
    ended = []
    going = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(going):
        pid = run.tags.get(PID_TAG, "")
        if run.tags.get(HOST_TAG) != socket.gethostname() or not pid.isdigit() or _alive(int(pid)):
            continue
        instance.add_run_tags(run.run_id, {DEAD_TAG: "true"})
        instance.report_run_failed(run, "Its process is gone; a later run found it.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(run.run_id)
    return ended
