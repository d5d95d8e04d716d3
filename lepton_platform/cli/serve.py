"""`lepton up` and `lepton down`: Dagster's UI and daemon, the services, Evidently's UI; all on loopback."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.cli.common import Workspace, console, open_workspace, say

if TYPE_CHECKING:
    from lepton_platform.settings import Settings

READY_S = 120.0
DEFINITIONS = "lepton_platform.definitions"
UP = "up.json"  # what was started: name → process, address
SERVICES = "services"


def _book(settings: "Settings") -> Path:
    return settings.state_dir / UP


def _running(settings: "Settings") -> dict[str, dict[str, Any]]:
    """What was started and is still there: name → pid, url."""
    from lepton_platform.processes import alive

    path = _book(settings)
    started = json.loads(path.read_text()) if path.is_file() else {}
    return {name: entry for name, entry in started.items() if alive(entry["pid"], entry.get("born"))}


def services_url(settings: "Settings") -> str | None:
    """Where the services answer that were started in this workspace; ``None`` where they do not run."""
    entry = _running(settings).get(SERVICES)
    return entry["url"] if entry else None


def _write(settings: "Settings", started: dict[str, dict[str, Any]]) -> None:
    beside = _book(settings).with_suffix(".tmp")
    beside.write_text(json.dumps(started, indent=2))
    beside.replace(_book(settings))


def _commands(settings: "Settings") -> dict[str, tuple[list[str], str | None]]:
    """Name → command and the address that answers when it is ready (none: nothing listens)."""
    programs, host = Path(sys.executable).parent, settings.host
    ui, reports = str(settings.ui_port), str(settings.evidently_port)
    webserver = [str(programs / "dagster-webserver"), "-h", host, "-p", ui, "-m", DEFINITIONS]
    evidently = [str(programs / "evidently"), "ui", "--host", host, "--port", reports]
    return {
        "dagster ui": (webserver, f"http://{host}:{ui}"),
        "dagster daemon": ([str(programs / "dagster-daemon"), "run", "-m", DEFINITIONS], None),
        "evidently ui": ([*evidently, "--workspace", str(settings.evidently_dir)], f"http://{host}:{reports}"),
    }


def _spawn(settings: "Settings", name: str, command: list[str]) -> int:
    log = settings.state_dir / "logs" / f"{name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            cwd=settings.workspace,
            # Dagster reads .env over again, whose paths begin with ${PWD}: a shell's, which is not always our cwd
            env={**os.environ, "PWD": str(settings.workspace)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    return process.pid


def _wait(url: str, pid: int, until: float) -> bool:
    import urllib.error
    import urllib.request

    from lepton_platform.processes import alive

    while time.monotonic() < until and alive(pid):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            if error.code != 503:  # of a service that starts
                return True
            time.sleep(0.2)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    return False


def start_services(settings: "Settings", port: int | None = None) -> dict[str, dict[str, Any]]:
    """Start the gateway and its workers unless they run, and write down where; returns all that runs."""
    from lepton_platform.gateway import control
    from lepton_platform.processes import born

    started = _running(settings)
    if SERVICES not in started:
        services = control.start_services(settings, port)
        made = {"pid": services.pid, "born": born(services.pid)}
        started[SERVICES] = {**made, "url": services.url, "ready": f"{services.url}/readyz"}
        _write(settings, started)
    return started


def _start(settings: "Settings") -> dict[str, dict[str, Any]]:
    from lepton_platform.gateway.control import bind
    from lepton_platform.processes import born

    running = _running(settings)
    for name, port, variable in (
        ("dagster ui", settings.ui_port, "LEPTON_UI_PORT"),
        ("evidently ui", settings.evidently_port, "LEPTON_EVIDENTLY_PORT"),
    ):
        if name not in running:  # another's UI at the port would answer, and be taken for ours
            bind(settings.host, port, variable).close()
    started = start_services(settings)
    settings.evidently_dir.mkdir(parents=True, exist_ok=True)
    for name, (command, url) in _commands(settings).items():
        if name not in started:
            pid = _spawn(settings, name, command)
            started[name] = {"pid": pid, "born": born(pid), "url": url, "ready": url}
            _write(settings, started)
    return started


def up(workspace: Workspace = None) -> None:
    """Start the UI, the services and the monitoring; ready when this returns."""
    settings = open_workspace(workspace)
    settings.state_dir.mkdir(exist_ok=True)
    from lepton_platform.stage import StageFailed

    started = _start(settings)
    until = time.monotonic() + READY_S
    late = [n for n, e in started.items() if e["ready"] and not _wait(e["ready"], e["pid"], until)]
    if late:
        raise StageFailed(
            f"Not ready within {READY_S:.0f} s: {', '.join(late)}. The logs are in {settings.state_dir / 'logs'}; "
            "`lepton down` stops what runs."
        )
    from rich.table import Table

    table = Table("what", "where")
    for name, entry in started.items():
        table.add_row(name, entry["url"] or f"process {entry['pid']}")
    console().print(table)
    say("`lepton down` stops all of it.")


def down(workspace: Workspace = None) -> None:
    """Stop what `lepton up` started."""
    settings = open_workspace(workspace)
    from lepton_platform.gateway.control import stop

    running = _running(settings)
    left = {name: entry for name, entry in reversed(running.items()) if not stop(entry["pid"])}
    _book(settings).unlink(missing_ok=True)
    if left:
        _write(settings, left)  # the next `lepton down` tries again
        from lepton_platform.stage import StageFailed

        raise StageFailed(f"Could not stop: {', '.join(left)}.")
    say(f"Stopped: {', '.join(running)}." if running else "Nothing was running.")
