"""The command line: its words change on purpose or not at all, and its errors are for people."""

import subprocess
import sys

import pytest

from lepton_platform.cli.main import main

HEAVY = ("torch", "feast", "great_expectations", "evidently", "dagster", "dvc", "bentoml", "pandas")


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom lepton_platform.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["status"], 2, "is not a workspace"),
        (["run", "--nonsense"], 2, "No such option"),
        (["init", "there", "--profile", "huge"], 2, "The profiles are: deep_speech, demo, full, rehearsal, smoke"),
        (["init", "there", "--task", "weather"], 1, "The profile demo has no task 'weather'"),
    ],
)
def test_a_wrong_use_is_one_paragraph_and_exit_code_2(words, code, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("LEPTON_WORKSPACE", "DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capfd.readouterr().err
    assert ended.value.code == code
    assert says in said and "Traceback" not in said


def test_init_says_when_it_keeps_the_parameters_that_are_there(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("LEPTON_WORKSPACE", "DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    for words, said in (
        (
            ["there", "--profile", "smoke", "--task", "digits"],
            "there is a workspace (smoke) with: digits. Next: cd there",
        ),
        (
            ["there", "--profile", "full"],
            "there was one already, and its params.yaml is kept, with: digits. Next: cd there",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["init", *words])
        assert ended.value.code == 0 and said in capfd.readouterr().out
    monkeypatch.setenv("LEPTON_WORKSPACE", str(tmp_path))  # as an activated environment does
    with pytest.raises(SystemExit):
        main(["init", "there"])
    assert "Next: lepton run --workspace there" in capfd.readouterr().out


def test_a_workspace_that_the_environment_names_is_not_confused_with_the_one_around_here(tmp_path, monkeypatch, capfd):
    named, here = tmp_path / "named", tmp_path / "here"
    for folder in (named, here):
        folder.mkdir()
        (folder / "params.yaml").write_text("{}\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("LEPTON_WORKSPACE", str(named))
    with pytest.raises(SystemExit):
        main(["status", "nothing"])
    assert f"this acts on {named}" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main(["status", "nothing", "--workspace", str(here)])
    assert "this acts on" not in capfd.readouterr().err
    with pytest.raises(SystemExit):  # DVC calls it in the folder of the dvc.yaml that it means
        main(["stage", "raw", "nothing"])
    said = capfd.readouterr().err
    assert "this acts on" not in said and f"There is no task 'nothing' in {here}" in said
