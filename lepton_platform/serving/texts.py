"""Tasks whose input is text: the request's reading, its limits, the tokenizer, padding.

A task's ``api`` module takes from here what it needs; photos and recordings will have modules beside this one.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lepton_platform.serving.jsonbody import kind, parse_object, unpaired
from lepton_platform.serving.protocols import Encoded, Json
from lepton_platform.serving.rejected import malformed, too_large


def decode_texts(body: bytes, field: str, max_texts: int, max_characters: int) -> list[str]:
    """``{"<field>": ["…"]}`` → the texts."""
    texts = parse_object(body, (field,))[field]
    if not isinstance(texts, list):
        raise malformed(f'"{field}" must be an array of strings, not {kind(texts)}.', field)
    if not texts:
        raise malformed(f'"{field}" is empty; send at least one text.', field)
    if len(texts) > max_texts:
        raise too_large(f'"{field}" has {len(texts)} texts; the most is {max_texts}. Send them in parts.', field)
    for index, text in enumerate(texts):
        _check(text, f"{field}[{index}]", max_characters)
    return texts


def _check(text: Any, where: str, max_characters: int) -> None:
    if not isinstance(text, str):
        raise malformed(f"{where} must be a string, not {kind(text)}.", where)
    if len(text) > max_characters:
        raise too_large(f"{where} has {len(text):,} characters; the most is {max_characters:,}.", where)
    if not text.isascii() and (at := unpaired(text)) is not None:
        raise malformed(f"{where} has half of a surrogate pair at character {at}.", where)


def texts_schema(field: str, max_texts: int, max_characters: int) -> Json:
    """JSON Schema of such a request."""
    text = {"type": "string", "minLength": 1, "maxLength": max_characters}
    return {
        "type": "object",
        "properties": {field: {"type": "array", "items": text, "minItems": 1, "maxItems": max_texts}},
        "required": [field],
        "additionalProperties": False,
    }


class TextEncoder:
    """Normalised, tokenized, truncated as in training; batches padded to their longest."""

    def __init__(self, model: Path, normalise: Callable[[str], str], field: str) -> None:
        from tokenizers import Tokenizer

        config = json.loads((model / "config.json").read_text("utf-8"))
        self.normalise, self.field = normalise, field
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(int(config["max_tokens"]))
        self.pad_id: int = int(config.get("pad_id") or self.tokenizer.token_to_id("[PAD]") or 0)

    def prepare(self, inputs: Sequence[str]) -> list[list[Encoded]]:
        texts = [self.normalise(text) for text in inputs]
        for index, text in enumerate(texts):
            if not text:
                where = f"{self.field}[{index}]"
                raise malformed(f"{where} says nothing: it is empty once white space and markup are gone.", where)
        found = self.tokenizer.encode_batch(texts) if len(texts) > 1 else [self.tokenizer.encode(texts[0])]
        return [[Encoded(e.ids, len(e.ids))] for e in found]

    def collate(self, batch: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """→ input_ids, attention_mask: int64 [B, T]."""
        longest = max(item.size for item in batch)
        ids = np.full((len(batch), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, item in enumerate(batch):
            ids[row, : item.size] = item.payload
            mask[row, : item.size] = 1
        return {"input_ids": ids, "attention_mask": mask}
