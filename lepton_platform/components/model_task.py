"""``ModelTask``: a task of ``lepton_platform/tasks`` as Dagster assets, checks, jobs, a schedule and sensors.

    type: lepton_platform.components.ModelTask
    attributes:
      task: sentiment
      owners: [team:models]
"""

import dagster as dg
from pydantic import Field

from lepton_platform.components import live, schedules
from lepton_platform.components.stage_asset import stage_asset
from lepton_platform.pipeline.stages import STAGES


class ModelTask(dg.Component, dg.Model, dg.Resolvable):
    """One task, from raw records to a monitored, retrained service."""

    task: str = Field(description="A folder of lepton_platform/tasks.")
    owners: list[str] = Field(default_factory=list, description="People (e-mail) or teams (team:name) of the assets.")
    retrain_cron: str = Field("0 3 * * 1", description="When to retrain whatever happens; UTC.")
    drift_cron: str = Field("15 * * * *", description="When to look at what was served; UTC.")
    cooldown_hours: float = Field(24.0, description="Hours between two retrainings asked for by drift.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        built = [stage_asset(stage, self.task, self.owners) for stage in STAGES]
        operated = live.assets(self.task, self.owners)
        jobs = schedules.jobs(self.task)
        return dg.Definitions(
            assets=[*built, *operated],
            asset_checks=live.checks(self.task),
            jobs=jobs.all,
            schedules=schedules.schedules(self.task, jobs, self.retrain_cron, self.drift_cron),
            sensors=schedules.sensors(self.task, jobs, self.cooldown_hours),
        )
