"""What the README promises: its commands exist, and the root workspace is the demo profile."""

import re
from pathlib import Path

from lepton_platform.pipeline.params import PROFILES

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return [line[2:].split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_every_make_target_is_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    asked = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert set(asked) == {"demo", "test", "up", "down"} and set(asked) <= set(targets)


def test_every_lepton_command_is_there():
    from typer.main import get_command

    from lepton_platform.cli import app

    known = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    asked = [command.split()[1] for command in commands() if command.startswith("lepton ")]
    assert set(asked) == {"predict", "trace", "run", "data", "deployments", "history", "rehearse"} and set(
        asked
    ) <= set(known)


def test_the_root_is_the_demo_profile():
    assert (ROOT / "params.yaml").read_text() == (PROFILES / "demo.yaml").read_text()


def test_the_roots_instance_is_what_init_writes():
    from lepton_platform.pipeline.workspace import DAGSTER_YAML

    assert (ROOT / "dagster_home" / "dagster.yaml").read_text() == DAGSTER_YAML.read_text()
