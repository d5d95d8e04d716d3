"""Offering a Bento: the rule by which a challenger takes the champion's place, at once or by a canary's steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError

from lepton_platform.serving import audit
from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.comparison import RECENT, Judge, compare, compare_recent, verdict
from lepton_platform.serving.deployments import Deployment, Deployments
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.rollouts import Rollouts
from lepton_platform.serving.signing import Keys
from lepton_platform.serving.store import checked, import_bento, stored, tag_of
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed


@dataclass(frozen=True)
class Decision:
    """What became of a Bento that was offered. ``changed``: another Bento serves now than before."""

    deployment: Deployment
    promoted: bool
    changed: bool
    reason: str


def deploy(
    settings: Settings,
    task: str,
    *,
    bento: Path,
    test: Path,
    params: RolloutParams,
    judge: Judge,
    run_id: str | None = None,
    recent: Path | None = None,
    steps: Sequence[float] = (),
    every_s: float = 600.0,
    again: bool = False,
) -> Decision:
    """Offer a Bento: the first one serves; a later one takes over unless it is worse on the same ``test`` rows.

    ``judge``: the task's evaluator. ``recent``: a data set of labelled production rows that neither has learnt from;
    on the latest of them it must not be worse either. ``steps``: take over by these shares in percent, each for
    ``every_s`` seconds. ``again``: even where it has been a canary before and was turned back.

    The Bento is put into the store either way. Offering the champion again changes nothing; offering again what
    the same champion has beaten on as many rows gives the same answer without a new row.
    """
    offer = _Offer(settings, task, test, recent, params, judge, run_id, tuple(steps), every_s)
    for _ in range(3):
        decision = _decide(offer, bento, again)
        if decision is not None:
            return decision
    raise RuntimeError(f"The champion of {task} changed three times while a challenger was being compared.")


@dataclass(frozen=True)
class _Offer:
    settings: Settings
    task: str
    test: Path
    recent: Path | None
    params: RolloutParams
    judge: Judge
    run_id: str | None
    steps: tuple[float, ...]
    every_s: float


def _decide(offer: _Offer, bento: Path, again: bool) -> Decision | None:
    """``None``: the champion changed meanwhile, compare anew."""
    table, task, settings = Deployments(offer.settings), offer.task, offer.settings
    tag, current = tag_of(bento), table.champion(task)
    place = import_bento(settings.bentoml_home, bento, Keys.of(settings))
    if current is not None and current.tag == tag:
        return Decision(current, True, False, f"Nothing to do: {tag} serves already, since {current.created_at}.")
    canary = table.in_state(task, "canary")
    if canary is not None and canary.tag == tag:
        return Decision(canary, False, False, f"Nothing to do: {tag} is a canary already, since {canary.created_at}.")
    before = table.by_tag(task, tag)
    if before is not None and before.state == "turned back" and not again:
        return Decision(before, False, False, f"It has been a canary and was turned back: {before.reason}")
    promoted, reason, comparison = _judge(offer, current, place)
    if not promoted and before is not None and before.reason == reason and before.state == "refused":
        return Decision(before, False, False, reason)
    values = {
        **new_row(task, tag, place, reason, offer.run_id, current),
        "comparison": comparison,
    }
    if promoted and current is not None and offer.steps:
        values["reason"] = reason.replace("Promoted:", "Canary:", 1)
        started = Rollouts(settings).start_canary(values, offer.steps, offer.every_s, run_id=offer.run_id)
        return Decision(started, False, True, started.reason)
    try:
        state = "champion" if promoted else "refused"
        written = table.write({**values, "state": state}, current.id if current else None)
    except IntegrityError:
        return None
    return Decision(written, promoted, promoted, reason)


def new_row(
    task: str, tag: str, place: Path, reason: str, run_id: str | None, current: Deployment | None
) -> dict[str, Any]:
    """The columns of a deployment that is about to begin, but for its state."""
    return {
        "task": task,
        "tag": tag,
        "path": str(place),
        "reason": reason,
        "created_at": audit.now(),
        "run_id": run_id,
        "metrics": _metrics(place),
        "compared_with": current.tag if current else None,
        "comparison": None,
    }


def shadow(settings: Settings, task: str, bento: Path, run_id: str | None = None) -> Deployment:
    """Let a Bento be asked what the champion is asked; nobody is given its answers, so that it passes no gate."""
    table, tag = Deployments(settings), tag_of(bento)
    place, current = import_bento(settings.bentoml_home, bento, Keys.of(settings)), table.champion(task)
    if current is None:
        raise StageFailed(f"{task} has no champion to follow. `lepton run {task}` deploys one.")
    values = new_row(task, tag, place, "Shadow: asked beside the champion.", run_id, current)
    return Rollouts(settings).start_shadow(values, run_id=run_id)


def _judge(offer: _Offer, current: Deployment | None, challenger: Path) -> tuple[bool, str, dict[str, Any] | None]:
    """May it take over, why, and the figures of it."""
    settings, params = offer.settings, offer.params
    if current is None:
        return True, "Promoted: there was no champion.", None
    place = stored(settings.bentoml_home, current.tag)
    if not place.is_dir():
        return True, f"Promoted: the champion {current.tag} is no longer in the Bento store.", None
    try:
        checked(settings.bentoml_home, current.tag, Keys.of(settings))  # its code is about to run
    except StageFailed as refused:
        return True, f"Promoted: the champion {current.tag} may no longer be loaded. {refused}", None
    comparison = compare(place, challenger, offer.test, params, offer.judge)
    promoted, reason = verdict(comparison, params.max_loss)
    figures = comparison.as_dict()
    if not promoted or offer.recent is None:
        return promoted, reason, figures
    recent = compare_recent(place, challenger, offer.recent, params, offer.judge)
    if recent is None:
        return promoted, reason, figures
    promoted, why = verdict(recent, params.max_recent_loss, RECENT)
    reason = f"{reason} {why.replace('Promoted: ', 'Also ', 1)}" if promoted else why
    return promoted, reason, {**figures, "recent": recent.as_dict()}


def _metrics(bento: Path) -> dict[str, Any]:
    import json

    return json.loads((bento / MANIFEST).read_text("utf-8"))["metrics"]
