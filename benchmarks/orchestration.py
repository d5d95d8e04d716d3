"""What orchestration costs: ``python -m benchmarks.orchestration [--profile smoke|demo] [--write]``.

``lepton run --force`` (Dagster, DVC, ledger, training in a child process) beside a script that calls the same stage
functions (``benchmarks.plain``), each in a fresh interpreter on a fresh workspace of its own; the order turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.report import ROOT, Others, machine, table, write_section
from lepton_platform.pipeline.ledger import Ledger
from lepton_platform.pipeline.params import workspace_tasks
from lepton_platform.pipeline.stages import STAGES
from lepton_platform.settings import STORES, Settings, use_workspace

LAST = STAGES[-1].name
NOTES = """\
Wall time of the whole command, with the start of its interpreter and every import; CPU time is that of all its
processes. Both faces left the same bytes: the DVC hash of every stage's folder is compared. Downloads are warm."""


@dataclass
class Took:
    """One command. ``stages``: seconds inside the stage functions' own calls."""

    wall_s: float
    cpu_s: float
    stages: dict[str, float]
    output: str = ""


def timed(command: list[str], workspace: Path) -> Took:
    environment = {k: v for k, v in os.environ.items() if k not in STORES and k != "LEPTON_WORKSPACE"}
    environment |= {"DAGSTER_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)}
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Took(wall, cpu, {}, done.stdout)


def lepton(*words: str, workspace: Path) -> Took:
    return timed([str(Path(sys.executable).with_name("lepton")), *words, "-w", str(workspace)], workspace)


def made(folder: Path, profile: str) -> Path:
    folder.mkdir()
    lepton("init", str(folder), "--profile", profile, workspace=folder)
    return folder


def with_lepton(workspace: Path, task: str) -> Took:
    took = lepton("run", task, "--force", "--upto", LAST, workspace=workspace)
    ledger = Ledger(use_workspace(workspace))
    done = {stage.name: ledger.last_done(task, stage.name) for stage in STAGES}
    took.stages = {name: attempt.seconds for name, attempt in done.items() if attempt is not None}
    return took


def plainly(workspace: Path, task: str) -> Took:
    took = timed([sys.executable, "-m", "benchmarks.plain", str(workspace), task], workspace)
    took.stages = json.loads(took.output.splitlines()[-1])
    return took


def hashes(workspace: Path, task: str) -> dict[str, str]:
    from lepton_platform.pipeline.versioning import tree_hash

    settings: Settings = use_workspace(workspace)
    return {stage.name: tree_hash(settings.path(stage.path(task))) for stage in STAGES}


def one_round(folder: Path, profile: str, number: int) -> tuple[Took, Took]:
    """(with us, without), on two new workspaces; ``SystemExit`` where they leave different bytes."""
    folder.mkdir()
    mine, other = (made(folder / name, profile) for name in ("lepton", "plain"))
    task = workspace_tasks(mine)[0]
    if number % 2:
        without = plainly(other, task)
        ours = with_lepton(mine, task)
    else:
        ours = with_lepton(mine, task)
        without = plainly(other, task)
    here, there = hashes(mine, task), hashes(other, task)
    if different := [name for name in here if here[name] != there[name]]:
        raise SystemExit(f"The two left different bytes: {', '.join(different)}.")
    return ours, without


def render(words: str, ours: list[Took], plain: list[Took], again_s: float) -> str:
    def row(name: str, of: list[float], to: list[float]) -> list[str]:
        return [name, f"{mean(of):.1f}", f"{mean(to):.1f}", f"{mean(of) / mean(to):.2f}"]

    rows = [row(s.name, [t.stages[s.name] for t in ours], [t.stages[s.name] for t in plain]) for s in STAGES]
    rows += [
        row("**whole command**", [t.wall_s for t in ours], [t.wall_s for t in plain]),
        row("CPU time of it", [t.cpu_s for t in ours], [t.cpu_s for t in plain]),
    ]
    head = ["seconds", "`lepton run --force`", "plain script", "ratio"]
    said = f"`lepton run` again, when everything is fresh, takes {again_s:.1f} s."
    return "\n\n".join([words, table(head, rows), said, NOTES])


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.orchestration", description=__doc__)
    parser.add_argument("--profile", choices=("smoke", "demo"), default="smoke")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    chosen = parser.parse_args()
    others = Others()
    with tempfile.TemporaryDirectory(prefix="lepton-benchmark-") as folder:
        pairs = [one_round(Path(folder) / str(n), chosen.profile, n) for n in range(chosen.rounds)]
        mine = Path(folder) / "0" / "lepton"
        task = workspace_tasks(mine)[0]
        again = lepton("run", task, "--upto", LAST, workspace=mine)
    ours, plain = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    rounds = "" if chosen.rounds == 1 else f", mean of {chosen.rounds} rounds"
    words = f"{machine()} {others.words([])} Profile `{chosen.profile}`, task `{task}`{rounds}."
    text = render(words, ours, plain, again.wall_s)
    print(text)
    if chosen.write:
        write_section("orchestration", text)


if __name__ == "__main__":
    main()
