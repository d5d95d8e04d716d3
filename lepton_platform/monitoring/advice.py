"""What is told with an alert: where to look, and what to do first. For who is woken by it and did not build it."""

from collections.abc import Mapping

MACHINE = "machine"  # stands for the task where all of them are meant
_FIRST: Mapping[str, str] = {
    "drift": "A retraining is asked for by itself: `lepton history {task}` tells whether it began. Which signals moved, the "
    "overview shows; what was sent, reports/{task}/drift/report.html.",
    "drift_check": "`lepton up` starts what checks, `lepton doctor` tells what it lacks. Answers go on meanwhile.",
    "quality": "A retraining is asked for by itself: `lepton history {task}` tells whether it began. If it came with a new "
    "version, `lepton rollback {task}` takes that back.",
    "retrain": "The champion serves on. `lepton run {task}` does it again and shows where it fails; all that its run said is in "
    "Dagster's UI. After the cooldown whoever asks is given another.",
    "rollout": "The champion serves, nobody is harmed. `lepton deployments {task}` has the figures of each step.",
    "service": "Why it ended is in the workspace's .lepton/logs/services.log; if it came with a new version, `lepton rollback "
    "{task}` takes that back. Nothing there: `lepton up`.",
    "errors": "Which version fails, the overview shows; if it is a new one, `lepton rollback {task}` takes it back. Why is in the "
    "workspace's .lepton/logs/services.log.",
    "disk": "Make room on it before it is full: what cannot be logged is not answered.",
}
_MACHINE: Mapping[str, str] = {
    "service": "Why it ended is in the workspace's .lepton/logs/services.log. Requests of the moment of its death are lost, "
    "later ones are not.",
}


def advice(task: str, kind: str, link: str) -> str:
    """Lines below an alert's own. ``link``: the address of the gateway."""
    first = _MACHINE.get(kind) if task == MACHINE else None
    return f"{(first or _FIRST[kind]).format(task=task)}\n{link}/overview"
