"""The canaries on their way: what was seen since each step began, and what follows from it."""

import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

from lepton_platform.gateway.agreement import pair
from lepton_platform.gateway.observed import Observed
from lepton_platform.gateway.ramp import Quality, judge
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.pipeline.operate import rollout_params
from lepton_platform.serving.deployments import Deployment
from lepton_platform.serving.log_reader import FEEDBACK, find, hours, read_rows
from lepton_platform.serving.rollouts import Rollout, Rollouts
from lepton_platform.settings import Settings

WHO = "ramp"
RIGHT = 0.5  # agreement with what people said from which an answer counts as right: of boxes, half
QUALITY_S = 15.0  # between two looks at what people said
logger = logging.getLogger("lepton.supervisor")


class Judging:
    """``add`` what was seen, ``judge`` every so often; changes go to the table of deployments."""

    def __init__(self, settings: Settings, rollouts: Rollouts) -> None:
        self.settings, self.rollouts = settings, rollouts
        self._seen: dict[int, Observed] = {}  # of every deployment, since the step of its task's canary began
        self._steps: dict[int, Rollout] = {}
        self._quality: dict[int, tuple[float, tuple[Quality, Quality]]] = {}

    def percent(self, deployment: int) -> float:
        found = self._steps.get(deployment)
        return found.percent if found is not None else 0.0

    def add(self, deployment: int, seen: Observed) -> None:
        self._seen.setdefault(deployment, Observed()).add(seen)

    def crashed(self, deployment: int) -> None:
        self._seen.setdefault(deployment, Observed()).crashes += 1

    def refused(self, deployment: Deployment, why: str) -> None:
        """A Bento that may not be loaded serves nobody; a canary or a shadow ends with that."""
        if deployment.state in ("canary", "shadow"):
            self.rollouts.end(deployment, "refused to load", why, who=WHO)

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
        verdict = judge(mine, usual, limits, step_over=over, quality=self._said(canary, champion))
        if verdict.what == "wait":
            return
        told: dict[str, Any] = {"who": WHO, "details": {"canary": _shown(mine), "champion": _shown(usual)}}
        logger.info("%s: %s. %s", canary.tag, verdict.what, verdict.why)
        if verdict.what == "turn back":
            self.rollouts.end(canary, "turned back", verdict.why, **told)
            self._alert(canary, f"{canary.tag} was turned back: {verdict.why}", over=False)
        elif rollout.last:
            self.rollouts.promote(canary, f"Promoted: {verdict.why}", **told)
            self._alert(canary, f"{canary.tag} was promoted.", over=True)
        else:
            self.rollouts.advance(rollout, verdict.why, **told)

    def _alert(self, canary: Deployment, why: str, over: bool) -> None:
        """In a thread: a webhook that does not answer must not hold up who keeps the workers alive."""

        def tell() -> None:
            alerts = Alerts(self.settings)
            (alerts.cleared if over else alerts.raised)(canary.task, "rollout", why)

        threading.Thread(target=tell, name="alert", daemon=True).start()

    def _said(self, canary: Deployment, champion: Deployment | None) -> tuple[Quality, Quality] | None:
        """What people said of both since the canary began, looked up every ``QUALITY_S``."""
        if champion is None:
            return None
        looked, found = self._quality.get(canary.id, (-QUALITY_S, None))
        if found is None or time.monotonic() - looked >= QUALITY_S:
            rows = quality(self.settings, canary.task, datetime.fromisoformat(canary.created_at))
            found = rows.get(str(canary.id), Quality()), rows.get(str(champion.id), Quality())
            self._quality = {canary.id: (time.monotonic(), found)}
        return found


def quality(settings: Settings, task: str, since: datetime) -> dict[str, Quality]:
    """By deployment: answers given since then that people said the truth of, the last word of each."""
    folder, first = settings.predictions_dir, since.astimezone(UTC).strftime("%Y-%m-%dT%H")
    words: dict[str, dict[str, Any]] = {}
    for hour in hours(folder, task):
        if hour >= first:
            words |= {row["prediction_id"]: row for row in read_rows(folder, task, hour, FEEDBACK)}
    found: dict[str, Quality] = {}
    for identifier, truth in words.items():
        row = find(folder, task, identifier)
        if row is None or datetime.fromisoformat(row["at"]) < since:
            continue
        before = found.get(row["deployment"], Quality())
        right = before.right + (pair(row, truth) >= RIGHT)
        found[row["deployment"]] = Quality(right, before.labelled + 1)
    return found


def _shown(seen: Observed) -> dict[str, Any]:
    """The figures that an audit row keeps."""
    told: dict[str, Any] = {name: getattr(seen, name) for name in ("requests", "errors", "crashes", "compared")}
    if seen.requests:
        told |= {f"p{share}_ms": round(seen.quantile_s(share / 100) * 1e3, 1) for share in (50, 95)}
    return {**told, "disagreement": round(seen.disagreement, 4)}
