"""Our service beside its peers: ``python -m benchmarks.serving --bento models/sentiment/bento [--write SECTION]``.

The same model, the same inputs, the same run: the test rows of the Bento's workspace, or whole files (``--files``).
All services are started first (their cold starts are timed one after another), then they are asked in turn, round
after round, so that what else the machine does meets all alike.
"""

import argparse
import base64
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.peers import field_of, told
from benchmarks.report import ROOT, Others, cpu_seconds, machine, resident_mib, table, write_section
from lepton_platform.data.dataset import Dataset
from lepton_platform.gateway.control import stop, wait_ready
from lepton_platform.serving.offers import deploy
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.store import stored, tag_of
from lepton_platform.settings import Settings
from lepton_platform.tasks import load_part

CLIENTS = (1, 8, 32)
INPUTS = 512
COMPARED = 64
LIMIT = "bare ONNX Runtime loop"
OURS = "Lepton (`lepton up`)"
NOTES = f"""\
The {LIMIT} runs inputs that were encoded beforehand and has no server around it; of the ways to run that many inputs
at a time (alone, batched, side by side) the best is shown, and its latency is that of a call. Lepton's two rows also
normalise the input as training did, check the request strictly, and answer only when the answer's row (and the file it
is about) is on the disk; the peers encode, run the model and answer, and one of them writes its answers to the disk
first. Closed loop: each client asks again when it is answered, one input a request, from a process of its own on the
same machine. CPU time is the service's, all its processes together; beside it, memory is resident memory, summed
likewise."""


@dataclass
class Subject:
    """A service that is measured; ``start(port)`` → its first process."""

    name: str
    start: Callable[[int], int]
    pid: int = 0
    url: str = ""
    cold_s: float = 0.0
    idle_mib: float = 0.0
    loaded_mib: float = 0.0
    processes: int = 0


@dataclass
class Figures:
    """All rounds of one subject at one number of clients."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    failed: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        self.seconds += found["seconds"]
        self.cpu_s += found["cpu_s"]
        self.failed += found["failed"]
        self.latencies_ms += found["latencies_ms"]

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of the service a request: what others' load on the machine changes least."""
        return 1e3 * self.cpu_s / len(self.latencies_ms)

    def at(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent))


