"""The supervisor: ready, stopped without leftovers, what dies is started again, what may not be loaded is not."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lepton_platform.gateway import control
from lepton_platform.processes import alive, born
from lepton_platform.serving.audit import changes
from lepton_platform.serving.deployments import Deployments
from lepton_platform.serving.log_reader import hours, read_rows
from lepton_platform.serving.offers import shadow
from lepton_platform.serving.store import stored, tag_of
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from tests.gateway.conftest import Serving, new_settings, offer, serve
from tests.serving.conftest import make_bento

TASK = "sentiment"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return new_settings(tmp_path, (TASK,))


@pytest.fixture
def serving(settings: Settings, bentos: dict[str, Path]) -> Iterator[Serving]:
    offer(settings, TASK, bentos[TASK])
    with serve(settings) as running:
        yield running


def test_it_serves_from_the_store_and_leaves_nothing_behind(serving: Serving, bentos: dict[str, Path]) -> None:
    assert serving.predict("good").json()["model"] == tag_of(bentos[TASK])
    [worker], gateways = serving.processes("serving.server"), serving.processes("gateway.server")
    assert len(gateways) == 2  # one stands by
    assert Path(worker.cwd()).is_relative_to(serving.settings.bentoml_home)
    family = [worker, *gateways, psutil.Process(serving.started.pid)]
    listening = [c.laddr for p in family for c in p.net_connections("inet") if c.status == "LISTEN"]
    assert {address.ip for address in listening} == {"127.0.0.1"} and len({a.port for a in listening}) == 1
    sockets = serving.settings.state_dir / "run"
    assert sockets.stat().st_mode & 0o077 == 0 and len(list(sockets.glob("*.sock"))) == 1
    with pytest.raises(StageFailed, match="cannot be used"):
        control.start_services(serving.settings, listening[0].port)
    assert control.stop(serving.started.pid) and control.stop(serving.started.pid)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not list(sockets.glob("*.sock"))
    assert not control.wait_ready(serving.url, 1, serving.started.pid)
    folder = serving.settings.predictions_dir
    [row] = [r for hour in hours(folder, TASK) for r in read_rows(folder, TASK, hour)]
    assert row["deployment"] == "1"


def test_it_rests_while_nobody_asks(serving: Serving) -> None:
    supervisor, before = psutil.Process(serving.started.pid), 0.0
    time.sleep(1)
    before = sum(supervisor.cpu_times()[:2])
    time.sleep(4)
    assert sum(supervisor.cpu_times()[:2]) - before < 0.4, "more than a tenth of a core for nothing"


def test_nothing_outlives_its_supervisor(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    family = [*serving.processes("serving.server"), *serving.processes("gateway.server")]
    os.kill(serving.started.pid, 9)
    os.waitpid(serving.started.pid, 0)
    psutil.wait_procs(family, timeout=20)
    assert not [process for process in family if process.is_running()]
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/gone")  # Feast's, of a process that has ended since
    with serve(serving.settings, int(serving.url.rpartition(":")[2])) as again:
        assert again.predict("good").status_code == 200


def test_services_end_with_a_test_that_fails(settings: Settings, bentos: dict[str, Path]) -> None:
    offer(settings, TASK, bentos[TASK])
    family = []
    with pytest.raises(AssertionError, match="on purpose"), serve(settings) as running:
        family += [psutil.Process(running.started.pid), *running.processes("serving.server")]
        raise AssertionError("on purpose")
    assert len(family) == 2 and not [process for process in family if process.is_running()]


def test_a_bento_that_was_tampered_with_is_not_loaded(
    serving: Serving, bentos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_bento(tmp_path_factory.mktemp("other"), max_batch=3)
    model = stored(serving.settings.bentoml_home, tag_of(other)) / "src/model/model.onnx"
    from lepton_platform.serving.signing import Keys
    from lepton_platform.serving.store import import_bento

    import_bento(serving.settings.bentoml_home, other, Keys.of(serving.settings))
    content = model.read_bytes()
    model.chmod(0o644)
    made = shadow(serving.settings, TASK, other)
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    until = time.monotonic() + 30
    workers = serving.processes("serving.server")
    # it may have been started before its file was changed; its next process is not
    while time.monotonic() < until and Deployments(serving.settings).known(made.id).state == "shadow":
        for worker in serving.processes("serving.server"):
            if worker.pid not in {w.pid for w in workers[:1]}:
                worker.kill()
        time.sleep(0.2)
    last = changes(Deployments(serving.settings).engine, TASK)[0]
    assert last.action == "refused to load" and "model.onnx" in last.why
    assert serving.predict("good").json()["model"] == tag_of(bentos[TASK])


def test_a_pid_that_another_program_has_now_is_not_ours() -> None:
    since = born(os.getpid())
    assert since is not None and alive(os.getpid(), since) and alive(os.getpid())
    assert not alive(os.getpid(), since - 3600)
    ended = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(ended, 0)
    assert born(ended) is None and not alive(ended)


def test_without_a_deployment_there_is_nothing_to_serve(settings: Settings) -> None:
    with pytest.raises(StageFailed, match="No task has a deployment"):
        control.start_services(settings, 0)


def test_without_keys_only_this_machine_is_served(tmp_path: Path, bentos: dict[str, Path]) -> None:
    settings = new_settings(tmp_path, (TASK,), host="0.0.0.0")
    offer(settings, TASK, bentos[TASK])
    with pytest.raises(StageFailed, match="LEPTON_AUTH"):
        control.start_services(settings, 0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        assert free  # nothing was left listening, and nothing was started
