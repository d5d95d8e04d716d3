"""One Bento for the whole folder, one service process a module."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.gateway.control import wait_ready
from lepton_platform.serving.bento import bento as build_bento
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.params import ServeParams
from lepton_platform.tasks import load_part
from tests.serving.models import WORDS, write_model, write_speech

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("contract", "features", "dataset", "model", "quality", "reference")


def make_bento(folder: Path, words: dict[str, float] | None = None, **params: Any) -> Path:
    """A Bento of reviews, with a bag of words."""
    return build(folder, "sentiment", lambda compressed: write_model(compressed, words or WORDS), **params)


def build(folder: Path, task: str, write: Callable[[Path], Path], **params: Any) -> Path:
    """Run the stage on small inputs; ``write`` leaves the model. Returns the Bento's folder."""
    inputs = {name: folder / name for name in INPUTS}
    for name, path in inputs.items():
        path.mkdir(parents=True, exist_ok=True)
        (path / "result.json").write_text(json.dumps({"of": name}), "utf-8")
    metrics = {"accuracy": 0.81, "accuracy_ci95": [0.79, 0.83], "confusion": [[1, 2], [3, 4]]}
    (inputs["quality"] / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    out = folder / "bento"
    out.mkdir()
    build_bento(
        **inputs,
        compressed=write(folder / "compressed"),
        out=out,
        params=ServeParams.model_validate(params),
        task=task,
        all_params={"serve": params, "train": {"seed": 1}},
        versions={"dataset": "0123.dir"},
        api=load_part(task, "api"),
        preprocess=load_part(task, "preprocess"),
    )
    return out


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bento(tmp_path_factory.mktemp("bento"))


@dataclass
class Running:
    """A service process; ``log`` is the folder of its predictions."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    def predict(self, *texts: str) -> dict[str, Any]:
        answer = self.client.post(f"{self.url}/predict", json={"texts": list(texts)})
        answer.raise_for_status()
        return answer.json()


def start(bento: Path, log: Path, deployment: str = "7", **environment: str) -> Running:
    """`python -m lepton_platform.serving.server` in the Bento's own folder, on a free port of its choice."""
    import socket

    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    command = [sys.executable, "-m", "lepton_platform.serving.server", "--bento", str(bento), "--predictions", str(log)]
    command += ["--fd", str(listening.fileno()), "--parent", str(os.getpid()), "--deployment", deployment]
    process = subprocess.Popen(
        command, cwd=bento / "src", pass_fds=[listening.fileno()], env={**os.environ, **environment}
    )
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    assert wait_ready(url, 60, process.pid)
    return Running(url, log, process)


@pytest.fixture(scope="module")
def service(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(bento, tmp_path_factory.mktemp("log"))
    yield running
    running.process.terminate()
    assert running.process.wait(20) in {0, -signal.SIGTERM}  # uvicorn ends by the signal that it was given
    segments = [path for path in running.log.rglob("*.jsonl")]
    assert segments and not any(b"\0" in path.read_bytes() for path in segments), "the log was not closed"


@pytest.fixture(scope="session")
def speech_bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("speech"), "prompts", write_speech, max_wait_s=30)


@pytest.fixture(scope="module")
def prompts(speech_bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that hears a word in every tone."""
    running = start(speech_bento, tmp_path_factory.mktemp("log"))
    yield running
    running.process.terminate()
    running.process.wait(20)


@pytest.fixture(scope="session")
def speech_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The same model without a service."""
    model = write_speech(tmp_path_factory.mktemp("speech"))
    return Engine(model, load_part("prompts", "api"), load_part("prompts", "preprocess"))  # pyright: ignore[reportArgumentType]


Starter = Callable[..., Running]


@pytest.fixture
def starter(bento: Path, tmp_path: Path) -> Iterator[Starter]:
    """Start services that the test itself stops or kills."""
    made: list[Running] = []

    def begin(log: Path | None = None, folder: Path | None = None) -> Running:
        made.append(start(folder or bento, log or tmp_path / "log"))
        return made[-1]

    yield begin
    for running in made:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 reviews of 50 films; a third of the rotten ones call the film dull."""
    rows = []
    for number in range(300):
        text, label = [("good film", "fresh"), ("bad film", "rotten"), ("dull", "rotten")][number % 3]
        when = datetime(2020, 1, 1, tzinfo=UTC)
        rows.append(
            {"id": f"r{number:04}", "event_time": when, "text": text, "label": label, "film_id": f"f{number % 50}"}
        )
    folder = tmp_path_factory.mktemp("test")
    Dataset(folder).write(pa.Table.from_pylist(rows))
    return folder
