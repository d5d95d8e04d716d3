"""A Bento from a file: `.bento` as `bentoml export` writes it (tar in xz), or tar, bare or in gzip or xz.

The file is a stranger's until its signature is verified, so it is unpacked by what it may cost and not by what it says:
bounded in bytes, members, headers, memory and ratio, read once from front to back, into a scratch folder that is gone
afterwards. Links, devices, absolute paths and ``..`` are refused (PEP 706, and Zip Slip before it).
"""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.signing import Keys
from lepton_platform.serving.store import adopt, scratch
from lepton_platform.stage import StageFailed

MOST_BYTES = 2 << 30  # unpacked, headers and padding included
MOST_MEMBERS = 10_000
MOST_RATIO = 100  # unpacked to packed bytes; a trained network's is below 2
FREE_BYTES = 16 << 20  # before the ratio counts: a small Bento is mostly padding
MOST_HEADER_BYTES = 32 << 20  # of all that is not a file's content
MOST_MEMORY_BYTES = 128 << 20  # for xz; `xz -9` needs 65 MiB to unpack
BLOCK = tarfile.BLOCKSIZE
CHUNK_BYTES = 1 << 20
_END = bytes(BLOCK)  # a tar file ends with such a block
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


def import_archive(home: Path, path: Path, keys: Keys) -> Path:
    """Put the Bento that a file holds into the store below ``home`` (BENTOML_HOME); returns its place there.

    ``StageFailed`` where the file is no such archive, exceeds a limit, or holds no Bento that a trusted key has signed;
    then nothing of it is left behind.
    """
    with scratch(home) as folder:
        target = folder / "unpacked"
        try:
            unpack(path, target)
        except (ValueError, OSError, *_DAMAGED) as error:
            said = f"it is cut off or damaged ({error})" if isinstance(error, _DAMAGED) else str(error)
            raise StageFailed(f"{path} cannot be imported: {said}.") from None
        return adopt(home, _bento_in(target), keys, path)


def _bento_in(folder: Path) -> Path:
    """The folder itself, or the only one in it: `tar -C bentos/sentiment -cf … VERSION` has one level more."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and not (folder / MANIFEST).exists() else folder


def unpack(path: Path, target: Path) -> None:
    """The archive's plain files below ``target``, a new folder; none has a mode, an owner or a time of the archive's.

    ``ValueError``, ``OSError`` or what the unpackers raise says what is wrong; what was unpacked until then is left.
    """
    target.mkdir()
    if not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as packed:
        reader = _Reader(packed)
        for count, member in enumerate(_members(reader), 1):
            if count > MOST_MEMBERS:
                raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
            _check(member, target)
            _write(member, reader, target / member.name)
        if reader.last != _END:
            raise ValueError(f"it is cut off or damaged, at byte {reader.tell():,} of what it unpacks to")


def _members(reader: "_Reader") -> Iterator[tarfile.TarInfo]:
    """Each as it comes: what a member holds is read before the next is asked for."""
    try:
        yield from _opened(reader)
    except RecursionError:  # a PAX header may be that of a PAX header
        raise ValueError("its headers follow one another without end") from None


def _opened(reader: "_Reader") -> tarfile.TarFile:
    try:
        return tarfile.TarFile(fileobj=reader)  # pyright: ignore[reportArgumentType] - it reads, tells and seeks
    except (gzip.BadGzipFile, *_DAMAGED) as error:
        raise ValueError(f"it is no tar archive, bare or in gzip or xz ({error})") from None


def _check(member: tarfile.TarInfo, target: Path) -> None:
    name = member.name
    if name.startswith("/") or ".." in Path(name).parts:
        raise ValueError(f"{name!r} would lie outside the folder that it is unpacked to")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise ValueError(f"{name!r} is a link, a device or a sparse file; a Bento holds plain files")
    if member.size < 0 or member.size > MOST_BYTES:
        raise ValueError(f"{name!r} claims to be of {member.size:,} bytes, at most {MOST_BYTES:,} are unpacked")
    tarfile.data_filter(member, str(target))


def _write(member: tarfile.TarInfo, reader: "_Reader", path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            reader.copy(member.size, file)
    except FileExistsError:
        raise ValueError(f"{member.name!r} is in it twice") from None


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Xz:
    """Like ``lzma.LZMAFile``, with a bound on the memory that the file may ask for."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY_BYTES)

    def read(self, size: int, /) -> bytes:
        while not self._unpacker.eof:
            fed = self._packed.read(CHUNK_BYTES) if self._unpacker.needs_input else b""
            if self._unpacker.needs_input and not fed:
                raise EOFError("it is cut off")
            if found := self._unpacker.decompress(fed, size):
                return found
        return b""


class _Reader:
    """What the archive unpacks to, from front to back, counted. ``last``: the latest block of a header."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        magic = packed.read(6)
        packed.seek(0)
        self._source: _Source = packed
        if magic[:2] == b"\x1f\x8b":
            self._source = gzip.GzipFile(fileobj=packed)
        elif magic == b"\xfd7zXZ\0":
            self._source = _Xz(packed)
        self._at = self._headers = 0
        self.last = b""

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        """Forward only; what lies between is unpacked and counted."""
        if position < self._at:
            raise ValueError("a member points back into what has been read")
        while self._at < position and self._take(min(position - self._at, CHUNK_BYTES)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        """A header, for ``tarfile``; it is read at once, however long it says that it is."""
        self._headers += size
        if size < 0 or self._headers > MOST_HEADER_BYTES:
            raise ValueError(f"its headers are larger than {MOST_HEADER_BYTES >> 20} MiB")
        parts = []
        while size and (part := self._take(size)):
            parts.append(part)
            size -= len(part)
        found = b"".join(parts)
        if len(found) != 1:  # with one byte it looks whether there is more
            self.last = found
        return found

    def copy(self, size: int, file: IO[bytes]) -> None:
        while size:
            part = self._take(min(size, CHUNK_BYTES))
            if not part:
                raise ValueError(f"it is cut off or damaged, at byte {self._at:,} of what it unpacks to")
            file.write(part)
            size -= len(part)

    def _take(self, size: int) -> bytes:
        part = self._source.read(size)
        self._at += len(part)
        if self._at > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
        if self._at > max(FREE_BYTES, MOST_RATIO * self._packed.tell()):
            raise ValueError(f"it unpacks to more than {MOST_RATIO} times its size")
        return part
