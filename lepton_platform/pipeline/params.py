"""``params.yaml``: one mapping a task, one section a stage, checked where it is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lepton_platform.root import MARKER
from lepton_platform.stage import Params, StageFailed

Section = TypeVar("Section", bound=Params)
PROFILES = Path(__file__).parent / "profiles"


def profile_names() -> list[str]:
    return [path.stem for path in sorted(PROFILES.glob("*.yaml"))]


def read_params(workspace: Path) -> dict[str, dict[str, Any]]:
    """All of ``params.yaml``: task → section → values; ``StageFailed`` says what is malformed."""
    path = workspace / MARKER
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageFailed(f"{workspace} is not a workspace: it has no {MARKER}. `lepton init DIR` makes one.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageFailed(f"{path} is not YAML: {error}") from None
    if content is None:  # cut short, perhaps: dvc.yaml is not emptied on its word
        raise StageFailed(f"{path} is empty. It holds one mapping a task; `lepton init` writes one in another folder.")
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise StageFailed(f"{path} must hold one mapping a task, each of one mapping a stage.")
    return content


def workspace_tasks(workspace: Path) -> list[str]:
    """The tasks that this workspace has parameters for, in the file's order."""
    return list(read_params(workspace))


def task_params(workspace: Path, task: str) -> dict[str, Any]:
    everything = read_params(workspace)
    if task not in everything:
        raise StageFailed(
            f"{workspace / MARKER} has no section '{task}'. It has: {', '.join(everything) or 'none'}. "
            "`lepton init DIR` writes one for every task."
        )
    return everything[task]


def stage_params(workspace: Path, task: str, sections: list[str]) -> dict[str, Any]:
    """The sections that a stage's result depends on."""
    everything = task_params(workspace, task)
    return {name: everything.get(name) or {} for name in sections}


def check_sections(workspace: Path, task: str, sections: list[str]) -> None:
    """``StageFailed`` where one is missing: DVC wants each to be there, if empty."""
    missing = [name for name in sections if name not in task_params(workspace, task)]
    if missing:
        added = " and ".join(f"`{name}: {{}}`" for name in missing)
        raise StageFailed(
            f"{workspace / MARKER}: {task} has no section {', '.join(missing)}. Add {added} for the defaults."
        )


def section(workspace: Path, task: str, name: str, model: type[Section]) -> Section:
    """The section ``name`` of the task, as ``model``; ``StageFailed`` names every wrong field."""
    values = task_params(workspace, task).get(name) or {}
    return parse(values, model, f"{MARKER}: {task}.{name}")


def parse(values: Mapping[str, Any], model: type[Section], where: str) -> Section:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
        known = ", ".join(model.model_fields)
        raise StageFailed(f"{where} is not valid. {wrong}. The names there are: {known}.") from None
