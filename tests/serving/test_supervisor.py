"""The supervisor: ready, stopped without leftovers, a worker's death mended, a champion handed over to."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from lepton_platform.serving import control
from lepton_platform.serving.deployments import deploy
from lepton_platform.serving.log_reader import hours, read_rows
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.store import tag_of
from lepton_platform.settings import MARKER, Settings
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment.metrics import EVALUATOR
from tests.serving.conftest import make_bento

TASK = "sentiment"
RULE = RolloutParams()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / MARKER).write_text("sentiment: {}\n", "utf-8")
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    return Settings(workspace=tmp_path)


@pytest.fixture
def started(settings: Settings, bento: Path, frozen: Path) -> Iterator[control.Started]:
    deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR)
    service = control.start_service(settings, TASK, 0)
    assert control.wait_ready(service.url, 60, service.pid), service.log.read_text()
    yield service
    assert control.stop(service.pid)


def workers(service: control.Started) -> list[psutil.Process]:
    return psutil.Process(service.pid).children(recursive=True)


def ask(client: httpx.Client, service: control.Started) -> str:
    answer = client.post(f"{service.url}/predict", json={"texts": ["good"]}, timeout=60)
    answer.raise_for_status()
    return answer.json()["model"]


def test_it_serves_from_the_store_and_leaves_nothing_behind(
    settings: Settings, started: control.Started, bento: Path
) -> None:
    with httpx.Client() as client:
        assert ask(client, started) == tag_of(bento)
    [worker] = workers(started)
    assert Path(worker.cwd()).is_relative_to(settings.bentoml_home)
    listening = [
        c.laddr for p in (worker, psutil.Process(started.pid)) for c in p.net_connections() if c.status == "LISTEN"
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"} and len({a.port for a in listening}) == 1
    with pytest.raises(StageFailed, match="cannot be used"):
        control.start_service(settings, TASK, listening[0].port)
    family = [worker, psutil.Process(started.pid)]
    assert control.stop(started.pid) and control.stop(started.pid)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not control.wait_ready(started.url, 1, started.pid)
    [row] = [
        r for hour in hours(settings.predictions_dir, TASK) for r in read_rows(settings.predictions_dir, TASK, hour)
    ]
    assert row["deployment"] == "1"


def test_a_worker_that_dies_is_started_again(started: control.Started) -> None:
    [worker] = workers(started)
    worker.kill()
    with httpx.Client(timeout=60) as client:  # the port stays bound: whoever comes meanwhile waits
        assert ask(client, started)
    [other] = workers(started)
    assert other.pid != worker.pid


def test_no_worker_outlives_its_supervisor(settings: Settings, started: control.Started) -> None:
    [worker] = workers(started)
    os.kill(started.pid, 9)
    os.waitpid(started.pid, 0)
    worker.wait(20)
    service = control.start_service(settings, TASK, int(started.url.rpartition(":")[2]))
    assert control.wait_ready(service.url, 60, service.pid)
    assert control.stop(service.pid)


def test_a_new_champion_takes_over_and_nobody_is_refused(
    settings: Settings,
    started: control.Started,
    bento: Path,
    frozen: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    other = make_bento(tmp_path_factory.mktemp("other"), max_batch=3)
    seen: list[str] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            try:  # a connection a request: what a keep-alive client does when its connection was closed
                with httpx.Client() as client:
                    seen.append(ask(client, started))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert deploy(settings, TASK, bento=other, test=frozen, params=RULE, judge=EVALUATOR).promoted
    until = time.monotonic() + 60
    while time.monotonic() < until and (not seen or seen[-1] != tag_of(other)):
        stop.wait(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and seen[0] == tag_of(bento) and seen[-1] == tag_of(other)


def test_a_pid_that_another_program_has_now_is_not_ours() -> None:
    since = control.born(os.getpid())
    assert since is not None and control.alive(os.getpid(), since) and control.alive(os.getpid())
    assert not control.alive(os.getpid(), since - 3600)
    ended = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(ended, 0)
    assert control.born(ended) is None and not control.alive(ended)


def test_without_a_deployment_there_is_nothing_to_serve(settings: Settings) -> None:
    with pytest.raises(StageFailed, match="no deployment"):
        control.start_service(settings, TASK, 0)
