"""Make a workspace: the folder that holds parameters, data, models and reports of a team's tasks."""

import re
from collections.abc import Sequence
from pathlib import Path

from lepton_platform.pipeline import dvcfile
from lepton_platform.pipeline.params import PROFILES, profile_names, workspace_tasks
from lepton_platform.root import MARKER
from lepton_platform.settings import use_workspace
from lepton_platform.stage import StageFailed

DAGSTER_YAML = Path(__file__).parent / "dagster.yaml"
GITIGNORE = """\
/.lepton/
/data/*/*/
/models/
/reports/
/dagster_home/*
!/dagster_home/dagster.yaml
"""
ENV = """\
# Read by `lepton`, `dg` and, once sourced, by every other tool typed in this folder.
LEPTON_WORKSPACE=${PWD}
DAGSTER_HOME=${PWD}/dagster_home
BENTOML_HOME=${PWD}/.lepton/bentoml
DVC_SITE_CACHE_DIR=${PWD}/.lepton/dvc
BENTOML_DO_NOT_TRACK=True
DAGSTER_DISABLE_TELEMETRY=1
DO_NOT_TRACK=1
DVC_NO_ANALYTICS=1
FEAST_USAGE=False
GX_ANALYTICS_ENABLED=False
# The gateway asks for no keys: right for one machine alone. Take it out before LEPTON_HOST is set; `lepton keys` makes keys.
LEPTON_AUTH=off
"""


def _write_new(path: Path, content: str) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def _params(profile: str, tasks: Sequence[str] | None) -> str:
    """The profile's parameters, those of ``tasks`` only if they are named, with their comments."""
    content = (PROFILES / f"{profile}.yaml").read_text(encoding="utf-8")
    if tasks is None:
        return content
    head, *sections = re.split(r"^(?=[a-z]\w*:)", content, flags=re.MULTILINE)
    named = {section.partition(":")[0]: section for section in sections}
    unknown = [task for task in tasks if task not in named]
    if unknown:
        raise StageFailed(f"The profile {profile} has no task '{unknown[0]}'. Its tasks are: {', '.join(named)}.")
    return head + "".join(section for task, section in named.items() if task in tasks)


def init(folder: Path, profile: str, only: Sequence[str] | None = None) -> list[str]:
    """Make ``folder`` a workspace of that profile, for its tasks or for ``only`` some of them.

    What is already there is kept. Returns the tasks.
    """
    from lepton_platform.features.store import write_files as write_feast_files
    from lepton_platform.pipeline import versioning

    if profile not in profile_names():
        raise StageFailed(f"There is no profile '{profile}'. The profiles are: {', '.join(profile_names())}.")
    content = _params(profile, only)
    folder.mkdir(parents=True, exist_ok=True)
    _write_new(folder / MARKER, content)
    _write_new(folder / ".env", ENV)
    _write_new(folder / ".gitignore", GITIGNORE)
    _write_new(folder / "dagster_home" / "dagster.yaml", DAGSTER_YAML.read_text(encoding="utf-8"))
    settings = use_workspace(folder)
    settings.state_dir.mkdir(exist_ok=True)
    write_feast_files(settings)
    versioning.init(folder)
    dvcfile.write(folder)
    return workspace_tasks(folder)
