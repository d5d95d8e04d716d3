"""The files of a ``multipart/form-data`` body that has been read already.

python-multipart finds the parts' bounds; how many parts, headers and bytes there may be is decided here. Names of
files and their content types say nothing: what a file is, its content says.
"""

from lepton_platform.serving.jsonbody import BODY, shown
from lepton_platform.serving.rejected import malformed, too_large

MOST_HEADERS = 8  # of a part
MOST_HEADER_BYTES = 4096  # of one of them
MOST_BOUNDARY_BYTES = 70  # RFC 2046, §5.1.1


def parse_files(body: bytes, content_type: str, field: str, most_files: int, most_bytes: int) -> list[bytes]:
    """The contents of the parts named ``field``, in order; ``Rejected`` where there is anything else, or too much."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    boundary = _boundary(content_type)
    if body.count(b"\r\n--" + boundary) > most_files + 1:  # also: what looks like one costs the parser's slow path
        raise too_large(f"There are more than {most_files} files; send them in parts.", field)
    found = _Parts(field, most_files, most_bytes)
    parser = MultipartParser(
        boundary,
        found.callbacks(),  # pyright: ignore[reportArgumentType]
        max_header_count=MOST_HEADERS,
        max_header_size=MOST_HEADER_BYTES,
    )
    try:
        parser.write(body)
    except FormParserError as error:
        raise malformed(f"The body is not multipart/form-data: {str(error)[:120]}", BODY) from None
    if not found.ended:
        raise malformed("The body ends before its closing boundary.", BODY)
    if not found.files:
        raise malformed(f'There is no file; send at least one part named "{field}".', field)
    return found.files


def _boundary(content_type: str) -> bytes:
    from python_multipart.multipart import parse_options_header

    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    except UnicodeEncodeError:
        boundary = b""
    if not 0 < len(boundary) <= MOST_BOUNDARY_BYTES:
        problem = "must have a boundary" if not boundary else f"has a boundary of more than {MOST_BOUNDARY_BYTES} bytes"
        raise malformed(f"The content type multipart/form-data {problem}.", "content-type")
    return boundary


class _Parts:
    """Takes what the parser finds, and refuses what is too much as soon as it shows."""

    def __init__(self, field: str, most_files: int, most_bytes: int) -> None:
        self.field, self.most_files, self.most_bytes = field, most_files, most_bytes
        self.files: list[bytes] = []
        self.ended = False
        self._name = self._value = b""
        self._named = False
        self._content: list[memoryview] = []
        self._size = 0

    def callbacks(self) -> dict[str, object]:
        named = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
        )
        return {f"on_{name}": getattr(self, name) for name in (*named, "end")}

    @property
    def _where(self) -> str:
        return f"{self.field}[{len(self.files)}]"

    def part_begin(self) -> None:
        if len(self.files) >= self.most_files:
            raise too_large(f"There are more than {self.most_files} files; send them in parts.", self.field)
        self._named, self._content, self._size = False, [], 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        name, value = self._name.lower(), self._value
        self._name = self._value = b""
        if name == b"content-transfer-encoding" and value.strip().lower() not in {b"binary", b"8bit", b"7bit"}:
            raise malformed(f"{self._where}: files are sent as they are, not as {shown(value, 30)}.", self._where)
        if name == b"content-disposition":
            self._check_name(value)

    def _check_name(self, value: bytes) -> None:
        from python_multipart.multipart import parse_options_header

        kind, options = parse_options_header(value.decode("latin-1"))
        name = options.get(b"name")
        if kind != b"form-data" or name != self.field.encode():
            given = "none" if name is None else shown(name.decode("utf-8", "replace"))
            raise malformed(
                f'Part {len(self.files)} has the name {given}; files are named "{self.field}".', self._where
            )
        self._named = True

    def headers_finished(self) -> None:
        if not self._named:
            raise malformed(f"Part {len(self.files)} has no Content-Disposition with a name.", self._where)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self.most_bytes:
            raise too_large(f"{self._where} is larger than {self.most_bytes:,} bytes.", self._where)
        self._content.append(memoryview(data)[start:end])

    def part_end(self) -> None:
        self.files.append(b"".join(self._content))
        self._content = []

    def end(self) -> None:
        self.ended = True
