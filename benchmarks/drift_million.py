"""A day of a million predictions: what counting them costs, and how fast and in how much memory they are compared.

``python -m benchmarks.drift_million --workspace DIR [--rows N] [--write]``, DIR with the task ``sentiment`` built. The log is
made in a folder of its own: real reviews over 24 hours, 23 of them compacted and counted as the hourly job does it, the last
as the service left it. Each comparison is a process of its own.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil

from benchmarks.drift import Kept, judge_of
from benchmarks.drift_pools import split
from benchmarks.report import Others, family, machine, table, write_section
from lepton_platform.monitoring.painter import Painter
from lepton_platform.monitoring.reference import load, save
from lepton_platform.pipeline.served import HOUR, count_hour, window
from lepton_platform.serving.compaction import compact_hour
from lepton_platform.settings import Settings, use_workspace

TASK, TAG, HOURS, MOST = "sentiment", "sentiment:measured", 24, 1_000
NOW = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)  # the end of the day
COMPARED = ["compared", "seconds", "peak memory, MiB", "that of the page's process", "both at once, shared pages once"]
PROMISED_S, PROMISED_MIB, PROMISED_US = 10, 500, 50


def fill(settings: Settings, texts: list[str], rows: int) -> None:
    """The log of a day, as the service writes it."""
    rng, source = np.random.default_rng(0), cycle(texts)
    for hour in range(HOURS):
        start = NOW - timedelta(hours=HOURS - hour)
        folder = settings.predictions_dir / TASK / start.strftime(HOUR)
        folder.mkdir(parents=True)
        lines = list(_lines(start, list(islice(source, rows // HOURS)), rng))
        first = json.loads(lines[0])["id"]
        (folder / f"predictions-{first}.jsonl").write_text("".join(lines), "utf-8")


def _lines(start: datetime, texts: list[str], rng: np.random.Generator) -> Iterator[str]:
    begin = int(start.timestamp() * 1000)
    for number, text in enumerate(texts):
        ms = begin + number * 3_600_000 // len(texts)
        random = f"{int(rng.integers(0, 2**62)):016x}"
        stamp = f"{ms:012x}"
        identifier = f"{stamp[:8]}-{stamp[8:]}-7{number % 4096:03x}-8{random[1:4]}-{random[4:]}"
        at = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        score = round(0.5 + float(rng.beta(5, 1)) / 2, 4)
        label = "fresh" if rng.random() < 0.58 else "rotten"
        row = {"id": identifier, "at": at, "model": TAG, "deployment": "1", "text": text, "label": label}
        row |= {"score": score, "scores": {"fresh": score, "rotten": 1 - score}, "latency_ms": 4.2}
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def hour_names() -> list[str]:
    return [(NOW - timedelta(hours=HOURS - hour)).strftime(HOUR) for hour in range(HOURS)]


def compare(workspace: Path, whole: bool) -> None:
    """In a process of its own: what the window is, judged; with the sample's embeddings and Evidently's page, if ``whole``."""
    from lepton_platform.monitoring import drift as check
    from lepton_platform.monitoring.signals import Signals
    from lepton_platform.tasks import load_part

    settings, part = use_workspace(workspace), load_part(TASK, "drift")
    params, beside = check.DriftParams.model_validate({"max_rows": MOST}), 0.0
    begun = time.perf_counter()
    with Painter() if whole else nullcontext() as painter:
        known = load(workspace / "reference")
        found = window(settings, TASK, NOW - timedelta(hours=HOURS), TAG, MOST)
        assert found is not None
        if painter is not None:
            signals = check.drift(
                known=known,
                window=found,
                part=part,  # pyright: ignore[reportArgumentType]
                params=params,
                downloads=settings.cache_dir,
                out=workspace / "out",
                at=NOW,
                workspace=workspace / "evidently",
                painter=painter,
            ).signals
            beside = peak_mib(painter.pid)
        else:
            inputs, answers = part.cheap(found.sample), part.answers(found.sample)
            pairs = ((known.inputs, inputs), (known.answers, answers))
            signals = tuple(
                one for r, s in pairs for one in check.judged(r, Signals(s.numbers, s.classes), found.counted, params)
            )
    seconds, mib = time.perf_counter() - begun, peak_mib(os.getpid())
    rows = {one.name: one.rows for one in signals}
    print(json.dumps({"seconds": seconds, "mib": mib, "beside": beside, "served": found.n_served, "rows": rows}))


def peak_mib(pid: int) -> float:
    """Not ``ru_maxrss``: that of a child begins with what its parent had."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def child(workspace: Path, *words: str) -> dict:
    """What ``compare`` said, and ``both``: the peak of the whole process tree in MiB, pages that are shared counted once."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.drift_million", "--workspace", str(workspace), *words]
    both = 0.0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "DO_NOT_TRACK": "1"}
    ) as process:
        assert process.stdout is not None
        while process.poll() is None:
            both = max(both, sum(proportional_mib(one) for one in family(process.pid)))
            time.sleep(0.1)
        said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}.")
    return {**json.loads(said.splitlines()[-1]), "both": both}


def proportional_mib(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def measure(source: Settings, workspace: Path, rows: int) -> str:
    others, texts = Others(), split(source.workspace, TASK, "validation", "test")["text"].to_pylist()
    save(judge_of(TASK, source, Kept(TASK, source.cache_dir)).known, workspace / "reference")
    (workspace / "params.yaml").write_text("sentiment: {}\n")
    settings = use_workspace(workspace)
    fill(settings, texts, rows)
    size = sum(path.stat().st_size for path in settings.predictions_dir.rglob("*.jsonl")) >> 20
    cold = child(workspace, "--compare")
    counts = settings.state_dir / "drift" / TASK / "hours"
    for path in counts.iterdir():
        path.unlink()
    spent = {"compacting": 0.0, "counting": 0.0}
    done = hour_names()[:-1]
    for hour in done:
        begun = time.process_time()
        compact_hour(settings.predictions_dir, TASK, hour, NOW)
        middle = time.process_time()
        count_hour(settings, TASK, hour, MOST)
        spent["compacting"] += middle - begun
        spent["counting"] += time.process_time() - middle
    kept = sum(path.stat().st_size for path in counts.iterdir()) / len(done) / 1024
    warm = child(workspace, "--compare")
    whole = child(workspace, "--compare", "--whole")
    assert cold["served"] == warm["served"] == rows // HOURS * HOURS
    each = {name: f"{seconds / (rows / HOURS * len(done)) * 1e6:.1f}" for name, seconds in spent.items()}
    costs = [
        ["in the service", "0"],
        ["counting an hour that was compacted", each["counting"]],
        ["(compacting it)", each["compacting"]],
    ]
    cells = [
        [
            name,
            f"{one['seconds']:.1f}",
            f"{one['mib']:.0f}",
            f"{one['beside']:.0f}" if one["beside"] else "–",
            f"{one['both']:.0f}",
        ]
        for name, one in (
            ("hours counted when they were compacted, the last one now", warm),
            ("nothing counted or compacted before", cold),
            ("the whole check: 1,000 texts embedded, Evidently's page", whole),
        )
    ]
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(whole["rows"].items(), key=lambda one: -one[1]))
    return (
        f"{machine()} {others.words([])}\n\n{warm['served']:,} predictions, {size:,} MiB of log. Promised: "
        f"{PROMISED_S} s, {PROMISED_MIB} MiB, {PROMISED_US} µs a prediction. A counted hour is {kept:.0f} KiB.\n\n"
        f"{table(COMPARED, cells)}\n\n{table(['CPU', 'µs a prediction'], costs)}\n\n"
        f"Rows that each distance of the whole check is from: {told}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.compare:
        compare(given.workspace.resolve(), given.whole)
        return
    with tempfile.TemporaryDirectory(prefix="drift-") as name:
        text = measure(use_workspace(given.workspace.resolve()), Path(name), given.rows)
    print(text)
    if given.write:
        write_section("drift_million", text)


if __name__ == "__main__":
    main()
