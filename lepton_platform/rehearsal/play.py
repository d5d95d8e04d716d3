"""The play: a service is built and used, its inputs change, and the loop is watched until it has answered.

Everything is the real part: the graph through Dagster, the gateway and its workers, the drift check, the book of
requests, the gates, the canary. Only the clock is hurried: what the daemon would look at in half a minute is looked at now.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from lepton_platform.rehearsal.client import Row, User
from lepton_platform.rehearsal.shifts import shift_of
from lepton_platform.rehearsal.timeline import Timeline
from lepton_platform.root import MARKER
from lepton_platform.settings import Settings
from lepton_platform.stage import Progress, StageFailed
from lepton_platform.tasks import load_part

if TYPE_CHECKING:
    from lepton_platform.serving.deployments import Deployment

READY_S, ROLLOUT_S = 120.0, 240.0
Watch = Callable[[str, str], Progress]


@dataclass
class Ending:
    """How a part of the play ended. ``figures``: before and after, on what was shifted and on the frozen test."""

    name: str
    as_hoped: bool
    said: str
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Play:
    """One task in a scratch workspace; ``build`` and ``serving`` come first."""

    def __init__(self, settings: Settings, task: str, timeline: Timeline, watch: Watch) -> None:
        self.settings, self.task, self.timeline, self.watch = settings, task, timeline, watch
        self.shift = shift_of(task)
        self.sizes = self.shift.sizes
        self.user = User("", task)

    def build(self) -> None:
        from lepton_platform.pipeline.stages import stage_names

        began = time.monotonic()
        self._materialize(*stage_names(), "online_features", "deployment")
        champion = self.champion()
        seconds = round(time.monotonic() - began, 1)
        self.timeline.add("built", f"{champion.tag} serves.", seconds=seconds, stages_s=self._stage_seconds())

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The gateway and its workers, on a port of their own."""
        from lepton_platform.gateway import control

        started = control.start_services(self.settings, 0)
        try:
            if not control.wait_ready(started.url, READY_S, started.pid):
                raise StageFailed(f"The services were not ready in {READY_S:g} s; see {started.log}.")
            self.user = User(started.url, self.task)
            self.timeline.add("serving", f"The gateway answers at {started.url}.")
            yield
        finally:
            control.stop(started.pid)

    # --- what the endings share

    def champion(self) -> "Deployment":
        from lepton_platform.serving.deployments import champion

        found = champion(self.settings, self.task)
        assert found is not None
        return found

    def _materialize(self, *assets: str) -> set[str]:
        from lepton_platform.components import launch
        from lepton_platform.definitions import defs

        names = [f"{self.task}/{name}" for name in assets]
        ended = launch.materialize(self.settings, defs(), names, False, self.watch)
        if ended.failures:
            raise StageFailed(ended.failures[0])
        return ended.ran

    def _stage_seconds(self) -> dict[str, float]:
        """How long the latest run of each stage took."""
        from lepton_platform.pipeline.ledger import Ledger

        return {one.stage: round(one.seconds, 1) for one in Ledger(self.settings).attempts(self.task)}

    def check_drift(self) -> bool:
        """The asset ``drift`` with its check, as its schedule runs it; has it failed?"""
        from lepton_platform.monitoring.alerts import Alerts

        self._materialize("drift")
        opened = [alert for alert in Alerts(self.settings, []).of(self.task, "drift") if alert.resolved_at is None]
        self.timeline.add("alarm" if opened else "no alarm", opened[0].why if opened else "No signal has drifted.")
        return bool(opened)

    def retrain(self) -> None:
        """One look of the retraining's sensor, and the run that it asks for; ``StageFailed`` where it asks for none."""
        from lepton_platform.components import launch
        from lepton_platform.definitions import defs
        from lepton_platform.monitoring.retraining import RetrainBook

        began = time.monotonic()
        ended = launch.tick(self.settings, defs(), self.task, self.watch)
        if isinstance(ended, str):
            raise StageFailed(f"No retraining was asked for: {ended}")
        request = RetrainBook(self.settings).requests(self.task)[0]
        self.timeline.add("retrain asked for", request.reason, at=request.requested_at)
        for failure in ended.failures:
            raise StageFailed(failure)
        ran = ", ".join(sorted(name.partition("/")[2] for name in ended.ran))
        seconds = round(time.monotonic() - began, 1)
        self.timeline.add("retrained", f"Ran: {ran}.", seconds=seconds, stages_s=self._stage_seconds())

    def ask_on_schedule(self) -> None:
        """The schedule's word, as at its hour."""
        from lepton_platform.monitoring.retraining import RetrainBook, Wish

        RetrainBook(self.settings).wish(self.task, Wish("schedule", datetime.now(UTC), "It is time."))

    def spoil(self) -> int:
        """Edit the training rows so that each has the truth of another; how many."""
        from lepton_platform.data.dataset import Dataset
        from lepton_platform.data.edits import note_updates
        from lepton_platform.pipeline.stages import get_stage

        folder = {name: self.settings.path(get_stage(name).path(self.task)) for name in ("raw", "dataset")}
        column = self.shift.truth
        rows = Dataset(folder["dataset"] / "train").read(["id", column, *self.shift.reads]).to_pylist()
        mixed = self.shift.mixed(rows, column)
        changes = {row["id"]: {column: truth} for row, truth in zip(rows, mixed, strict=True)}
        return note_updates(folder["raw"].parent / "edits.jsonl", folder["raw"], changes)

    def set_param(self, section: str, **values: Any) -> None:
        """A person edits ``params.yaml``."""
        from lepton_platform.pipeline.params import read_params

        everything = read_params(self.settings.workspace)
        everything[self.task].setdefault(section, {}).update(values)
        (self.settings.workspace / MARKER).write_text(yaml.safe_dump(everything, sort_keys=False), encoding="utf-8")

    def mend(self) -> set[str]:
        """Take the edits back and run the graph: what DVC holds comes back, and this is what had to run."""
        from lepton_platform.pipeline.stages import get_stage, stage_names

        self.settings.path(get_stage("raw").path(self.task)).with_name("edits.jsonl").write_bytes(b"")
        return {name.partition("/")[2] for name in self._materialize(*stage_names())}

    def rebuild(self) -> None:
        """`lepton run`: the Bento anew, and offered."""
        self._materialize("bento", "deployment")

    def latest(self) -> "Deployment":
        """The Bento that was offered last."""
        from lepton_platform.serving.deployments import Deployments

        found = Deployments(self.settings).history(self.task)[0]
        told = {"canary": "gate passed", "champion": "gate passed", "refused": "gate refused"}
        self.timeline.add(told.get(found.state, found.state), found.reason)
        return found

    def follow(self, canary: "Deployment", rows: Sequence[Row], clients: int | None = None) -> "Deployment":
        """Ask without a pause until the canary is promoted or turned back; its row then."""
        from lepton_platform.serving.deployments import Deployments

        table, until = Deployments(self.settings), time.monotonic() + ROLLOUT_S
        with self.user.asking(rows, clients or self.sizes.clients) as users:
            while (found := table.known(canary.id)).state == "canary" and time.monotonic() < until:
                time.sleep(0.2)
            time.sleep(1.0)  # who asks now is answered by whoever is left
        answered = users.models.total()
        self._audit(canary, answered, users.failed)
        return found

    def _audit(self, canary: "Deployment", answered: int, failed: Sequence[str]) -> None:
        from lepton_platform.serving.audit import changes
        from lepton_platform.serving.deployments import Deployments

        told = [c for c in changes(Deployments(self.settings).engine, self.task) if c.deployment == canary.id]
        for change in list(reversed(told))[1:]:  # the first step is what the gate said
            self.timeline.add(change.action, change.why, at=datetime.fromisoformat(change.at), who=change.who)
        self.timeline.add("users", f"{answered} of their requests were answered, {len(failed)} were not.")
        if failed:
            raise StageFailed(f"A request failed while the canary took its share: {failed[0]}")

    @cached_property
    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """As usual, shifted and labelled, shifted and for the figures alone."""
        sizes, (usual, new) = self.sizes, self.shift.rows(self.settings)
        if len(new) < sizes.labelled + sizes.probe:
            raise StageFailed(f"{len(new)} rows of the new kind are too few for a rehearsal of {self.task}.")
        return usual[: sizes.ordinary], new[sizes.probe :][: sizes.labelled], new[: sizes.probe]


def truths(task: str, rows: Sequence[Row]) -> Any:
    """The rows as a table of the task's columns, made as labelled feedback is read."""
    from lepton_platform.monitoring.quality import labelled_table

    preprocess, api = load_part(task, "preprocess"), load_part(task, "api")
    truth = getattr(api, "TRUTH", "label")
    lines = [{"id": f"r{number}", preprocess.CONTENT: row.content, truth: row.truth} for number, row in enumerate(rows)]
    return labelled_table(load_part(task, "source"), lines)
