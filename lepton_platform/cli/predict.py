"""`lepton predict`: ask the running service."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_platform.cli.common import KEY, Json, Workspace, chosen_tasks, open_workspace, print_json, say

if TYPE_CHECKING:
    import httpx

    from lepton_platform.settings import Settings

SHOWN_CHARACTERS = 400
TIMEOUT_S = 120.0  # a large picture is many tiles


def service_url(settings: "Settings", task: str) -> str:
    """Where the gateway answers for the task: what `lepton up` started in this workspace, else by the settings."""
    from lepton_platform.cli.serve import services_url

    return f"{services_url(settings) or f'http://{settings.host}:{settings.service_port}'}/v1/{task}"


def _content(given: str) -> str | bytes:
    """The file of this name, or else the words themselves: a long text is no file name."""
    try:
        return Path(given).read_bytes() if Path(given).is_file() else given
    except (OSError, ValueError):
        return given


def _ask(url: str, task: str, given: str, **query: str) -> "httpx.Response":
    import httpx

    from lepton_platform.stage import StageFailed
    from lepton_platform.tasks import load_part

    api = load_part(task, "api")
    request = api.from_command_line(_content(given))
    key = os.environ.get(KEY)
    headers = {**request.pop("headers", {}), **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        answer = httpx.post(f"{url}/predict", timeout=TIMEOUT_S, params=query, headers=headers, **request)
    except httpx.TimeoutException:
        raise StageFailed(f"The service of {task} gave no answer within {TIMEOUT_S:g} s.") from None
    except httpx.HTTPError:
        raise StageFailed(f"The service of {task} does not answer at {url}. `lepton up` starts it.") from None
    if answer.status_code in {401, 403}:
        raise StageFailed(f"The gateway wants a key in the environment variable {KEY}: {_why(answer)}")
    if answer.status_code != 200:
        what = "cannot answer now" if answer.status_code >= 500 else "refused this input"
        raise StageFailed(f"The service of {task} {what} ({answer.status_code}): {_why(answer)}")
    return answer


def _why(answer: "httpx.Response") -> str:
    """The words of a refusal; whatever something between here and the gateway said, where it is none."""
    try:
        return answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:SHOWN_CHARACTERS]


def _shown(answer: dict[str, Any]) -> str:
    """An answer on a line: what was written comes first, in quotes; numbers, labels, how many of what was found."""
    texts, words = [], []
    for name, value in answer.items():
        if isinstance(value, list):
            words.append(f"{len(value)} {name}")
        elif isinstance(value, str) and name not in ("id", "label"):
            texts.append(json.dumps(value, ensure_ascii=False))  # a line it stays, whatever is in it
        elif not isinstance(value, dict) and name != "id":
            words.append(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}")
    return "   ".join([*texts, " ".join(words)])


def predict(
    task: Annotated[str, typer.Argument(help="A task whose service runs.")],
    given: Annotated[str, typer.Argument(metavar="INPUT", help="The input itself, or a file that holds it.")],
    annotate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the input there, with the answer drawn on it.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Ask the running service; the answer's id can be given to `lepton trace`."""
    settings = open_workspace(workspace)
    chosen_tasks(settings, [task])
    url = service_url(settings, task)
    if annotate is not None:
        drawn = _ask(url, task, given, annotate="true")
        annotate.write_bytes(drawn.content)
        identifier, model = drawn.headers["x-prediction-id"], drawn.headers["x-model"]
        if as_json:
            print_json({"id": identifier, "model": model, "file": str(annotate)})
        else:
            say(f"{annotate}   id {identifier}   model {model}")
        return
    answer = _ask(url, task, given).json()
    if as_json:
        print_json(answer)
        return
    for one in answer["predictions"]:
        say(f"{_shown(one)}   id {one['id']}   model {answer['model']}")
