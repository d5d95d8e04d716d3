"""`lepton deploy`, `rollback` and `deployments`, as they are typed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_platform.serving.store import tag_of
from tests.gateway.conftest import new_settings
from tests.serving.conftest import make_bento

TASK = "sentiment"


class Typed:
    """A workspace with a Bento where the graph leaves it, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, new_settings(folder, (TASK,))

    def build(self, bento: Path) -> str:
        place = self.folder / "models" / TASK / "bento"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(bento, place)
        return tag_of(bento)

    def __call__(self, *words: str, code: int = 0) -> str:
        hidden = {"LEPTON_WORKSPACE", "BENTOML_HOME", "DAGSTER_HOME", "DVC_SITE_CACHE_DIR"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        lepton = str(Path(sys.executable).with_name("lepton"))
        done = subprocess.run([lepton, *words], cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def live(self) -> dict[str, str]:
        return {d["state"]: d["tag"] for d in json.loads(self("deployments", TASK, "--json"))[TASK]["live"]}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bento(tmp_path_factory.mktemp("other"), max_batch=3)


def test_from_the_first_to_the_way_back(tmp_path: Path, bentos: dict[str, Path], other: Path, frozen: Path) -> None:
    lepton = Typed(tmp_path)
    assert "nothing serves" in lepton("deployments")
    assert "has no Bento" in lepton("deploy", TASK, code=1)
    first = lepton.build(bentos[TASK])
    assert f"{first} is champion. Promoted: there was no champion." in lepton("deploy", TASK)
    assert "Nothing to do" in lepton("deploy", TASK)
    shutil.copytree(frozen, tmp_path / "data" / TASK / "dataset" / "test")
    second = lepton.build(other)
    assert f"{second} is canary. Canary: not worse" in lepton("deploy", TASK, "--canary", "5,25,100", "--every", "10m")
    assert lepton.live() == {"champion": first, "canary": second}
    assert "canary 5 %" in lepton("deployments")
    assert "is a canary no more" in lepton("rollback", TASK, "--why", "it is slow")
    told = json.loads(lepton("deployments", TASK, "--json"))[TASK]
    assert [change["action"] for change in told["audit"]] == ["rolled back", "canary 5 %", "promoted"]
    assert told["audit"][0]["why"] == "it is slow" and told["audit"][0]["who"]
    assert "is shadow" in lepton("deploy", TASK, second, "--shadow")
    assert lepton.live() == {"champion": first, "shadow": second}
    assert "is a shadow no more" in lepton("rollback", TASK, "--shadow")
    assert "has no shadow" in lepton("rollback", TASK, "--shadow", code=1)
    assert f"{second} is champion" in lepton("deploy", TASK, second.partition(":")[2], "--at-once")  # a person may
    assert f"{first} serves again" in lepton("rollback", TASK)
    assert lepton.live() == {"champion": first}


def test_an_archive_is_taken_from_who_is_trusted(tmp_path: Path, bentos: dict[str, Path]) -> None:
    theirs, ours = Typed(tmp_path / "theirs"), Typed(tmp_path / "ours")
    tag = theirs.build(bentos[TASK])
    theirs("deploy", TASK)
    archive = tmp_path / "a.tar"
    stored = theirs.settings.bentoml_home / "bentos" / tag.replace(":", "/")
    subprocess.run(["tar", "-cf", str(archive), "-C", str(stored), "."], check=True)
    assert "refused" in ours("deploy", TASK, str(archive), code=1)
    assert not (ours.settings.bentoml_home / "bentos").exists()
    trusted = ours.settings.state_dir / "keys" / "trusted"
    trusted.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(theirs.settings.state_dir / "keys/trusted/own.pub", trusted / "theirs.pub")
    assert f"{tag} is champion" in ours("deploy", TASK, str(archive))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--canary", "5,x"], "--canary takes shares"),
        (["--canary", "5", "--every", "soon"], "--every takes a time"),
        (["--canary", "5", "--every", "-3m"], "above zero"),
        (["--shadow", "--canary", "5"], "--shadow goes without"),
        (["--at-once", "--every", "5m"], "--at-once goes without"),
    ],
)
def test_wrong_words_are_told(tmp_path: Path, words: list[str], said: str) -> None:
    assert said in Typed(tmp_path)("deploy", TASK, *words, code=2)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    lepton = Typed(tmp_path)
    assert "There is no Bento sentiment:nothing" in lepton("deploy", TASK, "nothing", code=1)
    assert "There is no task 'weather'" in lepton("rollback", "weather", code=2)
    assert "no earlier champion" in lepton("rollback", TASK, code=1)
