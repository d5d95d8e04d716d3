"""From offered to promoted, step by step: canaries, shadows, the way back. Every change is one transaction and one audit row.

A canary answers a share of the requests, which rises by steps; a shadow is asked what the champion is asked, and
nobody is given its answers. Who judges a canary's steps is ``gateway/ramp.py``; here is only what may follow what.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lepton_platform.serving import audit
from lepton_platform.serving.deployments import Deployment, Deployments, row_table
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

_BACK = "Rolled back: "
_rollout = sa.Table(
    "rollout",
    audit.metadata,
    sa.Column("deployment", sa.Integer, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("steps", sa.JSON, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("every_s", sa.Float, nullable=False),
    sa.Column("step_started_at", sa.String, nullable=False),
)


@dataclass(frozen=True)
class Rollout:
    """A canary on its way: ``steps`` are the shares in percent, each for at least ``every_s`` seconds."""

    deployment: int
    task: str
    steps: tuple[float, ...]
    step: int
    every_s: float
    step_started_at: str

    @property
    def percent(self) -> float:
        return self.steps[self.step]

    @property
    def last(self) -> bool:
        return self.step + 1 == len(self.steps)

    def elapsed_s(self, at: datetime | None = None) -> float:
        return ((at or datetime.now(UTC)) - datetime.fromisoformat(self.step_started_at)).total_seconds()


class Rollouts:
    """The table of canaries' steps, beside that of deployments."""

    def __init__(self, settings: Settings) -> None:
        self.deployments = Deployments(settings)
        self._engine = self.deployments.engine

    def of(self, deployment: int) -> Rollout | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_rollout).where(_rollout.c.deployment == deployment)).mappings().first()
        return None if row is None else Rollout(**{**row, "steps": tuple(row["steps"])})

    def start_canary(self, values: dict[str, Any], steps: Sequence[float], every_s: float, **told: Any) -> Deployment:
        """Put a Bento beside the champion with the first of its shares. ``values``: of the deployment's row.

        A canary that is there already ends: the later Bento is wanted, and one that nobody asks would wait for ever.
        """
        steps = check_steps(steps, every_s)
        row = {**values, "state": "canary"}
        with self._unique(values["task"], "canary"), self._engine.begin() as connection:
            self.deployments.supersede(connection, row)
            identifier = self.deployments.insert(connection, row)
            connection.execute(
                _rollout.insert().values(
                    deployment=identifier, task=values["task"], steps=list(steps), step=0, every_s=every_s,
                    step_started_at=audit.now(),
                )
            )  # fmt: skip
            told = {"why": values["reason"], "details": {"steps": list(steps), "every_s": every_s}, **told}
            audit.record(connection, values["task"], values["tag"], identifier, f"canary {steps[0]:g} %", **told)
        return self.deployments.known(identifier)

    def start_shadow(self, values: dict[str, Any], **told: Any) -> Deployment:
        with self._unique(values["task"], "shadow"), self._engine.begin() as connection:
            identifier = self.deployments.insert(connection, {**values, "state": "shadow"})
            told = {"why": values["reason"], **told}
            audit.record(connection, values["task"], values["tag"], identifier, "shadow", **told)
        return self.deployments.known(identifier)

    def advance(self, rollout: Rollout, why: str, **told: Any) -> bool:
        """To the next share; ``False`` where somebody else has changed the rollout meanwhile."""
        canary = self.deployments.known(rollout.deployment)
        following = rollout.steps[rollout.step + 1]
        with self._engine.begin() as connection:
            moved = connection.execute(
                _rollout.update()
                .where(
                    _rollout.c.deployment == rollout.deployment, _rollout.c.step == rollout.step, _on_its_way(canary)
                )
                .values(step=rollout.step + 1, step_started_at=audit.now())
            )
            if moved.rowcount == 1:
                audit.record(
                    connection, canary.task, canary.tag, canary.id, f"canary {following:g} %", **{"why": why, **told}
                )
        return moved.rowcount == 1

    def promote(self, deployment: Deployment, why: str, **told: Any) -> bool:
        """A canary, a shadow or a retired one becomes the champion; the champion retires. ``False`` where it is too late."""
        at = audit.now()
        with self._engine.begin() as connection:
            connection.execute(
                row_table.update()
                .where(
                    row_table.c.task == deployment.task,
                    row_table.c.state == "champion",
                    row_table.c.id != deployment.id,
                )
                .values(state="retired", ended_at=at)
            )
            moved = connection.execute(
                row_table.update().where(_same(deployment)).values(state="champion", reason=why, ended_at=None)
            )
            if moved.rowcount != 1:
                connection.rollback()
                return False
            audit.record(connection, deployment.task, deployment.tag, deployment.id, "promoted", **{"why": why, **told})
        return True

    def end(self, deployment: Deployment, action: str, why: str, **told: Any) -> bool:
        """A canary or a shadow stops answering. ``False`` where it has ended already."""
        with self._engine.begin() as connection:
            moved = connection.execute(
                row_table.update()
                .where(_same(deployment))
                .values(
                    state="turned back" if deployment.state == "canary" else "ended", reason=why, ended_at=audit.now()
                )
            )
            if moved.rowcount == 1:
                audit.record(connection, deployment.task, deployment.tag, deployment.id, action, **{"why": why, **told})
        return moved.rowcount == 1

    def end_shadow(self, task: str, why: str, **told: Any) -> Deployment:
        """``StageFailed`` where there is none."""
        found = self.deployments.in_state(task, "shadow")
        if found is None or not self.end(found, "shadow ended", why, **told):
            raise StageFailed(f"{task} has no shadow.")
        return found

    def roll_back(self, task: str, why: str, **told: Any) -> tuple[str, Deployment]:
        """End the canary where there is one; else let the previous champion serve again. ``("ended" | "promoted", which)``.

        ``StageFailed`` where there is nothing to go back to.
        """
        canary = self.deployments.in_state(task, "canary")
        if canary is not None:
            done, what, found = self.end(canary, "rolled back", why, **told), "ended", canary
        else:
            found = self._before(task)
            if found is None:
                raise StageFailed(f"{task} has no earlier champion to go back to.")
            done, what = self.promote(found, f"{_BACK}{why}", **told), "promoted"
        if not done:
            raise StageFailed(f"{task} has been changed meanwhile; look at `lepton deployments {task}` and try again.")
        return what, found

    def _before(self, task: str) -> Deployment | None:
        """The champion before this one, in the order of their promotions; what was rolled back from is not gone back to."""
        told = audit.changes(self._engine, task)[::-1]  # read first: all that it names is in the table by then
        known = {found.id: found for found in reversed(self.deployments.history(task))}
        begun = {change.deployment for change in told if not change.why.startswith(_BACK)}
        served = [identifier for identifier in known if identifier not in begun]  # from before there was an audit
        for identifier in (change.deployment for change in told if change.action == "promoted"):
            if identifier in served:
                del served[served.index(identifier) :]
            if identifier is not None:
                served.append(identifier)
        return next(
            (known[identifier] for identifier in reversed(served) if known[identifier].state == "retired"), None
        )

    def _unique(self, task: str, state: str) -> "_OnlyOne":
        return _OnlyOne(task, state)


