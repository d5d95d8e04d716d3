"""One supervisor for all that serves: it owns the port, the gateway's process and a worker for every live deployment.

``python -m lepton_platform.gateway.supervisor`` binds the port once. The table of deployments says what should run; the
supervisor starts what is missing, tells the gateway what answers, and ends what nobody is sent to any more. A champion's
successor is started beside it and takes over when it answers. Whatever dies is started again. A canary is judged here
(``ramp.py``), every second. Nothing outlives its supervisor, however it ends.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from lepton_platform.gateway.canary import Judging
from lepton_platform.gateway.process import GatewayProcess
from lepton_platform.gateway.routing import Route, Table, as_json
from lepton_platform.gateway.watch import RESTARTS
from lepton_platform.gateway.worker import Serving, Worker, stop_all
from lepton_platform.monitoring.alerts import MACHINE, Alerts
from lepton_platform.serving.deployments import Deployment, Deployments
from lepton_platform.serving.rollouts import Rollouts
from lepton_platform.serving.signing import Keys
from lepton_platform.serving.store import checked
from lepton_platform.settings import Settings, get_settings
from lepton_platform.stage import StageFailed

LOOK_S = 0.5  # between two looks at the table of deployments
TICK_S, REST_S = 0.05, 0.25  # between two looks at the processes, while something changes and while nothing does
DRAIN_AFTER_S = 1.0  # from the gateway's new table to a worker's end: what is on its way arrives
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # before a worker that died is started again
SOCKETS = "run"  # the folder of sockets, in the state's
logger = logging.getLogger("lepton.supervisor")


class Supervisor:
    """Keeps what the table of deployments says answering on one port until it is told to stop."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self.settings = settings
        self.deployments, self.rollouts = Deployments(settings), Rollouts(settings)
        self.judging = Judging(settings, self.rollouts)
        self.gateway = GatewayProcess(listening)
        self.workers: dict[int, Worker] = {}  # by deployment
        self.draining: list[Worker] = []
        self.wanted: dict[int, Deployment] = {}
        self._failures: dict[int, int] = {}
        self._next_try: dict[int, float] = {}
        self._next_look, self._stopping = 0.0, False
        self._gateway_dies: bool | None = None  # not looked at yet: an alert may be open from before
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)  # a child's death is seen at once
        try:
            while not self._stopping:
                self._once()
        finally:
            self.gateway.stop()
            stop_all([*self.workers.values(), *self.draining])

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _once(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._look()
            self._next_look = now + LOOK_S
        self._reap()
        self._start()
        self.gateway.keep(as_json(self._table()))
        self._retire()
        for identifier, seen in self.gateway.seen().items():
            self.judging.add(identifier, seen)
        settled = not self.draining and all(worker.ready for worker in self.workers.values())
        self.gateway.wait(REST_S if settled and self.gateway.told else TICK_S, self._woken)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _look(self) -> None:
        """What should run, and what becomes of the canaries."""
        try:
            self.wanted = {found.id: found for found in self.deployments.live()}
        except Exception as error:  # the database may be away for a while; what serves goes on serving
            logger.warning("the table of deployments cannot be read: %s", error)
            return
        self._tell_of_the_gateway()
        for canary in [found for found in self.wanted.values() if found.state == "canary"]:
            try:
                self.judging.judge(canary)
            except Exception as error:  # params.yaml is being edited, a log is away: it keeps its share meanwhile
                logger.warning("the canary %s cannot be judged: %s", canary.tag, error)

    def _tell_of_the_gateway(self) -> None:
        """The gateway tells what is wrong with the workers; that it dies again and again is told here, and that it lives."""
        deaths = self.gateway.deaths
        wrong = deaths >= RESTARTS
        if wrong == self._gateway_dies or 0 < deaths < RESTARTS:
            return
        self._gateway_dies = wrong
        why = f"The gateway was started again {deaths} times in ten minutes." if wrong else "The gateway lives."

        def tell() -> None:
            alerts = Alerts(self.settings)
            (alerts.raised if wrong else alerts.cleared)(MACHINE, "service", why)

        threading.Thread(target=tell, name="alert", daemon=True).start()  # a webhook may not answer

    def _reap(self) -> None:
        for identifier, worker in list(self.workers.items()):
            worker.look()
            if not worker.ended and not worker.late:
                if worker.ready:
                    self._failures.pop(identifier, None)
                continue
            if worker.late:
                logger.error("%s does not answer in time", worker.serving.tag)
                worker.process.kill()
                worker.process.wait()
            logger.error("the worker of %s ended with %s", worker.serving.tag, worker.process.returncode)
            worker.close()
            del self.workers[identifier]
            self._failed(identifier)
            self.judging.crashed(identifier)

    def _failed(self, identifier: int) -> None:
        failures = self._failures.get(identifier, 0)
        self._failures[identifier] = failures + 1
        self._next_try[identifier] = time.monotonic() + BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]

    def _start(self) -> None:
        for identifier, found in self.wanted.items():
            if identifier in self.workers or time.monotonic() < self._next_try.get(identifier, 0.0):
                continue
            try:  # whole, signed by a key that is trusted: before anything of it is loaded
                place = checked(self.settings.bentoml_home, found.tag, Keys.of(self.settings))
                serving = Serving(identifier, found.task, found.tag, place)
                self.workers[identifier] = Worker(serving, self.settings.predictions_dir)
                logger.info("%s is started as %s of %s", found.tag, found.state, found.task)
            except (StageFailed, OSError) as error:
                logger.error("%s is not started: %s", found.tag, error)
                self._failed(identifier)
                self.judging.refused(found, str(error))

    def _table(self) -> Table:
        """What answers now. A champion that is not ready yet leaves the task to the one before it."""
        table: dict[str, Route] = {}
        ready = {identifier: worker for identifier, worker in self.workers.items() if worker.ready and not worker.ended}
        for task in {found.task for found in self.wanted.values()}:
            roles = {found.state: ready.get(found.id) for found in self.wanted.values() if found.task == task}
            champion = roles.get("champion") or self._before(task, ready)
            canary, shadow = roles.get("canary"), roles.get("shadow")
            table[task] = Route(
                champion.target if champion else None,
                canary.target if canary else None,
                self.judging.percent(canary.serving.deployment) if canary else 0.0,
                shadow.target if shadow else None,
            )
        return table

    def _before(self, task: str, ready: dict[int, Worker]) -> Worker | None:
        """A worker of the task's that should run no more, but does."""
        left = [w for i, w in ready.items() if w.serving.task == task and i not in self.wanted]
        return max(left, key=lambda worker: worker.serving.deployment, default=None)

    def _retire(self) -> None:
        """End the workers that the gateway sends nobody to."""
        used = self.gateway.used
        for identifier, worker in list(self.workers.items()):
            if identifier not in self.wanted and worker.socket not in used:
                self.draining.append(self.workers.pop(identifier))
                logger.info("%s is no longer wanted", worker.serving.tag)
        self.draining = [worker for worker in self.draining if not worker.drain(DRAIN_AFTER_S)]


def main() -> None:
    from lepton_platform.gateway.access import redact_logs

    parser = argparse.ArgumentParser(prog="lepton_platform.gateway.supervisor", description="Serve all deployments.")
    parser.add_argument("--host", default=None)
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--fd", type=int, help="a listening socket that was bound already")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    redact_logs()
    settings = get_settings()
    if chosen.fd is not None:
        listening = socket.socket(fileno=chosen.fd)
    else:
        port = settings.service_port if chosen.port is None else chosen.port
        listening = socket.create_server((chosen.host or settings.host, port), backlog=1024)
    sockets = settings.state_dir / SOCKETS
    sockets.mkdir(parents=True, exist_ok=True)
    sockets.chmod(0o700)  # a worker asks for no key
    os.chdir(sockets)
    for left in Path().glob("*.sock"):
        left.unlink()
    Supervisor(settings, listening).run()


if __name__ == "__main__":
    main()
