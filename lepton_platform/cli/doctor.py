"""`lepton doctor`: what is installed, what is missing, what to type."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import typer

from lepton_platform.cli.common import FAILED, Workspace, console

TOOLS = ("dagster", "dvc", "torch", "great-expectations", "feast", "bentoml", "evidently", "onnxruntime")
CLIENTS = {"git": "apt-get install git", "npm": "apt-get install npm (only for data that npm packages carry)"}


def _tool_rows() -> list[tuple[str, str, str]]:
    rows = []
    for name in TOOLS:
        try:
            rows.append((name, version(name), ""))
        except PackageNotFoundError:
            rows.append((name, "missing", "make install"))
    return rows


def _machine_rows() -> list[tuple[str, str, str]]:
    import psutil

    free = shutil.disk_usage(".").free
    rows = [
        ("python", platform.python_version(), ""),
        ("cores", str(psutil.cpu_count()), ""),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB", ""),
        ("free disk", f"{free / 2**30:.1f} GiB", "" if free > 10 * 2**30 else "free some space: 10 GiB are wanted"),
    ]
    gpus = shutil.which("nvidia-smi")
    rows.append(("GPU driver", "found" if gpus else "none: training runs on the CPU", ""))
    for name, remedy in CLIENTS.items():
        rows.append((name, "found" if shutil.which(name) else "missing", "" if shutil.which(name) else remedy))
    return rows


def doctor(workspace: Workspace = None) -> None:
    """What is installed, what is missing, what to type."""
    from rich.table import Table

    from lepton_platform.root import MARKER
    from lepton_platform.settings import use_workspace

    settings = use_workspace(workspace)
    rows = [*_tool_rows(), *_machine_rows()]
    is_workspace = (settings.workspace / MARKER).is_file()
    made = "" if is_workspace else f"lepton init {settings.workspace}"
    rows.append(("workspace", str(settings.workspace), made))
    if is_workspace:
        from lepton_platform.pipeline import dvcfile

        stale = dvcfile.stale_files(settings.workspace)
        rows.append(("dvc.yaml", "out of date" if stale else "current", "lepton versioning render" if stale else ""))
    table = Table("what", "is", "to do")
    for row in rows:
        table.add_row(*row)
    console().print(table)
    if any(what in TOOLS and state == "missing" for what, state, _ in rows):
        raise typer.Exit(FAILED)
