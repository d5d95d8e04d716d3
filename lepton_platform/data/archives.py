"""Files inside archives, read by their names: nothing is unpacked, so no path in an archive is ever followed.

Wheels (zip), npm's and other tars, Debian's packages: an ``ar`` archive that holds a tar (deb(5)).
"""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lepton_platform.stage import StageFailed

_AR = b"!<arch>\n"
_AR_HEADER_BYTES = 60  # name 16, time 12, owner 6, group 6, mode 8, size 10, end 2 (ar(5))


@contextmanager
def open_member(archive: Path, member: str, what: str) -> Iterator[IO[bytes]]:
    """A stream over one member of a zip, tar or .deb; ``StageFailed`` says that ``what``, the archive, lacks it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            if member in zipped.namelist():
                with zipped.open(member) as stream:
                    yield stream
                return
    else:
        with _tar(archive) as tarred:
            for name, stream in _files(tarred):
                if name == member:
                    yield stream
                    return
    raise StageFailed(f"{what} has no member {member}. The package's layout changed: correct the name.")


def members(archive: Path, prefix: str = "", suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, content) of the archive's files whose name begins and ends so, in the archive's order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for name in zipped.namelist():
                if name.startswith(prefix) and name.endswith(suffix) and not name.endswith("/"):
                    yield name, zipped.read(name)
        return
    with _tar(archive) as tarred:
        for name, stream in _files(tarred):
            if name.startswith(prefix) and name.endswith(suffix):
                yield name, stream.read()


def _files(tarred: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files of a tar, in one pass: to go back in a compressed one is to begin anew."""
    for info in tarred:
        stream = tarred.extractfile(info) if info.isfile() else None
        if stream is not None:
            with stream:
                yield info.name.removeprefix("./"), stream  # Debian's names all begin so


@contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with archive.open("rb") as file:
            inside = _deb_data(file) if file.read(len(_AR)) == _AR else None
        with tarfile.open(fileobj=inside) if inside else tarfile.open(archive) as tarred:
            yield tarred
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise StageFailed(f"{archive.name} is not an archive that can be read ({error}).") from None


def _deb_data(file: IO[bytes]) -> IO[bytes]:
    """The tar with a Debian package's files, in memory; ``file`` stands behind the archive's first line."""
    while header := file.read(_AR_HEADER_BYTES):
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if len(header) < _AR_HEADER_BYTES or not size.isdigit():
            break
        length = int(size)
        if name.startswith("data.tar"):
            data = io.BytesIO(file.read(length))
            return _without_zstd(data) if name.endswith(".zst") else data
        file.seek(length + length % 2, io.SEEK_CUR)  # members begin at even places
    raise tarfile.ReadError("a Debian package without data.tar")


def _without_zstd(data: IO[bytes]) -> IO[bytes]:
    """Ubuntu's packages; Python's own tarfile reads them from 3.14 on."""
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(data, "zstd") as stream:
            return io.BytesIO(stream.read())
    except OSError as error:
        raise tarfile.ReadError(str(error)) from None
