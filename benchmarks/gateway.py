"""What the gateway costs: ``python -m benchmarks.gateway WORKSPACE [--write]``; WORKSPACE is a finished one.

Its Bentos are copied into scratch workspaces and served as `lepton up` serves them, without keys and with, beside a
worker alone on a port of its own and beside nginx in front of the same worker. All are asked in turn, round after
round, so that what else the machine does meets all alike. Then each is offered ten times what it can do.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.load import Clients, Record, Round, start, together
from benchmarks.peers import nginx
from benchmarks.report import Others, machine, table, write_section
from benchmarks.scratch import alone, bodies, clean_environment, left_by, new_workspace, processes, services
from benchmarks.serving import free_port, run
from lepton_platform.gateway.control import stop, wait_ready
from lepton_platform.gateway.keys import Keys
from lepton_platform.gateway.supervisor import SOCKETS
from lepton_platform.serving.deployments import champion

ALONE, NGINX = "worker alone", "nginx"
OPEN, KEYED = "Lepton's gateway, keys off", "Lepton's gateway, keys on"
LIMITED = "the same, the flood's key with a rate"
CLIENTS = {"sentiment": (1, 8, 32), "trees": (1, 8)}
INPUTS = {"sentiment": 256, "trees": 1}  # of the test rows
MOST_ADDED_MS, LEAST_SHARE = 1.5, 0.9  # what is promised: of p50 at 1 client, of the throughput at 8
FLOOD, TIMES, CONNECTIONS = "sentiment", 10, 1000
QUIET_S, AFTER_S, WINDOW_S = 4.0, 10.0, 0.5
KNOWN_S = 2.0  # until a new key holds
NOTES = f"""\
Closed loop: each client keeps one connection and asks again when it is answered; the load is a process of its own with
raw connections (uvloop and httptools), whose own CPU time a request is said above. CPU time is that of worker and what
is in between: the gateway's and its supervisor's processes, or nginx's. nginx is Debian's, with one worker process, in
front of the same process and socket as the gateway without keys; it keeps {nginx.KEPT} connections to it open. Ratios are
medians over the rounds, each of figures of the same round, with the least and the greatest.

The flood is an open loop of {TIMES} times what the gateway answers at the most clients above, on {CONNECTIONS} connections
at most; what finds none free is not sent. With a rate, its key has half of what the gateway can answer. Meanwhile one
patient client with a key of its own asks on: the median of its answers before and during, and when after the flood's
end it is answered always, and in less than twice its usual time."""


@dataclass
class Subject:
    """Who is asked: ``worker`` and ``between`` are pids of the processes whose CPU time it takes."""

    name: str
    url: str
    worker: int
    between: list[int]
    key: str | None = None

    @property
    def words(self) -> list[str]:
        return ["--key", self.key] if self.key else []

    def cpu_s(self) -> tuple[float, float]:
        """Worker's, and of what is in between."""
        used = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in (self.worker, *self.between)]
        return used[0], sum(used[1:])


def measured(subject: Subject, asked: Path, clients: int, seconds: float) -> Round:
    before = subject.cpu_s()
    told = run("load", subject.url, asked, clients, seconds, *subject.words)
    worker, between = (now - then for now, then in zip(subject.cpu_s(), before, strict=True))
    return Round(told["seconds"], told["failed"], told["latencies_ms"], worker, between, told["own_cpu_s"])


def subjects(workspace: Path, folder: Path, stack: ExitStack) -> tuple[dict[str, list[Subject]], Keys]:
    """By task; the keys are those of the gateway that asks for them."""
    found: dict[str, list[Subject]] = {task: [] for task in CLIENTS}
    keys: Keys | None = None
    for name, auth in ((OPEN, "off"), (KEYED, "on")):
        settings = new_workspace(folder / auth, auth, {task: left_by(workspace, "bento", task) for task in CLIENTS})
        started = stack.enter_context(services(settings))
        keys = Keys(settings)
        key = keys.create("benchmark")[1] if auth == "on" else None
        between = [started.pid, *(found.pid for found in processes(started.pid, "lepton_platform.gateway.server"))]
        sockets: dict[str, Path] = {}
        workers: dict[str, int] = {}
        for task in CLIENTS:
            serving = champion(settings, task)
            assert serving is not None
            [worker] = processes(started.pid, "--deployment", str(serving.id))
            [sockets[task]] = (settings.state_dir / SOCKETS).glob(f"{serving.id}-*.sock")
            url, workers[task] = f"{started.url}/v1/{task}/predict", worker.pid
            found[task].append(Subject(name, url, worker.pid, between, key))
            if auth == "off":
                url, pid = alone(Path(serving.path), folder / "alone" / "predictions", stack)
                found[task].insert(0, Subject(ALONE, url, pid, []))
        if auth == "off" and (pid := nginx.start(folder / "nginx", port := free_port(), sockets)) is not None:
            stack.callback(stop, pid)
            assert wait_ready(f"http://127.0.0.1:{port}", 10, pid), "nginx does not start"
            family = [pid, *(child.pid for child in psutil.Process(pid).children())]
            for task in CLIENTS:
                url = f"http://127.0.0.1:{port}/v1/{task}/predict"
                found[task].insert(1, Subject(NGINX, url, workers[task], family))
    assert keys is not None
    time.sleep(KNOWN_S)
    return found, keys


