"""A workspace whose four tasks have small Bentos, and its services: supervisor, gateway, a worker a deployment."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from lepton_platform import processes
from lepton_platform.gateway import control
from lepton_platform.root import MARKER
from lepton_platform.serving.offers import deploy
from lepton_platform.serving.params import RolloutParams
from lepton_platform.settings import Settings
from lepton_platform.tasks import load_part
from tests.serving.conftest import build, frozen  # noqa: F401 - a fixture
from tests.serving.models import WORDS, write_classifier, write_detector, write_model, write_speech

TASKS = ("sentiment", "digits", "trees", "prompts")
WRITE: dict[str, Callable[[Path], Path]] = {
    "sentiment": lambda folder: write_model(folder, WORDS),
    "digits": write_classifier,
    "trees": write_detector,
    "prompts": write_speech,
}
_WAITS: dict[str, dict[str, Any]] = {"trees": {"max_waiting": 512, "max_wait_s": 30}, "prompts": {"max_wait_s": 30}}


def new_settings(folder: Path, tasks: tuple[str, ...] = TASKS, **more: Any) -> Settings:
    """A workspace's, whose services ask for no keys unless ``auth`` says otherwise; its limits let tests be quick."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("".join(f"{task}: {{}}\n" for task in tasks), "utf-8")
    values = {"auth": "off", **more}
    (folder / ".env").write_text("".join(f"LEPTON_{name.upper()}={value}\n" for name, value in values.items()), "utf-8")
    return Settings(workspace=folder, **values)


def offer(settings: Settings, task: str, bento: Path, test: Path | None = None, **more: Any) -> Any:
    """The first Bento of a task needs no ``test`` rows: it is compared with nothing."""
    judge = load_part(task, "metrics").EVALUATOR
    return deploy(settings, task, bento=bento, test=test or bento, params=RolloutParams(), judge=judge, **more)


@dataclass
class Serving:
    """Services that run; ``url`` is the gateway's."""

    settings: Settings
    started: control.Started
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    @property
    def url(self) -> str:
        return self.started.url

    def processes(self, module: str) -> list[psutil.Process]:
        """Those of the supervisor's that run this module: ``gateway.server``, ``serving.server``."""
        found = []
        for child in psutil.Process(self.started.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie has no command line
                if f"lepton_platform.{module}" in child.cmdline():
                    found.append(child)
        return found

    def predict(self, *texts: str, **more: Any) -> httpx.Response:
        return self.client.post(f"{self.url}/v1/sentiment/predict", json={"texts": list(texts)}, **more)

    def log(self) -> str:
        return self.started.log.read_text("utf-8")


@contextlib.contextmanager
def serve(settings: Settings, port: int = 0) -> Iterator[Serving]:
    """Services that are ready, and are ended with the block, however it ends: none outlives a test that failed."""
    started = control.start_services(settings, port)
    born, serving = processes.born(started.pid), Serving(settings, started)
    try:
        assert control.wait_ready(started.url, 90, started.pid), serving.log()
        yield serving
    finally:
        stopped = not processes.alive(started.pid, born) or control.stop(started.pid)
    assert stopped


@pytest.fixture(scope="session")
def bentos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bentos")
    return {task: build(folder / task, task, WRITE[task], **_WAITS.get(task, {})) for task in TASKS}


@pytest.fixture(scope="module")
def gateway(bentos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """All four tasks behind one address, without keys."""
    settings = new_settings(tmp_path_factory.mktemp("gateway"))
    for task, bento in bentos.items():
        offer(settings, task, bento)
    with serve(settings) as serving:
        yield serving


@pytest.fixture(scope="module")
def seen(bentos: dict[str, Path], frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:  # noqa: F811
    """Services that have something to tell, and ask for keys."""
    from tests.gateway.overseen import overseen

    with overseen(bentos, frozen, tmp_path_factory.mktemp("overseen")) as found:
        yield found
