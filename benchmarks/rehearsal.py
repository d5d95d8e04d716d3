"""How long `lepton rehearse` plays for each family, and what the loop has won: ``python -m benchmarks.rehearsal --write``.

Each task is played in a scratch workspace by the command itself, one after the other; nothing of this workspace is used.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Others, machine, table, write_section
from benchmarks.scratch import clean_environment

TASKS = ("sentiment", "trees", "prompts")  # language, vision, speech
MOST_S = 900.0  # what is promised of all three
NOTES = """\
Each plays three endings, one after the other: a shift that is learnt and promoted, a challenger that was spoilt and is
refused, a canary that fails and is turned back. Figures are the task's own (accuracy, AP50, word accuracy) with 95 % intervals;
the difference on what is new is of inputs that nothing was trained on."""


def played(task: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="lepton-benchmark-") as folder:
        command = [str(Path(sys.executable).with_name("lepton")), "rehearse", task, "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if not done.stdout.lstrip().startswith("{"):
        raise SystemExit(f"{task}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def row(told: dict[str, Any]) -> list[str]:
    endings = {ending["name"]: ending for ending in told["endings"]}
    hoped = ", ".join(f"{name} {'yes' if one['as_hoped'] else '**no**'}" for name, one in endings.items())
    figures = endings["promotion"]["figures"]
    shown = [_ends(figures[name]) if name in figures else "–" for name in ("before", "after", "difference")]
    frozen = _ends({"estimate": figures["test"]["difference"], **figures["test"]}) if figures.get("test") else "–"
    return [told["task"], f"{told['seconds']:.0f}", *shown, frozen, hoped]


def _ends(found: dict[str, float]) -> str:
    return f"{found['estimate']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.rehearsal", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    chosen = parser.parse_args()
    clean_environment()
    others = Others()
    told = [played(task) for task in chosen.tasks]
    total = sum(one["seconds"] for one in told)
    head = ["", "s", "on what is new, before", "after", "difference", "frozen test, difference", "as hoped"]
    words = f"{machine()} {others.words([])} {total:.0f} s in all; {MOST_S:.0f} are promised of {', '.join(TASKS)}."
    text = "\n\n".join([words, table(head, [row(one) for one in told]), NOTES])
    print(text)
    if chosen.write:
        write_section("rehearsal", text)


if __name__ == "__main__":
    main()