# --- the flood


@dataclass
class Flooded:
    """``told``: by the load; ``mib``: resident memory before and at most, of what is in between and of the worker."""

    name: str
    offered: float
    told: dict[str, Any]
    mib: list[tuple[float, float]]
    records: list[Record]  # the patient client's

    def patient(self, since: float, until: float) -> tuple[float, float]:
        """Of its requests sent within: the share that was answered, and the median of these in milliseconds."""
        found = [one for one in self.records if since <= one.sent < until]
        answered = [1e3 * one.seconds for one in found if one.kind == "200"]
        return len(answered) / max(1, len(found)), statistics.median(answered) if answered else float("inf")

    def back_s(self, ended: float) -> float | None:
        """From the flood's end until all are answered again, half of them in twice the time of before."""
        most = 2 * self.patient(0.0, self.told["begun"])[1]
        for at in (one.sent for one in self.records if one.sent >= ended):
            share, middle = self.patient(at, at + WINDOW_S)
            if share == 1.0 and middle <= most:
                return at - ended
        return None


def resident_mib(pids: list[int]) -> float:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


def flood(subject: Subject, asked: Path, rate: float, seconds: float, patient: str | None) -> Flooded:
    """``patient``: the key of the client that is no part of the flood."""
    parts = [subject.between, [subject.worker]]
    probe = Clients(subject.url, asked, 1, patient)
    try:
        time.sleep(QUIET_S)
        before = [resident_mib(pids) for pids in parts]
        peaks = list(before)
        options = [subject.url, str(asked), str(CONNECTIONS), str(seconds), "--rate", str(rate), *subject.words]
        with tempfile.TemporaryFile("w+") as told:
            with start(options, stdout=told) as process:
                while process.poll() is None:
                    peaks = [max(peak, resident_mib(pids)) for peak, pids in zip(peaks, parts, strict=True)]
                    time.sleep(0.1)
            told.seek(0)
            found = json.load(told)
        time.sleep(AFTER_S)
    finally:
        probe.stop()
    return Flooded(subject.name, rate, found, list(zip(before, peaks, strict=True)), probe.records)


