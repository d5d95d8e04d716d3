"""Every setting and where it comes from: the environment (``LEPTON_*``), then ``.env``, then the default.

Nothing is read or written outside the workspace, ``DAGSTER_HOME`` and the folders named here.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from lepton_platform.root import STATE, find_workspace

STORES = ("DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR")  # where the other tools keep a workspace's state


class Settings(BaseSettings):
    """One object for a process; ``get_settings`` makes it once."""

    model_config = SettingsConfigDict(env_prefix="LEPTON_", extra="ignore", frozen=True)

    workspace: Path = Field(default_factory=lambda: find_workspace(Path.cwd()), description="The workspace's folder.")
    backend: Literal["local", "production"] = Field("local", description="One machine, or servers by URL.")
    cache_dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lepton",
        description="Downloads, shared by all workspaces; checked by SHA-256 at every use.",
    )
    state_url: str = Field("", description="SQLAlchemy URL of the live state; SQLite if empty.")
    redis_url: str = Field("", description="Feast's online store in production (redis://host:port).")
    remote_url: str = Field("", description="Feast's offline data in production: a folder, or s3://bucket/prefix.")
    host: str = Field("127.0.0.1", description="Every port binds here.")
    auth: Literal["on", "off"] = Field(
        "on", description="off: the gateway asks for no keys; only where `host` is this machine's alone."
    )
    ui_port: int = Field(3000, description="Dagster's UI.")
    service_port: int = Field(3100, description="The gateway: one address for all tasks.")
    evidently_port: int = Field(3900, description="Evidently's UI.")
    alert_webhook: str = Field("", description='Told of alerts by POST of {"text": …}, as Slack takes it.')
    alert_email: str = Field("", description="Told of alerts by e-mail; several are parted by commas.")
    alert_sender: str = Field("", description="Who these come from; the first of `alert_email` if empty.")
    alert_link: str = Field(
        "",
        description="Where people reach the gateway, for alerts, as https://models.example.org; where it binds, if empty.",
    )
    drift_overdue_hours: float = Field(
        3.0, gt=0, description="A task that answers, and whose drift nobody has checked for so long, opens an alert."
    )
    smtp_url: str = Field("", description="The server for them: smtp://host:port or smtps://user:password@host.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where training runs.")

    @property
    def state_dir(self) -> Path:
        """Live state of the workspace; git-ignored, never hashed."""
        return self.workspace / STATE

    @cached_property
    def database_url(self) -> str:
        return self.state_url or f"sqlite:///{self.state_dir / 'state.sqlite'}"

    @property
    def dagster_home(self) -> Path:
        return Path(os.environ.get("DAGSTER_HOME") or self.workspace / "dagster_home").resolve()

    @property
    def bentoml_home(self) -> Path:
        return Path(os.environ.get("BENTOML_HOME") or self.state_dir / "bentoml").resolve()

    @property
    def predictions_dir(self) -> Path:
        """The services' logs: ``<task>/<hour>/…``."""
        return self.state_dir / "predictions"

    @property
    def evidently_dir(self) -> Path:
        return self.state_dir / "evidently"

    def path(self, *parts: str) -> Path:
        return self.workspace.joinpath(*parts)


_settings: Settings | None = None


def get_settings() -> Settings:
    """The process's settings, read once."""
    global _settings
    if _settings is None:
        _settings = use_workspace(None)
    return _settings


def use_workspace(workspace: Path | None) -> Settings:
    """Choose the workspace for this process (``--workspace``) and read its ``.env``.

    What the environment already says wins over ``.env``. The stores of the other tools are exported,
    so that a child process finds the same ones.
    """
    global _settings
    inherited = os.environ.get("LEPTON_WORKSPACE")
    root = workspace.resolve() if workspace is not None else find_workspace(Path(inherited or Path.cwd()))
    if inherited and Path(inherited).resolve() != root:  # the environment speaks of another workspace's stores
        for name in STORES:
            os.environ.pop(name, None)
    _settings = Settings(workspace=root, _env_file=root / ".env")  # pyright: ignore[reportCallIssue]
    os.environ["LEPTON_WORKSPACE"] = str(root)
    os.environ["DAGSTER_HOME"] = str(_settings.dagster_home)
    os.environ["BENTOML_HOME"] = str(_settings.bentoml_home)
    # DVC's index of file times; its default is a folder shared by the whole machine
    os.environ["DVC_SITE_CACHE_DIR"] = os.environ.get("DVC_SITE_CACHE_DIR") or str(_settings.state_dir / "dvc")
    return _settings
