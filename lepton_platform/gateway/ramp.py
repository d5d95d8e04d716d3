"""May a canary go on? Judged every second while it takes its share, and once more before each larger one."""

from dataclasses import dataclass
from typing import Literal

from lepton_platform.gateway.observed import Observed
from lepton_platform.monitoring.performance import wilson
from lepton_platform.serving.params import RolloutParams

_SURE = 0.99  # of the interval that turns a canary back before its step is over: it is looked at many times
_FEW = 20  # requests that say nothing about a share yet


@dataclass(frozen=True)
class Quality:
    """Answers that people said the truth of, and those that were right."""

    right: int = 0
    labelled: int = 0


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
    quality: tuple[Quality, Quality] | None = None,
) -> Verdict:
    """``canary`` and ``champion``: what both did since the step began. ``quality``: of both, since the canary began.

    Before its step is over, and has had its requests, a canary is turned back only by what is sure; then by the limits
    as they stand.
    """
    over = step_over and canary.requests >= limits.min_requests
    wrong = _crashed(canary, limits) or _failed(canary, champion, limits, over) or _worse(quality, limits)
    if wrong:
        return Verdict("turn back", wrong)
    if not step_over:
        return Verdict("wait", "The step is not over.")
    if canary.requests < limits.min_requests:
        return Verdict("wait", f"{canary.requests} requests of {limits.min_requests} that the step needs.")
    wrong = _slow(canary, champion, limits) or _other(canary, limits)
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


def _worse(quality: tuple[Quality, Quality] | None, limits: RolloutParams) -> str | None:
    """By what people said: the intervals of both shares, and a loss beyond what is allowed between them."""
    if quality is None or min(each.labelled for each in quality) < _FEW:
        return None
    (low, high), (floor, _) = (wilson(q.right, q.labelled, _SURE) for q in quality)
    del low
    if high >= floor - limits.max_loss:
        return None
    one, other = quality
    return (
        f"People found {one.right} of its {one.labelled} answers right, and {other.right} of the champion's "
        f"{other.labelled}; the rate may fall by {limits.max_loss:g}."
    )


def _slow(canary: Observed, champion: Observed, limits: RolloutParams) -> str | None:
    mine, usual = canary.quantile_s(0.95), champion.quantile_s(0.95)
    if champion.requests < _FEW or mine <= usual * limits.max_slowdown:
        return None
    return (
        f"95 of 100 of its answers came within {mine * 1e3:.0f} ms, the champion's within {usual * 1e3:.0f} ms; "
        f"{limits.max_slowdown:g} times as long is allowed."
    )


def _other(canary: Observed, limits: RolloutParams) -> str | None:
    if canary.compared < _FEW or canary.disagreement <= limits.max_disagreement:
        return None
    return (
        f"It disagrees with the champion on {canary.disagreement:.0%} of {canary.compared} inputs that both answered; "
        f"{limits.max_disagreement:.0%} are allowed."
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
