"""The table of stages is sound, and dvc.yaml is what it renders."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

from lepton_platform.pipeline import code, dvcfile
from lepton_platform.pipeline.params import PROFILES, check_sections, profile_names
from lepton_platform.pipeline.stages import STAGES, behind, downstream, get_stage, upto
from lepton_platform.serving import shipping
from lepton_platform.serving.bento import PROGRAMS
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import PARTS, part_name, task_names

ROOT = Path(__file__).resolve().parents[2]


def test_inputs_come_before_the_stages_that_read_them():
    seen: set[str] = set()
    for stage in STAGES:
        assert set(stage.inputs) <= seen, stage.name
        assert set(stage.parts) <= set(PARTS), stage.name
        seen.add(stage.name)


def test_every_stage_function_is_there():
    for stage in STAGES:
        module, name = stage.function.split(":")
        assert callable(getattr(importlib.import_module(module), name)), stage.function


def test_upto_ends_with_the_named_stage_and_downstream_follows_it():
    assert [s.name for s in upto("raw")] == ["raw"]
    assert [s.name for s in upto(None)] == [s.name for s in STAGES]
    assert downstream("raw") == [s.name for s in STAGES if s.name != "raw"]


def test_what_follows_from_a_stale_stage_is_behind_it():
    states = {stage.name: "stale" if stage.name in {"clean", "model"} else "fresh" for stage in STAGES}
    found = behind(states)
    assert found["raw"] == found["clean"] == []
    assert found["dataset"] == ["clean"] and found["quality"] == ["clean", "model"]
    assert all(name in found[after] for name in ("clean", "model") for after in downstream(name))


def test_an_unknown_stage_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="raw"):
        get_stage("nonsense")


@pytest.mark.parametrize("profile", profile_names())
def test_a_profile_has_every_section(profile: str):
    sections = {stage.params for stage in STAGES} | {"drift"}
    for task, written in yaml.safe_load((PROFILES / f"{profile}.yaml").read_text("utf-8")).items():
        assert set(written) >= sections, task


def test_a_section_that_is_missing_is_named_with_what_to_write(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("sentiment: {source: {}}")
    check_sections(tmp_path, "sentiment", ["source"])
    with pytest.raises(StageFailed, match=re.escape("sentiment has no section reference. Add `reference: {}`")):
        check_sections(tmp_path, "sentiment", ["source", "reference"])


def test_dvc_yaml_is_what_the_table_renders():
    assert dvcfile.stale_files(ROOT) == [], "type `lepton versioning render`"


def test_code_of_a_stage_is_its_function_the_task_and_what_they_import():
    for task in task_names():
        files = {path.as_posix() for path in code.stage_files(get_stage("raw"), task)}
        assert "lepton_platform/data/raw.py" in files
        assert f"lepton_platform/tasks/{task}/source.py" in files
        assert "lepton_platform/data/packages.py" in files, "imported at the second remove"
        assert not any(name.startswith("lepton_platform/pipeline") for name in files)


def test_every_file_of_code_in_a_bento_is_a_dependency_of_the_stage_that_makes_it():
    for task in task_names():
        files = {ROOT / path for path in code.stage_files(get_stage("bento"), task)}
        shipped = shipping.closure([*PROGRAMS, *(part_name(task, part) for part in get_stage("bento").parts)])
        assert {shipping.module_file(module) for module in shipped} <= files


def test_parameters_that_are_cut_short_or_of_no_task_leave_dvc_yaml_as_it_is(tmp_path: Path):
    for written, said in (("", "params.yaml is empty"), ("nonsense: {source: {}}", "there is no such task")):
        (tmp_path / "params.yaml").write_text(written)
        with pytest.raises(StageFailed, match=said):
            dvcfile.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
