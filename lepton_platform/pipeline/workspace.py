"""Make a workspace: the folder that holds parameters, data, models and reports of a team's tasks."""

from pathlib import Path

from lepton_platform.pipeline import dvcfile
from lepton_platform.pipeline.params import PROFILES, profile_names, workspace_tasks
from lepton_platform.pipeline.stages import STAGES
from lepton_platform.settings import MARKER, use_workspace
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
"""


def _write_new(path: Path, content: str) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def init(folder: Path, profile: str) -> list[str]:
    """Make ``folder`` a workspace of that profile; what is already there is kept. Returns its tasks."""
    from lepton_platform.features.store import write_files as write_feast_files
    from lepton_platform.pipeline import versioning

    if profile not in profile_names():
        raise StageFailed(f"There is no profile '{profile}'. The profiles are: {', '.join(profile_names())}.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_new(folder / MARKER, (PROFILES / f"{profile}.yaml").read_text(encoding="utf-8"))
    _write_new(folder / ".env", ENV)
    _write_new(folder / ".gitignore", GITIGNORE)
    _write_new(folder / "dagster_home" / "dagster.yaml", DAGSTER_YAML.read_text(encoding="utf-8"))
    settings = use_workspace(folder)
    settings.state_dir.mkdir(exist_ok=True)
    tasks = workspace_tasks(folder)
    for task in tasks:
        for stage in STAGES:
            for _, path in stage.files:
                _write_new(folder / path.format(task=task), "")
    write_feast_files(settings)
    versioning.init(folder)
    dvcfile.write(folder)
    return tasks
