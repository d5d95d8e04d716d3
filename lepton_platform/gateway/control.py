"""Start, await and stop the services from another process: what `lepton up` and `lepton down` call."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from lepton_platform.processes import alive
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

# Feast exports these where it is imported: figures then go to a folder of a process that the services outlive
_SHARED_METRICS = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


@dataclass(frozen=True)
class Started:
    """The services that were started: their supervisor's process, where they answer, where it logs."""

    pid: int
    url: str
    log: Path


def start_services(settings: Settings, port: int | None = None) -> Started:
    """Start the supervisor of all deployments, with its gateway on ``settings.host``; it outlives this process. Does not wait.

    The port (``settings.service_port``, 0 for a free one) is bound here, so that a port that is taken is this call's error
    and not a line in a log. ``StageFailed`` for that, and where nothing is deployed or keys are off for all the world.
    """
    from lepton_platform.gateway.access import Access
    from lepton_platform.serving.deployments import Deployments

    if settings.auth == "off":
        Access.off(settings.host)
    if not any(found.state == "champion" for found in Deployments(settings).live()):
        raise StageFailed("No task has a deployment yet, so there is nothing to serve. `lepton run` deploys.")
    listening = bind(settings.host, settings.service_port if port is None else port, "LEPTON_SERVICE_PORT")
    bound = listening.getsockname()[1]
    log = settings.state_dir / "logs" / "services.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lepton_platform.gateway.supervisor", "--fd", str(listening.fileno())]
    with listening, log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            pass_fds=(listening.fileno(),),
            env=_environment(settings),
            cwd=settings.workspace,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    return Started(process.pid, f"http://{settings.host}:{bound}", log)


def _environment(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SHARED_METRICS}
    return {**kept, "LEPTON_WORKSPACE": str(settings.workspace)}


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A listening socket; ``StageFailed`` where the port cannot be used. ``variable``: of the environment, chooses another."""
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            raise StageFailed(
                f"Port {port} on {host} cannot be used ({os.strerror(error.errno).lower()}). Stop what holds it, or "
                f"choose another with {variable}."
            ) from None
        raise


def wait_ready(url: str, timeout_s: float = 60.0, pid: int | None = None) -> bool:
    """Until ``<url>/readyz`` answers 200; ``False`` where it does not in time, or where ``pid`` has ended."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if pid is not None and not alive(pid):
            return False
        try:
            left = max(0.1, min(5.0, until - time.monotonic()))
            with urllib.request.urlopen(f"{url}/readyz", timeout=left):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    return False


def stop(pid: int, timeout_s: float = 30.0) -> bool:
    """Stop a supervisor and with it its workers, gently and then not; ``True`` when nothing is left of them."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return True
    _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=timeout_s)
    for straggler in left:
        _signal(straggler, signal.SIGKILL)
    return not psutil.wait_procs(left, timeout=5.0)[1]


def _signal(process: "object", number: int) -> None:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
