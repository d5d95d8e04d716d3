"""A disk that takes no more: a paragraph that names the file, and nothing lost of what was there before."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_platform.database import engine
from lepton_platform.full_disk import explained
from lepton_platform.stage import StageFailed

LIMIT_BYTES = 16_384  # of any one file; a write-ahead log with a change or two is larger


def lepton(folder: Path, *words: str, limited: bool = False) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))

    command = [sys.executable, "-c", "from lepton_platform.cli import main; main()", *words]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # or it would leave modules that are cut short
    environment.pop("LEPTON_WORKSPACE", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, preexec_fn=limit if limited else None
    )


def test_a_command_says_which_file_and_the_next_one_goes_on(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("sentiment: {}\n")
    assert lepton(tmp_path, "keys", "create", "before").returncode == 0
    done = lepton(tmp_path, "keys", "create", "during", limited=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"lepton: {tmp_path}/.lepton/state.sqlite could not be written: ")
    assert "ulimit" in done.stderr and "run it again" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert lepton(tmp_path, "keys", "create", "after").returncode == 0
    listed = lepton(tmp_path, "keys", "list").stdout
    assert "before" in listed and "after" in listed


def test_a_database_that_is_full_is_told_from_one_that_cannot_be_read(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    with engine(url).connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.exec_driver_sql("PRAGMA max_page_count = 3")
        with pytest.raises(StageFailed, match=r"state\.sqlite could not be written: the disk is full\..*Make room"):
            for _ in range(10):
                connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(10000))")
        with pytest.raises(Exception, match="no such table") as other:
            connection.exec_driver_sql("SELECT * FROM other")
    assert not isinstance(other.value, StageFailed) and explained(other.value) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_whatever_was_raised_from_it_is_explained_by_it(number: int):
    with pytest.raises(RuntimeError) as failed:
        try:
            raise OSError(number, os.strerror(number), "/data/model.safetensors")
        except OSError as error:
            raise RuntimeError("no model") from error
    said = explained(failed.value)
    assert said is not None and said.startswith("/data/model.safetensors could not be written: ")
    assert explained(OSError(errno.EACCES, "denied", "/data/x")) is None
