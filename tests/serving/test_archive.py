"""A Bento from a file: what passes as it was, and what a stranger's archive cannot do."""

import functools
import gzip
import io
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_platform.serving import archive
from lepton_platform.serving.archive import import_archive
from lepton_platform.serving.manifest import SIGNATURE, file_hash, listing, tree
from lepton_platform.serving.signing import Keys, verified
from lepton_platform.serving.store import checked, import_bento, stored
from lepton_platform.stage import StageFailed
from tests.serving.test_signing import TAMPERINGS, Place, new_place, nothing_loaded

BENTOML = Path(sys.executable).with_name("bentoml")
Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture(scope="module")
def sent(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The workspace that a Bento comes from."""
    return new_place(tmp_path_factory.mktemp("sender"), bento)


@pytest.fixture
def here(sent: Place, tmp_path: Path) -> Place:
    """A workspace with an empty store that trusts the sender."""
    keys = Keys(tmp_path / "keys")
    keys.own()
    shutil.copy(sent.keys.public, keys.public.with_name("sender.pub"))
    return Place(keys, tmp_path / "home", stored(tmp_path / "home", sent.tag))


def packed(bento: Path | None, path: Path, mode: Any = "w", *more: Member, top: str = ".") -> Path:
    """The folder as a tar file, with further members behind it."""
    with tarfile.open(path, mode) as tar:
        if bento is not None:
            tar.add(bento, top)
        for member, content in more:
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> Member:
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = len(content), kind, target
    return made, content


def refused(here: Place, path: Path, reason: str) -> None:
    """Nothing was loaded, and not a file is left."""
    with nothing_loaded(here.home, here.keys.folder), pytest.raises(StageFailed, match=f"(?s){reason}"):
        import_archive(here.home, path, here.keys)
    assert not [left for left in here.home.rglob("*") if left.is_symlink() or not left.is_dir()]
    assert not any((here.home / "tmp").iterdir())


def same(there: Path, sent: Place) -> bool:
    """Byte by byte, the signature too."""
    return {n: file_hash(there / n) for n in listing(there)} == {
        n: file_hash(sent.bento / n) for n in listing(sent.bento)
    }


def bentoml(home: Path, *arguments: str) -> None:
    quiet = {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run([BENTOML, *arguments], env={**os.environ, **quiet}, check=True, capture_output=True)


def test_what_bentoml_exports_is_imported_as_it_was(sent: Place, here: Place, tmp_path: Path) -> None:
    path = tmp_path / "sentiment.bento"
    bentoml(sent.home, "export", sent.tag, str(path))
    with nothing_loaded(here.home, unchanged=False):
        assert import_archive(here.home, path, here.keys) == here.bento
    assert same(here.bento, sent) and not any((here.home / "tmp").iterdir())
    assert checked(here.home, sent.tag, here.keys) == here.bento
    assert (here.bento.parent / "latest").read_text() == here.bento.name
    changed = here.bento.stat().st_mtime_ns
    assert import_archive(here.home, path, here.keys) == here.bento and here.bento.stat().st_mtime_ns == changed
    other = tmp_path / "other"
    bentoml(other, "import", str(path))  # BentoML's own import leaves the signature whole
    assert checked(other, sent.tag, here.keys) == stored(other, sent.tag)


@pytest.mark.parametrize(("mode", "top"), [("w", "."), ("w:gz", "."), ("w:xz", "."), ("w", "a"), ("w:gz", "a")])
def test_tar_bare_or_packed(sent: Place, here: Place, tmp_path: Path, mode: str, top: str) -> None:
    """With the Bento's files at its top, or one folder below."""
    assert same(import_archive(here.home, packed(sent.bento, tmp_path / "file", mode, top=top), here.keys), sent)


def test_it_must_be_signed_by_a_key_that_is_trusted_here(sent: Place, here: Place, bento: Path, tmp_path: Path) -> None:
    refused(here, packed(bento, tmp_path / "unsigned.tar"), r"unsigned\.tar is refused.*unsigned")
    (here.keys.public.with_name("sender.pub")).unlink()
    refused(here, packed(sent.bento, tmp_path / "strange.tar"), r"strange\.tar is refused.*not trusted here")


@pytest.mark.parametrize("name", [name for name in TAMPERINGS if "pipe" not in name and "link" not in name])
def test_a_change_is_refused_with_its_reason(sent: Place, here: Place, tmp_path: Path, name: str) -> None:
    tamper, reason = TAMPERINGS[name]
    copy = sent.copy(tmp_path / "copy")
    tamper(copy.bento)
    refused(here, packed(copy.bento, tmp_path / "changed.tar"), f"nothing of it was loaded: .*{reason}")


HOSTILE: dict[str, tuple[Member, str]] = {
    "above": (member("../../bentos/evil/x/manifest.json", b"{}"), "would lie outside"),
    "above, further on": (member("src/../../evil.json", b"{}"), "would lie outside"),
    "absolute": (member("/tmp/lepton-evil.json", b"{}"), "would lie outside"),
    "a symbolic link": (member("src/x.json", kind=tarfile.SYMTYPE, target="/etc/passwd"), "is a link"),
    "a link inside": (member("src/x.json", kind=tarfile.SYMTYPE, target="model/config.json"), "is a link"),
    "a hard link": (member("src/x.json", kind=tarfile.LNKTYPE, target="manifest.json"), "is a link"),
    "a device": (member("src/zero.json", kind=tarfile.CHRTYPE), "a device"),
    "a pipe": (member("src/pipe.json", kind=tarfile.FIFOTYPE), "a device"),
    "a file twice": (member(SIGNATURE, b"{}"), r"signature\.json' is in it twice"),
    "a file below a file": (member("manifest.json/x.json", b"{}"), "cannot be imported"),
    "a file that is a folder": (member("src", b"{}"), "is in it twice"),
    "a name that no file system takes": (member("src/" + "x" * 300 + ".json", b"{}"), "cannot be imported"),
    "a name with a line in it": (member("src/\x1b[2Jx\n.json", b"{}"), "has a name that no file of a Bento has"),
    "a pickle": (member("src/model/model.pkl", pickle.dumps(os.system)), "is of a format that a Bento does not hold"),
    "a file more": (member("src/sitecustomize.py", b"print()"), r"sitecustomize\.py was added"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member(sent: Place, here: Place, tmp_path: Path, name: str) -> None:
    more, reason = HOSTILE[name]
    refused(here, packed(sent.bento, tmp_path / "hostile.tar.gz", "w:gz", more), reason)
    assert not Path("/tmp/lepton-evil.json").exists() and not (here.home / "bentos").exists()


def bomb(path: Path, pack: Callable[..., Any]) -> Path:
    """A tar file whose one member is 200 MiB of zeros."""
    head, _ = member("src/model/model.onnx")
    head.size = 200 << 20
    with pack(path, "wb") as file:
        file.write(head.tobuf())
        for _ in range(200):
            file.write(bytes(1 << 20))
    return path


def test_a_bomb_is_stopped_early(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    copy = archive._Reader.copy

    def count(reader: archive._Reader, size: int, file: io.BufferedWriter) -> None:
        try:
            copy(reader, size, file)
        finally:
            written.append(file.tell())

    monkeypatch.setattr(archive._Reader, "copy", count)
    for pack in (gzip.open, functools.partial(lzma.open, preset=0)):
        refused(here, bomb(tmp_path / "bomb", pack), "more than 100 times its size")
    assert len(written) == 2 and max(written) < 24 << 20


def test_more_than_the_limit_is_not_unpacked(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 3 GiB that takes no room on the disk; and many small ones that are too much together."""
    head, _ = member("src/model/model.onnx")
    head.size = 3 << 30
    path = tmp_path / "large.tar"
    path.write_bytes(head.tobuf())
    os.truncate(path, 3 << 30)
    refused(here, path, "claims to be of 3,221,225,472 bytes, at most 2,147,483,648")
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    many = [member(f"src/{number}.json", bytes(100_000)) for number in range(12)]
    refused(here, packed(None, tmp_path / "many.tar", "w", *many), "more than 1,048,576 bytes")


def test_what_is_in_it_is_counted(sent: Place, here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 50)
    refused(here, packed(sent.bento, tmp_path / "many.tar"), "more than 50 members")


def test_a_sparse_file_is_refused(here: Place, tmp_path: Path) -> None:
    """GNU tar writes holes as numbers: a small archive, a large file."""
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["tar", "-S", "-cf", "sparse.tar", "model.onnx"], cwd=tmp_path, check=True)
    assert (tmp_path / "sparse.tar").stat().st_size < 1 << 20
    refused(here, tmp_path / "sparse.tar", "a sparse file")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_are_not_read_without_end(here: Place, tmp_path: Path, kind: bytes) -> None:
    """``tarfile`` reads a name or a PAX header at once, however long it says that it is."""
    head, _ = member("././@LongLink", kind=kind)
    head.size = 1 << 30
    path = tmp_path / "header.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(head.tobuf())
        file.write(bytes(1 << 20))
    refused(here, path, "headers are larger than 32 MiB")


def test_headers_that_follow_headers(here: Place, tmp_path: Path) -> None:
    one = member("pax", b"11 path=ab\n", kind=tarfile.XHDTYPE)
    refused(here, packed(None, tmp_path / "deep.tar", "w", *[one] * 3000), "headers follow one another without end")


def test_memory_is_bounded(here: Place, tmp_path: Path) -> None:
    """An xz file says how much memory it needs; this one says 4 GiB (byte 4 of its block's header, before a CRC-32)."""
    content = bytearray(lzma.compress(member("a.json")[0].tobuf()))
    content[16] = 40
    content[20:24] = zlib.crc32(content[12:20]).to_bytes(4, "little")
    path = tmp_path / "wide.tar.xz"
    path.write_bytes(content)
    refused(here, path, "(?i)memory usage limit")


NOT_TAR: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: path.touch(),
    "words": lambda path: path.write_text("no archive\n" * 200, "utf-8"),
    "a zip file": lambda path: zipfile.ZipFile(path, "w").writestr("manifest.json", "{}"),
    "gzip of words": lambda path: path.write_bytes(gzip.compress(b"no archive" * 200)),
    "a cut gzip": lambda path: path.write_bytes(gzip.compress(os.urandom(5000))[:300]),
    "xz of words": lambda path: path.write_bytes(lzma.compress(b"no archive" * 200)),
    "a broken xz": lambda path: path.write_bytes(lzma.compress(b"x" * 2000)[:12] + bytes(100)),
}


@pytest.mark.parametrize("name", NOT_TAR)
def test_what_is_no_archive(here: Place, tmp_path: Path, name: str) -> None:
    NOT_TAR[name](tmp_path / "file.bento")
    refused(here, tmp_path / "file.bento", r"file\.bento cannot be imported: it is no tar archive")


def test_what_is_no_file(here: Place, tmp_path: Path) -> None:
    refused(here, tmp_path / "nowhere.bento", "it is no file")
    refused(here, tmp_path, "it is no file")
    os.mkfifo(tmp_path / "pipe.bento")
    refused(here, tmp_path / "pipe.bento", "it is no file")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_half_an_archive(sent: Place, here: Place, tmp_path: Path, mode: str) -> None:
    whole = packed(sent.bento, tmp_path / "whole", mode).read_bytes()
    path = tmp_path / "half"
    for share in (0.1, 0.35, 0.6, 0.85):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(here, path, "half cannot be imported: it is cut off or damaged")


def test_half_a_tar_that_ends_between_two_files(sent: Place, here: Place, tmp_path: Path) -> None:
    path = packed(sent.bento, tmp_path / "whole.tar")
    with tarfile.open(path) as tar:
        ends = [found.offset for found in tar][5:40:10]
    content = path.read_bytes()
    for end in ends:
        path.write_bytes(content[:end])
        refused(here, path, "cut off or damaged")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_without_effect(
    sent: Place, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A byte of a header that nobody reads may be any; a Bento that is imported is the one that was sent."""
    folder = tmp_path_factory.mktemp("damage")
    keys = Keys(sent.keys.folder)
    path = packed(sent.bento, folder / "damaged.tar")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert same(import_archive(folder / "home", path, keys), sent)
    except StageFailed:
        assert not [left for left in (folder / "home").rglob("*") if not left.is_dir()]
    shutil.rmtree(folder)


def test_what_is_in_the_store_stays_when_another_is_refused(sent: Place, here: Place, tmp_path: Path) -> None:
    import_archive(here.home, packed(sent.bento, tmp_path / "good.tar"), here.keys)
    before = tree(here.home)
    copy = sent.copy(tmp_path / "copy")
    (copy.bento / SIGNATURE).unlink()
    with nothing_loaded(here.home), pytest.raises(StageFailed, match="unsigned"):
        import_archive(here.home, packed(copy.bento, tmp_path / "bad.tar"), here.keys)
    assert tree(here.home) == before and verified(here.bento, here.keys, sent.tag)


def test_an_archive_does_not_take_the_place_of_what_was_built(sent: Place, bento: Path, tmp_path: Path) -> None:
    """The same Bento, built here and sent by another: the one that is there stays, with its own signature."""
    keys = Keys(tmp_path / "keys")
    place = import_bento(tmp_path / "home", bento, keys)
    shutil.copy(sent.keys.public, keys.public.with_name("sender.pub"))
    signature = (place / SIGNATURE).read_bytes()
    assert import_archive(tmp_path / "home", packed(sent.bento, tmp_path / "same.tar"), keys) == place
    assert (place / SIGNATURE).read_bytes() == signature
