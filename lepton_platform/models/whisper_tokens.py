"""The tokens of Whisper that are no words: where a transcript begins and ends, what is never said."""

import json
from pathlib import Path
from typing import Any

from lepton_platform.stage import StageFailed

_ENGLISH_ONLY = 51_864  # the size of its vocabulary; networks of several languages have more


def special_tokens(folder: Path, vocabulary: int, language: str) -> dict[str, Any]:
    """``start`` (the tokens that a transcript begins with), ``end``, ``suppress`` and, at its first place, ``suppress_first``."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def number(name: str) -> int:
        found = tokenizer.token_to_id(f"<|{name}|>")
        if found is None:
            raise StageFailed(f"The tokenizer in {folder} has no token <|{name}|>: it is not one of Whisper's.")
        return found

    said = [] if vocabulary <= _ENGLISH_ONLY else [number(language), number("transcribe")]
    never, never_first = _suppressed(folder)
    return {
        "start": [number("startoftranscript"), *said, number("notimestamps")],
        "end": number("endoftext"),
        "suppress": never,
        "suppress_first": never_first,
    }


def _suppressed(folder: Path) -> tuple[list[int], list[int]]:
    """As the hub's generation_config.json tells them, or CTranslate2's config.json."""
    for file, never, never_first in (
        ("generation_config.json", "suppress_tokens", "begin_suppress_tokens"),
        ("config.json", "suppress_ids", "suppress_ids_begin"),
    ):
        path = folder / file
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if never in told:
            return sorted(told[never] or []), sorted(told.get(never_first) or [])
    return [], []
