"""`ModelTask`: the Dagster component that turns a task into assets, checks, jobs, schedules and sensors."""

from lepton_platform.components.model_task import ModelTask

__all__ = ["ModelTask"]
