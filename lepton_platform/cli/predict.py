"""`lepton predict`: ask the running service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_platform.cli.common import Json, Workspace, chosen_tasks, open_workspace, print_json, say

if TYPE_CHECKING:
    from lepton_platform.settings import Settings


def service_url(settings: "Settings", task: str) -> str:
    """Where the task's service listens: the tasks take ports in the order of params.yaml."""
    from lepton_platform.pipeline.params import workspace_tasks

    port = settings.service_port + workspace_tasks(settings.workspace).index(task)
    return f"http://{settings.host}:{port}"


def _content(given: str) -> str | bytes:
    """The file of this name, or else the words themselves: a long text is no file name."""
    try:
        return Path(given).read_bytes() if Path(given).is_file() else given
    except (OSError, ValueError):
        return given


def _ask(url: str, task: str, given: str) -> dict[str, Any]:
    import httpx

    from lepton_platform.stage import StageFailed
    from lepton_platform.tasks import load_part

    api = load_part(task, "api")
    request = api.from_command_line(_content(given))
    try:
        answer = httpx.post(f"{url}/predict", timeout=30, **request)
    except httpx.HTTPError:
        raise StageFailed(f"The service of {task} does not answer at {url}. `lepton up` starts it.") from None
    if answer.status_code != 200:
        raise StageFailed(f"The service of {task} refused this input ({answer.status_code}): {answer.text}")
    return answer.json()


def predict(
    task: Annotated[str, typer.Argument(help="A task whose service runs.")],
    given: Annotated[str, typer.Argument(metavar="INPUT", help="The input itself, or a file that holds it.")],
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Ask the running service; the answer's id can be given to `lepton trace`."""
    settings = open_workspace(workspace)
    chosen_tasks(settings, [task])
    answer = _ask(service_url(settings, task), task, given)
    if as_json:
        print_json(answer)
        return
    for one in answer["predictions"]:
        figures = " ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in one.items() if k != "id")
        say(f"{figures}   id {one['id']}   model {answer['model']}")