class _OnlyOne:
    """Turns the database's objection to a second canary or shadow into words."""

    def __init__(self, task: str, state: str) -> None:
        self.task, self.state = task, state

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, IntegrityError):
            raise StageFailed(
                f"{self.task} has a {self.state} already. `lepton rollback {self.task}` ends it; "
                f"`lepton deployments {self.task}` shows it."
            ) from None


def check_steps(steps: Sequence[float], every_s: float) -> tuple[float, ...]:
    """Rising shares in percent; ``StageFailed`` says what is wrong."""
    rising = all(a < b for a, b in pairwise(steps))
    if not steps or not rising or steps[0] <= 0 or steps[-1] > 100:
        raise StageFailed(f"A canary's steps are rising shares in percent, as in 5,25,100; not {list(steps)}.")
    if every_s <= 0:
        raise StageFailed("A canary's steps take a time above zero.")
    return tuple(float(step) for step in steps)


def _same(deployment: Deployment) -> sa.ColumnElement[bool]:
    return sa.and_(row_table.c.id == deployment.id, row_table.c.state == deployment.state)


def _on_its_way(canary: Deployment) -> sa.ColumnElement[bool]:
    """It has been neither promoted nor ended."""
    return sa.exists(sa.select(row_table.c.id).where(row_table.c.id == canary.id, row_table.c.state == "canary"))
