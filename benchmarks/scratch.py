"""Services in a scratch workspace, as `lepton up` starts them, with Bentos and test rows of a finished one."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving import free_port
from lepton_platform.data.dataset import Dataset
from lepton_platform.gateway.control import Started, start_services, stop, wait_ready
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.root import MARKER
from lepton_platform.serving.bento import bento as build
from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.offers import deploy
from lepton_platform.serving.params import RolloutParams, ServeParams
from lepton_platform.settings import STORES, Settings
from lepton_platform.tasks import load_part


def clean_environment() -> None:
    """No store and no workspace of the one who calls."""
    for name in (*STORES, "LEPTON_WORKSPACE", "LEPTON_AUTH"):
        os.environ.pop(name, None)


def left_by(workspace: Path, stage: str, task: str) -> Path:
    return workspace / get_stage(stage).path(task)


def bodies(workspace: Path, task: str, many: int, path: Path) -> Path:
    """The first test rows by id as requests of one input, a line each, written to ``path``."""
    content = load_part(task, "preprocess").CONTENT
    name = next(iter(load_part(task, "api").EXAMPLE))
    rows = Dataset(left_by(workspace, "dataset", task) / "test").read(["id", content]).sort_by("id")
    values = [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in rows[content].to_pylist()[:many]]
    path.write_text("".join(json.dumps({name: [value]}) + "\n" for value in values), "utf-8")
    return path


def variant(workspace: Path, task: str, out: Path, **service: Any) -> Path:
    """The workspace's model in another Bento: its stage run on the same inputs with other tunables of the service."""
    stage = get_stage("bento")
    made = json.loads((left_by(workspace, "bento", task) / MANIFEST).read_text("utf-8"))
    params = made["parameters"]
    out.mkdir(parents=True)
    build(
        **{name: left_by(workspace, name, task) for name in stage.inputs},
        out=out,
        params=ServeParams.model_validate({**made["service"], **service}),
        task=task,
        all_params={**params, "serve": {**params["serve"], **service}},
        versions=made["versions"],
        api=load_part(task, "api"),
        preprocess=load_part(task, "preprocess"),
    )
    return out


def new_workspace(folder: Path, auth: str, bentos: Mapping[str, Path]) -> Settings:
    """With the first champion of each task in its store: it was compared with nothing."""
    folder.mkdir(parents=True)
    set_params(folder, {task: {} for task in bentos})
    (folder / ".env").write_text(f"LEPTON_AUTH={auth}\n", "utf-8")
    settings = Settings.model_validate({"workspace": folder, "auth": auth})
    for task, bento in bentos.items():
        judge = load_part(task, "metrics").EVALUATOR
        deploy(settings, task, bento=bento, test=bento, params=RolloutParams.model_validate({}), judge=judge)
    return settings


def set_params(folder: Path, tasks: Mapping[str, Any]) -> None:
    (folder / MARKER).write_text(json.dumps(tasks), "utf-8")  # JSON is YAML


@contextmanager
def services(settings: Settings) -> Iterator[Started]:
    started = start_services(settings, 0)
    try:
        if not wait_ready(started.url, 120, started.pid):
            raise SystemExit(f"The services do not start:\n{started.log.read_text('utf-8')[-3000:]}")
        yield started
    finally:
        stop(started.pid)


def processes(supervisor: int, *words: str) -> list[psutil.Process]:
    """Those of a supervisor's whose command line has these words one after another."""
    found = []
    for child in psutil.Process(supervisor).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie has no command line
            if f" {' '.join(words)} " in f" {' '.join(child.cmdline())} ":
                found.append(child)
    return found


def alone(place: Path, predictions: Path, stack: ExitStack) -> tuple[str, int]:
    """A worker as the supervisor starts it, on a port of its own; its address and its pid."""
    port = free_port()
    command = [sys.executable, "-m", "lepton_platform.serving.server", "--bento", str(place), "--port", str(port)]
    command += ["--predictions", str(predictions), "--deployment", "1"]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    predictions.mkdir(parents=True, exist_ok=True)
    log = stack.enter_context((predictions.parent / "alone.log").open("ab"))
    process = subprocess.Popen(command, cwd=place / "src", env=quiet, stdout=log, stderr=log, start_new_session=True)
    stack.callback(stop, process.pid)
    url = f"http://127.0.0.1:{port}"
    if not wait_ready(url, 60, process.pid):
        raise SystemExit(f"A worker of {place} does not start.")
    return f"{url}/predict", process.pid