def subjects(bento: Path, workspace: Path) -> list[Subject]:
    (workspace / "params.yaml").write_text(f"{tag_of(bento).split(':')[0]}: {{}}\n")
    settings, task = Settings.model_validate({"workspace": workspace}), tag_of(bento).split(":")[0]
    judge = load_part(task, "metrics").EVALUATOR
    deploy(settings, task, bento=bento, test=workspace, params=RolloutParams.model_validate({}), judge=judge)
    model = bento / "src/model"
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "LEPTON_WORKSPACE": str(workspace), "BENCHMARK_MODEL": str(model)}
    quiet |= {"BENTOML_HOME": str(settings.bentoml_home), "PYTHONPATH": str(ROOT)}
    bentoml = str(Path(sys.executable).with_name("bentoml"))

    def spawn(*words: str) -> int:
        log = (workspace / "peers.log").open("ab")
        command = [sys.executable, "-m", *words] if words[0].startswith("benchmarks.") else list(words)
        environment = {**os.environ, **quiet}
        # a session of its own, as a service has: Linux shares the cores out among sessions
        process = subprocess.Popen(
            command, cwd=workspace, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        return process.pid

    def fastapi(port: int, threads: int, *log: str) -> int:
        return spawn("benchmarks.peers.fastapi_app", str(model), str(port), str(threads), *log)

    def alone(port: int) -> int:
        """A worker as the supervisor starts it, on a port of its own in the gateway's place."""
        place = stored(settings.bentoml_home, tag_of(bento))
        log = (workspace / "service.log").open("ab")
        command = [sys.executable, "-m", "lepton_platform.serving.server", "--bento", str(place), "--port", str(port)]
        command += ["--predictions", str(settings.predictions_dir), "--deployment", "1"]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command, cwd=place / "src", env=environment, stdout=log, stderr=log, start_new_session=True
        )
        return process.pid

    plain = "benchmarks.peers.bentoml_service:Plain"
    return [
        Subject(OURS, alone),
        Subject("Lepton's Bento under `bentoml serve`", lambda p: spawn(bentoml, "serve", tag_of(bento), "-p", str(p))),
        Subject("FastAPI + ONNX Runtime", lambda port: fastapi(port, 0)),
        Subject("FastAPI + ONNX Runtime, one thread a call", lambda port: fastapi(port, 1)),
        Subject("the same, each answer on the disk", lambda port: fastapi(port, 1, str(workspace / "answers.jsonl"))),
        Subject("BentoML", lambda port: spawn(bentoml, "serve", plain, "-p", str(port))),
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def begin(subject: Subject) -> None:
    """Start it and take the time until it says that it is ready."""
    port, started = free_port(), time.perf_counter()
    subject.pid, subject.url = subject.start(port), f"http://127.0.0.1:{port}"
    if not wait_ready(subject.url, 60, subject.pid):
        raise SystemExit(f"{subject.name} does not start.")
    subject.cold_s = time.perf_counter() - started


def agreement(found: list[Subject], bodies: list[dict[str, list[str]]]) -> float:
    """The share of inputs on which all services say the same: they do run the same model."""
    said = []
    for subject in found:
        answers = [httpx.post(f"{subject.url}/predict", json=body, timeout=30).json() for body in bodies]
        said.append([told(answer["predictions"][0]) for answer in answers])
    return float(np.mean([len(set(labels)) == 1 for labels in zip(*said, strict=True)]))


def run(module: str, *words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def measure(found: list[Subject], model: Path, bodies: Path, rounds: int, seconds: float) -> dict[Any, Figures]:
    """(name, clients) → figures; the order turns with every round."""
    figures = {(name, c): Figures() for name in [LIMIT, *(s.name for s in found)] for c in CLIENTS}
    for number in range(rounds):
        turned = found[number % len(found) :] + found[: number % len(found)]
        for clients in CLIENTS:
            figures[LIMIT, clients].add(run("bare", model, bodies, clients, seconds))
            for subject in turned:
                before = cpu_seconds(subject.pid)
                answered = run("load", f"{subject.url}/predict", bodies, clients, seconds)
                used = cpu_seconds(subject.pid) - before
                figures[subject.name, clients].add({**answered, "cpu_s": used})
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return figures


def render(found: list[Subject], figures: dict[Any, Figures], words: list[str]) -> str:
    rows = []
    for clients, name in itertools.product(CLIENTS, [LIMIT, *(s.name for s in found)]):
        one, limit = figures[name, clients], figures[LIMIT, clients]
        fastapi = figures["FastAPI + ONNX Runtime", clients]
        cells = [f"{one.rate:.0f}", f"{one.at(50):.1f}", f"{one.at(99):.1f}", f"{one.cpu_ms:.2f}"]
        shown = f"**{name}**" if name == OURS else name
        rows.append([shown, str(clients), *cells, f"{one.rate / limit.rate:.0%}", f"{one.rate / fastapi.rate:.2f}"])
    head = ["", "clients", "requests/s", "p50 ms", "p99 ms", "CPU ms a request", "of the bare loop", "× FastAPI"]
    costs = [[s.name, f"{s.cold_s:.1f}", f"{s.idle_mib:.0f}", f"{s.loaded_mib:.0f}", str(s.processes)] for s in found]
    second = ["", "cold start, s", "memory idle, MiB", "after load, MiB", "processes"]
    return "\n\n".join([*words[:1], table(head, rows), table(second, costs), *words[1:], NOTES])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--bento", type=Path, default=ROOT / "models/sentiment/bento", help="a built Bento's folder")
    parser.add_argument("--rows", type=Path, help="a data set with what is learnt from; else its workspace's test rows")
    parser.add_argument("--files", type=Path, nargs="+", help="files to send, in place of rows")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="a measurement")
    parser.add_argument("--write", metavar="SECTION", help="write the figures into that section of docs/benchmarks.md")
    return parser.parse_args()


def requests(chosen: argparse.Namespace, bento: Path) -> list[dict[str, list[str]]]:
    """A body an input, in a fixed order."""
    field = field_of(bento / "src/model")
    if chosen.files:
        values = [base64.b64encode(path.read_bytes()).decode() for path in chosen.files]
    else:
        rows = chosen.rows or bento.parents[2] / "data" / bento.parent.name / "dataset/test"
        known = sorted(Dataset(rows).read().column(field.removesuffix("s")).to_pylist())
        values = [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in known]
        values = random.Random(1).sample(values, min(INPUTS, len(values)))
    values *= -(-max(CLIENTS) // len(values))  # as many as clients at least
    return [{field: [value]} for value in values]


def main() -> None:
    chosen, started = arguments(), time.monotonic()
    bento = chosen.bento.resolve()
    asked = requests(chosen, bento)
    with tempfile.TemporaryDirectory(prefix="lepton-benchmark-") as folder:
        bodies = Path(folder) / "bodies.jsonl"
        bodies.write_text("".join(json.dumps(body) + "\n" for body in asked), "utf-8")
        found = subjects(bento, Path(folder))
        others = Others()
        try:
            for subject in found:
                begin(subject)
                subject.idle_mib, subject.processes = resident_mib(subject.pid)
            agreed = agreement(found, asked[:COMPARED])
            figures = measure(found, bento / "src/model", bodies, chosen.rounds, chosen.seconds)
            for subject in found:
                subject.loaded_mib, _ = resident_mib(subject.pid)
            busy = others.words([subject.pid for subject in found])
        finally:
            for subject in found:
                if subject.pid:
                    os.kill(subject.pid, signal.SIGINT)
                    stop(subject.pid)
    failed = {f"{name}, {clients} clients": f.failed for (name, clients), f in figures.items() if f.failed}
    took = f"{chosen.rounds} rounds of {chosen.seconds:g} s each, {time.monotonic() - started:.0f} s in all"
    words = [
        f"{machine()} {busy} {took}.",
        f"The services said the same of {agreed:.0%} of {min(COMPARED, len(asked))} inputs. "
        f"Requests that failed: {failed or 'none'}.",
    ]
    text = render(found, figures, words)
    print(text)
    if chosen.write:
        write_section(chosen.write, text)


if __name__ == "__main__":
    main()