def floods(found: list[Subject], keys: Keys, asked: Path, capacity: float, seconds: float) -> list[Flooded]:
    """Worker, nginx and gateway; then the gateway where the flood's key has a rate of half of what there is."""
    patient, rate = keys.create("patient")[1], max(1, int(60 * capacity / 2))
    limited = keys.create("limited", rate_per_minute=rate, burst=max(1, rate // 60))[1]
    time.sleep(KNOWN_S)
    last = replace(found[-1], name=LIMITED, key=limited)
    asking = [*(one for one in found if one.name != OPEN), last]  # without keys it is as with them
    return [flood(one, asked, TIMES * capacity, seconds, patient if one.key else None) for one in asking]


# --- what is told

Measured = dict[tuple[str, str, int], list[Round]]  # by task, subject, clients; a round each


def measure(found: dict[str, list[Subject]], asked: dict[str, Path], rounds: int, seconds: float) -> Measured:
    """The order turns with every round."""
    done: Measured = {}
    for number in range(-1, rounds):  # the first is not counted: it warms up
        for task, those in found.items():
            turned = those[number % len(those) :] + those[: number % len(those)]
            for clients in CLIENTS[task]:
                for subject in turned:
                    one = measured(subject, asked[task], clients, seconds if number >= 0 else 0.3)
                    if number >= 0:
                        done.setdefault((task, subject.name, clients), []).append(one)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return done


def added_ms(rounds: Sequence[Round], base: Sequence[Round]) -> list[float]:
    return [one.at(50) - other.at(50) for one, other in zip(rounds, base, strict=True)]


def shares(rounds: Sequence[Round], base: Sequence[Round]) -> list[float]:
    return [one.rate / other.rate for one, other in zip(rounds, base, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    middle, least, most = (format(v, form) for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def render_task(task: str, found: list[Subject], done: Measured) -> str:
    rows = []
    for clients in CLIENTS[task]:
        base = done[task, ALONE, clients]
        for name in (subject.name for subject in found):
            rounds = done[task, name, clients]
            one, many = together(rounds), sum(len(r.latencies_ms) for r in rounds)
            cells = [
                f"{one.rate:.0f}" if one.rate >= 100 else f"{one.rate:.1f}",
                f"{one.at(50):.2f}",
                f"{one.at(99):.1f}",
            ]
            cells += [f"{1e3 * s / many:.2f}" for s in (one.worker_s, one.between_s)]
            ratios = ["–", "–"] if name == ALONE else [
                spread(added_ms(rounds, base), "+.2f"), spread(shares(rounds, base), ".2f")
            ]  # fmt: skip
            rows.append([f"**{name}**" if name in (OPEN, KEYED) else name, str(clients), *cells, *ratios])
    head = ["", "clients", "requests/s", "p50 ms", "p99 ms", "worker's CPU ms", "CPU ms between", "p50 added, ms"]
    return table([*head, "throughput, of the worker alone"], rows)


def render_promises(done: Measured) -> str:
    rows = []
    for task, name in ((task, name) for task in CLIENTS for name in (OPEN, KEYED)):
        added = statistics.median(added_ms(done[task, name, 1], done[task, ALONE, 1]))
        share = statistics.median(shares(done[task, name, 8], done[task, ALONE, 8]))
        kept = ["yes" if fine else "**no**" for fine in (added <= MOST_ADDED_MS, share >= LEAST_SHARE)]
        rows.append([f"{task}, {name}", f"{added:+.2f}", kept[0], f"{share:.2f}", kept[1]])
    head = [f"p50 added at 1 client, at most {MOST_ADDED_MS:g} ms", "kept"]
    return table(["", *head, f"throughput at 8 clients, at least {LEAST_SHARE:g}", "kept"], rows)


def render_flood(done: list[Flooded], seconds: float) -> str:
    rows = []
    for one in done:
        told, latencies, begun = one.told["statuses"], one.told["latencies_ms"], one.told["begun"]
        sent = max(1, sum(told.values()))
        known = [told.get(status, 0) for status in ("200", "429", "503")]
        cells = [f"{sent / seconds:.0f}", f"{known[0] / seconds:.0f}"]
        cells += [f"{many / sent:.1%}" for many in (*known, sent - sum(known))]
        cells.append(f"{np.percentile(latencies, 99) / 1e3:.2f}" if latencies else "–")
        cells += ["–" if not most else f"{before:.0f} → {most:.0f}" for before, most in one.mib]
        (_, quiet), (share, during) = one.patient(0.0, begun), one.patient(begun, begun + seconds)
        back = one.back_s(begun + seconds)
        cells += [f"{quiet:.1f} → {during:.0f}", f"{share:.0%}", f"over {AFTER_S:g}" if back is None else f"{back:.1f}"]
        rows.append([f"**{one.name}**" if one.name in (KEYED, LIMITED) else one.name, *cells])
    head = ["", "sent/s", "answered/s", "200", "429", "503", "none", "p99 of the 200s, s", "MiB between", "MiB worker"]
    return table([*head, "patient client, ms", "it is answered", "back after, s"], rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gateway", description=__doc__)
    parser.add_argument("workspace", type=Path, help="a finished one, with the Bentos of " + ", ".join(CLIENTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="a measurement")
    parser.add_argument("--flood", type=float, default=15.0, metavar="SECONDS", help="of each flood; 0: none")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


def main() -> None:
    chosen, started = arguments(), time.monotonic()
    clean_environment()
    with tempfile.TemporaryDirectory(prefix="lepton-gateway-") as name, ExitStack() as stack:
        folder, others = Path(name), Others()
        workspace = chosen.workspace.resolve()
        asked = {task: bodies(workspace, task, INPUTS[task], folder / f"{task}.jsonl") for task in CLIENTS}
        found, keys = subjects(workspace, folder, stack)
        done = measure(found, asked, chosen.rounds, chosen.seconds)
        capacity = together(done[FLOOD, KEYED, CLIENTS[FLOOD][-1]]).rate
        flooded = floods(found[FLOOD], keys, asked[FLOOD], capacity, chosen.flood) if chosen.flood else []
        trees = sorted({pid for those in found.values() for s in those for pid in (s.worker, *s.between)})
        busy = others.words([pid for pid in trees if psutil.Process(pid).ppid() not in trees])
    rounds = [one for those in done.values() for one in those]
    failed = sum(one.failed for one in rounds)
    own = 1e3 * sum(one.load_s for one in rounds) / sum(len(one.latencies_ms) for one in rounds)
    program = nginx.installed()
    peer = (
        f"nginx {nginx.version(program)}."
        if program
        else "nginx is not installed (`apt-get install nginx-light`), so it has no row."
    )
    took = f"{chosen.rounds} rounds of {chosen.seconds:g} s each, {time.monotonic() - started:.0f} s in all"
    words = [
        f"{machine()} {busy} {took}. {peer} The load's own CPU time: {own:.3f} ms a request. Requests that failed: {failed}."
    ]
    parts = [*words, render_promises(done)]
    parts += [f"{task}, one input a request:\n\n{render_task(task, found[task], done)}" for task in CLIENTS]
    if flooded:
        parts.append(
            f"{FLOOD}, {TIMES * capacity:.0f} requests/s offered for {chosen.flood:g} s:\n\n{render_flood(flooded, chosen.flood)}"
        )
    text = "\n\n".join([*parts, NOTES])
    print(text)
    if chosen.write:
        write_section("gateway", text)


if __name__ == "__main__":
    main()
