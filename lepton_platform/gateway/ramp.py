"""May a canary go on? Judged every second while it takes its share, and once more before each larger one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lepton_platform.gateway.labelled import Agreed
from lepton_platform.gateway.observed import Observed
from lepton_platform.monitoring.performance import wilson
from lepton_platform.serving.params import RolloutParams

_SURE = 0.99  # of the interval that turns a canary back before its step is over: it is looked at many times
_FEW = 20  # requests that say nothing about a share yet


@dataclass(frozen=True)
class Verdict:
    """What becomes of a canary now, and why in a sentence."""

    what: Literal["wait", "advance", "turn back"]
    why: str


def judge(
    canary: Observed,
    champion: Observed,
    limits: RolloutParams,
    *,
    step_over: bool,
    said: tuple[Agreed, Agreed] | None = None,
    expected: float = 0.0,
) -> Verdict:
    """``canary`` and ``champion``: what both did since the step began. ``said``: how far each agrees with what people said
    since the canary began. ``expected``: disagreement that is no fault (``expected_disagreement``).

    Before its step is over, and has had its requests, a canary is turned back only by what is sure; then by the limits
    as they stand.
    """
    over = step_over and canary.requests >= limits.min_requests
    wrong = _crashed(canary, limits) or _failed(canary, champion, limits, over) or _worse(said, limits)
    if wrong:
        return Verdict("turn back", wrong)
    if not step_over:
        return Verdict("wait", "The step is not over.")
    if canary.requests < limits.min_requests:
        return Verdict("wait", f"{canary.requests} requests of {limits.min_requests} that the step needs.")
    wrong = _slow(canary, champion, limits) or _other(canary, limits, expected)
    if wrong:
        return Verdict("turn back", wrong)
    return Verdict("advance", _summary(canary, champion))


def _crashed(canary: Observed, limits: RolloutParams) -> str | None:
    if canary.crashes > limits.max_crashes:
        return f"Its process ended by itself {canary.crashes} times; {limits.max_crashes} are allowed."
    return None


def _failed(canary: Observed, champion: Observed, limits: RolloutParams, over: bool) -> str | None:
    if not over and canary.requests < _FEW:
        return None
    share = canary.errors / canary.requests
    usual = champion.errors / champion.requests if champion.requests else 0.0
    surely = share if over else wilson(canary.errors, canary.requests, _SURE)[0]
    if surely <= limits.max_errors + usual:
        return None
    return (
        f"{canary.errors} of its {canary.requests} requests failed ({share:.1%}), {usual:.1%} of the champion's; "
        f"{limits.max_errors:.1%} more are allowed."
    )


def _worse(said: tuple[Agreed, Agreed] | None, limits: RolloutParams) -> str | None:
    """By what people said: the intervals of both, and a loss beyond what is allowed between them."""
    if said is None or min(each.labelled for each in said) < _FEW:
        return None
    one, other = said
    if one.interval(_SURE)[1] >= other.interval(_SURE)[0] - limits.max_loss:
        return None
    return (
        f"It agrees with what people said by {one.share:.1%} ({one.labelled} answers), the champion by "
        f"{other.share:.1%} ({other.labelled}); {limits.max_loss:.1%} less are allowed."
    )


def _slow(canary: Observed, champion: Observed, limits: RolloutParams) -> str | None:
    mine, usual = canary.quantile_s(0.95), champion.quantile_s(0.95)
    if champion.requests < _FEW or mine <= usual * limits.max_slowdown:
        return None
    return (
        f"95 of 100 of its answers came within {mine * 1e3:.0f} ms, the champion's within {usual * 1e3:.0f} ms; "
        f"{limits.max_slowdown:g} times as long is allowed."
    )


def expected_disagreement(comparison: Mapping[str, Any] | None) -> float:
    """How far a challenger may answer otherwise than the champion because that was shown to be right, 0 to 1.

    Where it was better beyond doubt (the whole interval) on the latest labelled production rows, that on which both
    disagreed there; else 0. ``comparison``: as it was offered with, the deployment's.
    """
    recent = (comparison or {}).get("recent") or {}
    return float(recent.get("disagreement") or 0.0) if (recent.get("low") or 0.0) > 0 else 0.0


def _other(canary: Observed, limits: RolloutParams, expected: float) -> str | None:
    allowed = limits.max_disagreement + expected
    if canary.compared < _FEW or canary.disagreement <= allowed:
        return None
    why = f", {expected:.0%} of them as on the labelled rows on which it was better" if expected else ""
    return (
        f"It disagrees with the champion on {canary.disagreement:.0%} of {canary.compared} inputs that both answered; "
        f"{allowed:.0%} are allowed{why}."
    )


def _summary(canary: Observed, champion: Observed) -> str:
    said = (
        f"{canary.requests} requests, {canary.errors} failed, 95 of 100 within {canary.quantile_s(0.95) * 1e3:.0f} ms"
    )
    if champion.requests:
        said += f" (champion {champion.quantile_s(0.95) * 1e3:.0f} ms)"
    if canary.compared:
        said += f", {canary.disagreement:.0%} of {canary.compared} answered otherwise than by the champion"
    return f"{said}."
