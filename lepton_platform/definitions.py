"""Dagster's entry point: everything in ``defs/``, for the workspace that the environment names."""

from pathlib import Path

import dagster as dg

from lepton_platform.settings import get_settings

PACKAGE = Path(__file__).resolve().parent


def project_root() -> Path:
    """The folder whose ``pyproject.toml`` describes the project: the checkout, or the one inside a wheel."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else PACKAGE / "_project"


@dg.definitions
def defs() -> dg.Definitions:
    get_settings()
    loaded = dg.load_from_defs_folder(path_within_project=project_root())
    # a step in this process costs 0.2 s, in one of its own 4 to 8 s; what is heavy has a child process anyway
    return dg.Definitions.merge(loaded, dg.Definitions(executor=dg.in_process_executor))
