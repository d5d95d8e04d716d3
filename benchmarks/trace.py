"""How long the past of an answer takes to find among a million: ``python -m benchmarks.trace WORKSPACE [ROWS]``.

WORKSPACE is a finished one with a deployment of ``sentiment``. The log is made in a workspace beside it, which shares its
files: as many rows as asked for, written as a service writes them, spread over days. Ids are drawn from all of it.
"""

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import machine, table, write_section
from lepton_platform.cli.serve import SERVICES, start_services
from lepton_platform.gateway.control import stop, wait_ready
from lepton_platform.serving.deployments import champion
from lepton_platform.serving.log_reader import find
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.settings import Settings, use_workspace

TASK = "sentiment"
BATCH_ROWS, LOOKUPS = 4096, 200
PROMISED_MS = 200.0


def beside(workspace: Path, folder: Path) -> Path:
    """A workspace of its own live state whose graph is the other one's."""
    for path in workspace.iterdir():
        if path.name not in {".lepton", ".dvc", ".git"}:
            (folder / path.name).symlink_to(path)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "cache").symlink_to(workspace / ".dvc" / "cache")
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n", "utf-8")
    shutil.copytree(workspace / ".lepton", folder / ".lepton", ignore=shutil.ignore_patterns("predictions", "*.sock"))
    return folder


def fill(settings: Settings, rows: int) -> list[str]:
    """Write the log; some of the ids, from its beginning to its end."""
    serving = champion(settings, TASK)
    assert serving is not None
    log = DurableLog(settings.predictions_dir / TASK, "predictions")
    text = "A charming, thoughtful film with a heart, and two hours that pass like one. " * 2
    made = {"model": serving.tag, "deployment": str(serving.id), "text": text, "label": "fresh", "score": 0.98}
    made |= {"scores": {"fresh": 0.98, "rotten": 0.02}, "latency_ms": 4.2}
    ids: list[str] = []
    for _ in range(0, rows, BATCH_ROWS):
        ids += random.sample(log.append([made] * BATCH_ROWS), 2)
    log.close()
    return ids


def milliseconds(work, given: list) -> list[float]:
    taken = []
    for one in given:
        begun = time.perf_counter()
        work(one)
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def served(settings: Settings, work, given: list) -> list[float]:
    """The same while the gateway runs, but for its first answer."""
    services = start_services(settings, 0)[SERVICES]
    try:
        assert wait_ready(services["url"], pid=services["pid"])
        return milliseconds(work, given)[1:]
    finally:
        assert stop(services["pid"])


def main() -> None:
    workspace, rows = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    random.seed(0)
    with tempfile.TemporaryDirectory(prefix="trace-") as name:
        settings = use_workspace(beside(workspace, Path(name)))
        ids = random.sample(fill(settings, rows), LOOKUPS)
        size = sum(path.stat().st_size for path in settings.predictions_dir.rglob("*.jsonl")) >> 20
        from lepton_platform.pipeline.trace import trace

        row = milliseconds(lambda i: find(settings.predictions_dir, TASK, i), ids)
        first = milliseconds(lambda i: trace(settings, i), ids[:1])
        whole = milliseconds(lambda i: trace(settings, i), ids[1:50])
        lepton = [str(Path(sys.executable).with_name("lepton")), "trace", "--json", "-w", name]
        typed = milliseconds(lambda i: subprocess.run([*lepton, i], check=True, capture_output=True), ids[:10])
        asked = served(settings, lambda i: subprocess.run([*lepton, i], check=True, capture_output=True), ids[:31])
        nothing = [str(Path(sys.executable).with_name("lepton")), "--version"]
        bare = milliseconds(lambda _: subprocess.run(nothing, check=True, capture_output=True), ids[:10])
    named = {
        "the row, among all": row,
        "the whole past, first in a process": first,
        "the whole past, as the gateway answers it": whole,
        "**`lepton trace` while the gateway runs**, interpreter and imports included": asked,
        "`lepton trace` where none runs": typed,
        "`lepton --version`, for comparison": bare,
    }
    cells = [[what, f"{statistics.median(taken):.1f}", f"{max(taken):.1f}"] for what, taken in named.items()]
    said = f"{rows:,} predictions in the log ({size:,} MiB). Promised: {PROMISED_MS:g} ms.\n\n"
    write_section("trace", f"{machine()}\n\n{said}{table(['', 'median, ms', 'longest, ms'], cells)}")


if __name__ == "__main__":
    main()
