"""`ModelTask`: the Dagster component that turns a task into assets and their checks."""

from lepton_platform.components.model_task import ModelTask

__all__ = ["ModelTask"]
