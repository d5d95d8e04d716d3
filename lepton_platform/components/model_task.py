"""``ModelTask``: a task of ``lepton_platform/tasks`` as Dagster assets, checks, jobs, schedules and sensors.

type: lepton_platform.components.ModelTask
attributes:
  task: sentiment
  owners: [team:models]
"""

import dagster as dg
from pydantic import Field

from lepton_platform.components import live, retraining
from lepton_platform.components.stage_asset import stage_asset
from lepton_platform.pipeline.params import workspace_tasks
from lepton_platform.pipeline.stages import STAGES
from lepton_platform.settings import get_settings


class ModelTask(dg.Component, dg.Model, dg.Resolvable):
    """One task, from raw records to a monitored, retrained service."""

    task: str = Field(description="A folder of lepton_platform/tasks.")
    owners: list[str] = Field(default_factory=list, description="People (e-mail) or teams (team:name) of the assets.")
    retrain_cron: str = Field("0 3 * * 1", description="When to retrain whatever happens; UTC.")
    drift_cron: str = Field("15 * * * *", description="When to look at what was served; UTC.")
    drift_window_hours: float = Field(24.0, description="How far back the drift check looks.")
    quality_window_hours: float = Field(168.0, description="How far back the check of the served quality looks.")
    cooldown_hours: float = Field(24.0, description="Hours from one retraining to the next, whoever asks.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        if self.task not in workspace_tasks(get_settings().workspace):
            return dg.Definitions()  # the package has the task, this workspace does without it
        jobs = retraining.jobs(self.task)
        stages = [stage_asset(stage, self.task, self.owners) for stage in STAGES]
        return dg.Definitions(
            assets=[*stages, *live.assets(self.task, self.owners, self.drift_window_hours, self.quality_window_hours)],
            jobs=jobs.all(),
            schedules=retraining.schedules(self.task, jobs, self.retrain_cron, self.drift_cron),
            sensors=[
                retraining.retrain_sensor(self.task, jobs, self.cooldown_hours),
                retraining.sync_sensor(self.task),
            ],
        )
