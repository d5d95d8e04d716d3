"""``ModelTask``: a task of ``lepton_platform/tasks`` as Dagster assets and their checks.

    type: lepton_platform.components.ModelTask
    attributes:
      task: sentiment
      owners: [team:models]
"""

import dagster as dg
from pydantic import Field

from lepton_platform.components.stage_asset import stage_asset
from lepton_platform.pipeline.stages import STAGES


class ModelTask(dg.Component, dg.Model, dg.Resolvable):
    """One task, as the assets of its graph."""

    task: str = Field(description="A folder of lepton_platform/tasks.")
    owners: list[str] = Field(default_factory=list, description="People (e-mail) or teams (team:name) of the assets.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[stage_asset(stage, self.task, self.owners) for stage in STAGES])
