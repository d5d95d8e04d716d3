"""A rollout under load: ``python -m benchmarks.rollout WORKSPACE [--seconds 120] [--tasks sentiment …] [--write]``.

Eight clients ask one task through the gateway all the time while a canary takes over step by step, is rolled back,
another one's process is killed twice, then the champion's, then the gateway's own (always with SIGKILL). What every
client was told is noted; at the end every answer that was given is looked up in the prediction log. The canaries are the
workspace's model in Bentos that are built anew with another tunable, so that only their names differ.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks import scratch
from benchmarks.load import Clients, Record
from benchmarks.report import Others, machine, table, write_section
from lepton_platform.gateway.control import Started
from lepton_platform.pipeline import operate
from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.deployments import Deployment, Deployments
from lepton_platform.serving.log_reader import hours, read_rows
from lepton_platform.serving.offers import deploy
from lepton_platform.serving.rollouts import Rollouts
from lepton_platform.serving.store import tag_of
from lepton_platform.settings import Settings
from lepton_platform.tasks import load_part

CLIENTS, INPUTS = 8, 64
STEPS = (5.0, 50.0, 100.0)
SHARES = {"steady": 1, "canary": 2, "rolled back": 1, "canary killed": 2, "champion killed": 1, "gateway killed": 1}
MOST_ROWS = 50  # that champion and challenger are compared on before; not what is measured here
FRESH_S = 3.0  # for so long after the gateway's death one new connection after another is made
PATIENCE_S = 120.0  # for what has to happen in a phase
NOTES = f"""\
{CLIENTS} clients, each on a connection of its own, ask again when they are answered; a request belongs to the phase in
which it ended. Failed is whatever was no 200; a client that lost its connection makes a new one after 50 ms. A request's
longest time includes the wait for a process that starts again. "Lost" are ids that a client was given and that are not in
the prediction log. The limits of a rollout are the defaults, but for the least number of requests a step: half of what
5 % of the clients' requests are in a step. A canary is compared with the champion on {MOST_ROWS} test rows before, on the
same cores."""


@dataclass
class Phase:
    """``told``: what happened in it."""

    name: str
    began: float
    ended: float = 0.0
    told: list[str] = field(default_factory=list)

    def has(self, record: Record, last: bool) -> bool:
        return self.began <= record.ended and (last or record.ended < self.ended)


class TimedOut(Exception):
    """What had to happen did not."""


def until(happens: Callable[[], object], what: str) -> None:
    began = time.monotonic()
    while not happens():
        if time.monotonic() - began > PATIENCE_S:
            raise TimedOut(f"{what[:1].upper()}{what[1:]} did not come in {PATIENCE_S:g} s")
        time.sleep(0.05)


@dataclass
class Rollout:
    """One task's run: what is done to it, and what was seen. ``bentos``: the champion's and two canaries'."""

    workspace: Path
    settings: Settings
    task: str
    started: Started
    clients: Clients
    asked: Path
    bentos: list[Path]
    unit_s: float
    phases: list[Phase] = field(default_factory=list)
    fresh_ids: list[str] = field(default_factory=list)

    def run(self) -> None:
        self.table = Deployments(self.settings)
        self.tags = [tag_of(bento) for bento in self.bentos]
        for name, do in PHASES.items():
            phase = Phase(name, time.monotonic())
            self.phases.append(phase)
            try:
                do(self, phase)
            except TimedOut as error:
                phase.told.append(f"**{error}**")
            time.sleep(max(0.0, phase.began + SHARES[name] * self.unit_s - time.monotonic()))
            phase.ended = time.monotonic()

    def first(self, since: float, tag: str | None = None) -> float | None:
        """When a request that was sent since then was first answered (by this Bento), seconds from then."""
        recent = (one for one in self.clients.records[-4096:] if one.sent >= since and one.kind == "200")
        return min((one.ended - since for one in recent if tag in (None, one.model)), default=None)

    def answered(self, since: float, tag: str | None = None) -> float:
        until(lambda: self.first(since, tag) is not None, f"an answer by {tag or 'anybody'}")
        return self.first(since, tag) or 0.0

    def state(self, number: int) -> Deployment:
        found = self.table.by_tag(self.task, self.tags[number])
        assert found is not None
        return found

    def worker(self, deployment: int) -> psutil.Process | None:
        found = scratch.processes(self.started.pid, "--deployment", str(deployment))
        return found[0] if found else None

    def offer(self, number: int, steps: tuple[float, ...], every_s: float) -> None:
        judge = load_part(self.task, "metrics").EVALUATOR
        params = operate.rollout_params(self.settings, self.task)
        made = deploy(
            self.settings, self.task, bento=self.bentos[number],
            test=scratch.left_by(self.workspace, "dataset", self.task) / "test",
            params=params, judge=judge, steps=steps, every_s=every_s,
        )  # fmt: skip
        if made.deployment.state != "canary":
            raise TimedOut(f"The offer of a canary was refused: {made.reason}")

    # --- the phases

    def steady(self, _: Phase) -> None:
        self.answered(0.0)

    def canary(self, phase: Phase) -> None:
        """It takes over by itself. A step needs half of the requests that the first of them lets expect."""
        rate = sum(one.ended >= self.phases[0].began for one in self.clients.records) / self.unit_s
        every_s = SHARES["canary"] * self.unit_s / (len(STEPS) + 1)
        enough = max(1, min(50, int(0.5 * STEPS[0] / 100 * rate * every_s)))
        rollout = {"min_requests": enough, "max_rows": MOST_ROWS}
        scratch.set_params(self.settings.workspace, {self.task: {"serve": {"rollout": rollout}}})
        self.offer(1, STEPS, every_s)
        compared = time.monotonic() - phase.began
        serving = self.answered(phase.began, self.tags[1])
        until(lambda: self.state(1).state != "canary", "the end of the canary's way")
        found, took = self.state(1), time.monotonic() - phase.began
        phase.told.append(
            f"compared after {compared:.1f} s, answers after {serving:.1f} s, {found.state} after {took:.1f} s"
        )
        phase.told.append(f"at least {enough} requests a step of {every_s:.1f} s")
        if found.state != "champion":
            phase.told.append(f"**{found.reason}**")

    def roll_back(self, phase: Phase) -> None:
        if self.state(1).state != "champion":
            raise TimedOut("There was no promotion to go back from")
        Rollouts(self.settings).roll_back(self.task, "benchmark")
        asked = time.monotonic()
        self.answered(asked, self.tags[0])
        time.sleep(self.unit_s / 2)
        last = max((one.ended for one in self.clients.records if one.model == self.tags[1]), default=asked)
        phase.told.append(f"the last answer of the other {max(0.0, last - asked):.1f} s later")

    def kill_canary(self, phase: Phase) -> None:
        """Its first death is forgiven, its second is not."""
        self.offer(2, (50.0, 100.0), 600.0)
        identifier, kills = self.state(2).id, 0

        def over() -> bool:
            return self.state(2).state != "canary"

        while kills < 2 and not over():
            since = time.monotonic()
            until(lambda since=since: self.first(since, self.tags[2]) or over(), "an answer of the canary's")
            worker = self.worker(identifier)
            if worker is not None and not over():
                worker.kill()
                kills += 1
                time.sleep(0.2)  # what it had answered before arrives
        until(over, "the canary's end")
        phase.told.append(f"killed {kills} times; {self.state(2).state}: {self.state(2).reason}")

    def kill_champion(self, phase: Phase) -> None:
        serving = self.table.champion(self.task)
        worker = self.worker(serving.id) if serving else None
        assert worker is not None
        worker.kill()
        killed = time.monotonic()
        phase.told.append(f"answers again after {self.answered(killed):.2f} s")

    def kill_gateway(self, phase: Phase) -> None:
        """The one that holds the connections; another may stand by."""
        there = scratch.processes(self.started.pid, "lepton_platform.gateway.server")
        max(there, key=lambda process: len(process.net_connections("tcp"))).kill()
        killed, waits, kinds = time.monotonic(), [0.0], Counter[str]()
        while time.monotonic() < killed + FRESH_S:
            began = time.monotonic()
            kinds[self.fresh()] += 1
            waits.append(time.monotonic() - began)
        phase.told.append(f"new connections: {words(kinds)}; the longest wait {max(waits):.2f} s")

    def fresh(self) -> str:
        """How a request on a connection of its own ends."""
        address = urlsplit(self.started.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=60)
        try:
            body, kind = self.asked.read_bytes().splitlines()[0], {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/{self.task}/predict", body, kind)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status == 200:
                self.fresh_ids.append(json.loads(told)["predictions"][0]["id"])
            return str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()


PHASES: dict[str, Callable[[Rollout, Phase], None]] = {
    "steady": Rollout.steady, "canary": Rollout.canary, "rolled back": Rollout.roll_back,
    "canary killed": Rollout.kill_canary, "champion killed": Rollout.kill_champion, "gateway killed": Rollout.kill_gateway,
}  # fmt: skip


def words(kinds: Counter[str]) -> str:
    return ", ".join(f"{many} {kind}" for kind, many in kinds.most_common()) or "none"


@dataclass
class Found:
    """A task's phases as rows of the table, and its sums."""

    phases: list[list[str]]
    sums: list[str]


def count(rollout: Rollout) -> Found:
    records, task, rows = rollout.clients.records, rollout.task, []
    for phase in rollout.phases:
        last = phase is rollout.phases[-1]  # what was on its way at its end belongs to it
        rows.append([f"{task}: {phase.name}", *told(phase, [r for r in records if phase.has(r, last)])])
    folder = rollout.settings.predictions_dir
    known = {row["id"] for hour in hours(folder, task) for row in read_rows(folder, task, hour)}
    ids = [*(one.id for one in records if one.kind == "200" and one.id), *rollout.fresh_ids]
    failed = Counter(one.kind for one in records if one.kind != "200")
    sums = [str(len(records)), words(failed), f"{max(one.seconds for one in records):.1f}"]
    sums += [str(len(ids)), str(len(set(ids) - known)), str(len(ids) - len(set(ids)))]
    return Found(rows, [task, *sums])


def told(phase: Phase, records: list[Record]) -> list[str]:
    failed = Counter(one.kind for one in records if one.kind != "200")
    times = [1e3 * one.seconds for one in records if one.kind == "200"] or [float("nan")]
    cells = [f"{phase.ended - phase.began:.0f}", str(len(records)), words(failed)]
    return [*cells, f"{statistics.median(times):.0f}", f"{max(times):.0f}", "; ".join(phase.told)]


def measure(workspace: Path, task: str, folder: Path, seconds: float) -> Found:
    champion = scratch.left_by(workspace, "bento", task)
    waiting = json.loads((champion / MANIFEST).read_text("utf-8"))["service"]["max_waiting"]
    canaries = [scratch.variant(workspace, task, folder / f"canary-{n}", max_waiting=waiting + n) for n in (1, 2)]
    settings = scratch.new_workspace(folder / "workspace", "off", {task: champion})
    asked = scratch.bodies(workspace, task, INPUTS, folder / "bodies.jsonl")
    with scratch.services(settings) as started:
        clients = Clients(f"{started.url}/v1/{task}/predict", asked, CLIENTS)
        unit_s = seconds / sum(SHARES.values())
        one = Rollout(workspace, settings, task, started, clients, asked, [champion, *canaries], unit_s)
        try:
            one.run()
        finally:
            clients.stop()
        return count(one)


def render(found: list[Found], line: str) -> str:
    head = ["", "seconds", "requests", "failed", "p50 ms", "longest ms", "what happened"]
    phases = table(head, [row for one in found for row in one.phases])
    head = ["", "requests", "failed", "longest, s", "ids given", "lost", "given twice"]
    return "\n\n".join([line, table(head, [one.sums for one in found]), phases, NOTES])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.rollout", description=__doc__)
    parser.add_argument("workspace", type=Path, help="a finished one")
    parser.add_argument("--seconds", type=float, default=120.0, help="a task")
    parser.add_argument("--tasks", nargs="+", help="else all that have a Bento")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


def main() -> None:
    chosen, others, began = arguments(), Others(), time.monotonic()
    scratch.clean_environment()
    workspace = chosen.workspace.resolve()
    tasks = chosen.tasks or sorted(path.parent.parent.name for path in workspace.glob(f"models/*/bento/{MANIFEST}"))
    found: list[Found] = []
    for task in tasks:
        with tempfile.TemporaryDirectory(prefix=f"lepton-rollout-{task}-") as folder:
            found.append(measure(workspace, task, Path(folder), chosen.seconds))
        print(f"{task} done", file=sys.stderr, flush=True)
    line = f"{machine()} {others.words([])} {chosen.seconds:g} s a task, {time.monotonic() - began:.0f} s in all."
    text = render(found, line)
    print(text)
    if chosen.write:
        write_section("rollout", text)


if __name__ == "__main__":
    main()
