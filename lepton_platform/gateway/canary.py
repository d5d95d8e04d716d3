"""The canaries on their way: what was seen since each step began, and what follows from it."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lepton_platform.gateway.labelled import Agreed, Labelled
from lepton_platform.gateway.observed import Observed
from lepton_platform.gateway.ramp import expected_disagreement, judge
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.pipeline.operate import rollout_params
from lepton_platform.serving.deployments import Deployment
from lepton_platform.serving.rollouts import Rollout, Rollouts
from lepton_platform.settings import Settings

WHO = "ramp"
SAID_S = 15.0  # between two looks at what people said
logger = logging.getLogger("lepton.supervisor")


class Judging:
    """``add`` what was seen, ``judge`` every so often; changes go to the table of deployments."""

    def __init__(self, settings: Settings, rollouts: Rollouts) -> None:
        self.settings, self.rollouts = settings, rollouts
        self._seen: dict[int, Observed] = {}  # of every deployment, since the step of its task's canary began
        self._steps: dict[int, Rollout] = {}
        self._labelled = Labelled(settings.predictions_dir)
        self._agreed: dict[int, tuple[float, tuple[Agreed, Agreed]]] = {}

    def percent(self, deployment: int) -> float:
        found = self._steps.get(deployment)
        return found.percent if found is not None else 0.0

    def add(self, deployment: int, seen: Observed) -> None:
        self._seen.setdefault(deployment, Observed()).add(seen)

    def crashed(self, deployment: int) -> None:
        self._seen.setdefault(deployment, Observed()).crashes += 1

    def refused(self, deployment: Deployment, why: str) -> None:
        """A Bento that may not be loaded serves nobody; a canary or a shadow ends with that."""
        if deployment.state not in ("canary", "shadow"):
            return
        if self.rollouts.end(deployment, "refused to load", why, who=WHO) and deployment.state == "canary":
            self._turned_back(deployment, why)

    def judge(self, canary: Deployment) -> None:
        """Let it wait, go on or go."""
        rollout = self.rollouts.of(canary.id)
        if rollout is not None:
            self._judge(canary, rollout)

    def _judge(self, canary: Deployment, rollout: Rollout) -> None:
        champion = self.rollouts.deployments.champion(canary.task)
        known = self._steps.get(canary.id)
        if known is None or known.step != rollout.step:  # a step begins: what was seen before does not count
            crashes = self._seen.pop(canary.id, Observed()).crashes if known is not None else 0
            self._seen[canary.id] = Observed(crashes=crashes)
            if champion is not None:
                self._seen.pop(champion.id, None)
            self._steps[canary.id] = rollout
        limits = rollout_params(self.settings, canary.task)
        mine = self._seen.setdefault(canary.id, Observed())
        usual = self._seen.get(champion.id, Observed()) if champion else Observed()
        over = rollout.elapsed_s() >= rollout.every_s
        said, expected = self._said(canary, champion), expected_disagreement(canary.comparison)
        verdict = judge(mine, usual, limits, step_over=over, said=said, expected=expected)
        if verdict.what == "wait":
            return
        told: dict[str, Any] = {"who": WHO, "details": {"canary": _shown(mine), "champion": _shown(usual)}}
        logger.info("%s: %s. %s", canary.tag, verdict.what, verdict.why)
        if verdict.what == "turn back":
            self.rollouts.end(canary, "turned back", verdict.why, **told)
            self._turned_back(canary, verdict.why)
        elif rollout.last:
            self.rollouts.promote(canary, f"Promoted: {verdict.why}", **told)
            self._tell(lambda alerts: alerts.promoted(canary.task, canary.tag))
        else:
            self.rollouts.advance(rollout, verdict.why, **told)

    def _turned_back(self, canary: Deployment, why: str) -> None:
        self._tell(lambda alerts: alerts.raised(canary.task, "rollout", f"{canary.tag} was turned back: {why}"))

    def _tell(self, what: Callable[[Alerts], object]) -> None:
        """In a thread: a webhook that does not answer must not hold up who keeps the workers alive."""
        threading.Thread(target=lambda: what(Alerts(self.settings)), name="alert", daemon=True).start()

    def _said(self, canary: Deployment, champion: Deployment | None) -> tuple[Agreed, Agreed] | None:
        """How far both agree with what people said since the canary began, looked up every ``SAID_S``."""
        if champion is None:
            return None
        looked, found = self._agreed.get(canary.id, (-SAID_S, None))
        if found is None or time.monotonic() - looked >= SAID_S:
            told = self._labelled.of(canary.task, datetime.fromisoformat(canary.created_at), "deployment")
            found = told.get(str(canary.id), Agreed()), told.get(str(champion.id), Agreed())
            self._agreed[canary.id] = time.monotonic(), found
        return found


def _shown(seen: Observed) -> dict[str, Any]:
    """The figures that an audit row keeps."""
    told: dict[str, Any] = {name: getattr(seen, name) for name in ("requests", "errors", "crashes", "compared")}
    if seen.requests:
        told |= {f"p{share}_ms": round(seen.quantile_s(share / 100) * 1e3, 1) for share in (50, 95)}
    return {**told, "disagreement": round(seen.disagreement, 4)}
