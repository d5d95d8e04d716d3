"""One folder a task; the same seven files in each, each answering one question.

``source`` where the data come from · ``contract`` what they must be · ``preprocess`` how a record is
cleaned and turned into features · ``model`` what learns from it · ``metrics`` how good is good enough ·
``api`` what the request and the answer look like · ``drift`` what can drift.
"""

import importlib
from pathlib import Path
from types import ModuleType

PARTS = ("source", "contract", "preprocess", "model", "metrics", "api", "drift")


def task_names() -> list[str]:
    """The tasks that are installed: the folders here. Nothing is imported."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/source.py"))


def part_name(task: str, part: str) -> str:
    return f"{__name__}.{task}.{part}"


def load_part(task: str, part: str) -> ModuleType:
    """Import one of the task's modules; ``KeyError`` names the tasks or the parts there are."""
    if task not in task_names():
        raise KeyError(f"There is no task '{task}'. The tasks are: {', '.join(task_names())}.")
    if part not in PARTS:
        raise KeyError(f"A task has no part '{part}'. The parts are: {', '.join(PARTS)}.")
    return importlib.import_module(part_name(task, part))
