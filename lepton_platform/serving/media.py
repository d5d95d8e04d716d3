"""Requests that carry files: as multipart/form-data, or base64 in JSON. Pictures and recordings are read alike."""

import base64
import binascii
from typing import Any

from lepton_platform.serving.jsonbody import kind, parse_object
from lepton_platform.serving.multipart import parse_files
from lepton_platform.serving.protocols import Json
from lepton_platform.serving.rejected import malformed, too_large
from lepton_platform.stage import StageFailed

JSON, MULTIPART = "application/json", "multipart/form-data"
CONTENT_TYPES = (JSON, MULTIPART)


def decode_files(body: bytes, content_type: str, field: str, most_files: int, most_bytes: int) -> list[bytes]:
    """The files of a request, in order; ``Rejected`` names the one that is empty or larger than ``most_bytes``."""
    if content_type.lstrip().lower().startswith(MULTIPART):
        files = parse_files(body, content_type, field, most_files, most_bytes)
    else:
        files = _from_json(body, field, most_files, most_bytes)
    for index, file in enumerate(files):
        if not file:
            raise malformed(f"{field}[{index}] is empty.", f"{field}[{index}]")
    return files


def _from_json(body: bytes, field: str, most_files: int, most_bytes: int) -> list[bytes]:
    """``{"<field>": ["<base64>", …]}``."""
    values = parse_object(body, (field,))[field]
    if not isinstance(values, list):
        raise malformed(f'"{field}" must be an array of base64 strings, not {kind(values)}.', field)
    if not values:
        raise malformed(f'"{field}" is empty; send at least one file.', field)
    if len(values) > most_files:
        raise too_large(f'"{field}" has {len(values)} files; the most is {most_files}. Send them in parts.', field)
    return [_from_base64(value, f"{field}[{index}]", most_bytes) for index, value in enumerate(values)]


def _from_base64(value: Any, where: str, most_bytes: int) -> bytes:
    if not isinstance(value, str):
        raise malformed(f"{where} must be a base64 string, not {kind(value)}.", where)
    if len(value) * 3 // 4 - 2 > most_bytes:
        raise too_large(f"{where} is larger than {most_bytes:,} bytes.", where)
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise malformed(
            f"{where} is not base64 (RFC 4648, §4, with its padding and without line breaks).", where
        ) from None
    if len(content) > most_bytes:
        raise too_large(f"{where} is larger than {most_bytes:,} bytes.", where)
    return content


def files_schema(content_type: str, field: str, most_files: int, most_bytes: int, about: str) -> Json:
    """JSON Schema of such a request. ``about``: what a file is, for people."""
    if content_type == MULTIPART:
        file = {"type": "string", "format": "binary", "minLength": 1, "description": about}
    else:
        longest = -(-most_bytes // 3) * 4
        file = {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": 4,
            "maxLength": longest,
            "description": about,
        }
    return {
        "type": "object",
        "properties": {field: {"type": "array", "items": file, "minItems": 1, "maxItems": most_files}},
        "required": [field],
        "additionalProperties": False,
    }


def as_multipart(field: str, content: bytes) -> Json:
    """One file as a request: keywords of ``httpx.post``."""
    return {"files": [(field, ("file", content, "application/octet-stream"))]}


def file_of(given: str | bytes) -> bytes:
    """What `lepton predict` was given, where the input is a file's content; ``StageFailed`` where there is no such file."""
    if isinstance(given, str):
        raise StageFailed(f"There is no file {given[:200]}: this task takes files.")
    return given
