"""A champion is compared with its own reference: the stage's, or one measured once where today's code is another."""

import json
from collections.abc import Callable

import pytest

from lepton_platform.monitoring.reference import References
from lepton_platform.pipeline import operate, references
from lepton_platform.pipeline.references import reference_of
from lepton_platform.settings import Settings, use_workspace
from tests.workspaces import Workspace

TASK = "digits"
pytestmark = pytest.mark.slow


@pytest.fixture
def settings(copy: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = copy()
    for name, value in made.environment().items():
        if name.startswith(("LEPTON_", "DVC_")):
            monkeypatch.setenv(name, value)
    return use_workspace(made.folder)


def same(one: References, other: References) -> bool:
    return all(
        a.thresholds == b.thresholds
        and all((a.signals.numbers[n] == b.signals.numbers[n]).all() for n in a.signals.numbers)
        for a, b in ((one.inputs, other.inputs), (one.answers, other.answers))
    )


def measured(settings: Settings) -> list[str]:
    """The references that were measured beside the graph."""
    return sorted(path.name for path in (settings.state_dir / "drift" / TASK).glob("reference-*"))


def test_the_manifest_names_the_reference_and_the_check_finds_it(settings: Settings):
    manifest = json.loads((settings.path("models", TASK, "bento") / "manifest.json").read_text())
    versions = operate.champion_versions(settings, TASK)
    assert versions["reference"] == manifest["versions"]["reference"]
    for path in settings.path("models", TASK, "reference").iterdir():  # what lies in the workspace plays no part
        path.unlink()
    known = reference_of(settings, TASK, versions)
    assert known.inputs.thresholds and len(known.inputs) == 600 and not measured(settings)


def test_an_older_bento_and_changed_code_have_it_measured_once(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    versions = operate.champion_versions(settings, TASK)
    known = reference_of(settings, TASK, versions)
    older = {name: version for name, version in versions.items() if name != "reference"}
    assert same(reference_of(settings, TASK, older), known)
    [first] = measured(settings)
    monkeypatch.setattr(references, "code_hash", lambda *_: "other code")
    assert same(reference_of(settings, TASK, versions), known)
    [second] = measured(settings)
    assert first != second, "the one before made room"
    monkeypatch.setattr("lepton_platform.monitoring.reference.measure", lambda *_: pytest.fail("it was measured twice"))
    assert same(reference_of(settings, TASK, versions), known)
