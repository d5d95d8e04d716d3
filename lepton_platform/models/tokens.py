"""Texts as token ids: the tokenizer kept with a model, and rows made ready for batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PAD = "[PAD]"


def load_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """The tokenizer of ``path``, cutting at ``max_tokens`` (special ones counted) and padding nothing."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise StageFailed(f"{path} is not a tokenizer.json: {error}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-pair encoding (Sennrich et al., 2016, arXiv:1508.07909) learnt from ``texts``: at most ``vocabulary`` tokens.

    Case is folded and accents removed, as BERT's uncased tokenizers do.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(SPECIAL)
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


@dataclass(frozen=True)
class TokenRows:
    """N rows of token ids, end to end: row n is ``ids[starts[n]:starts[n + 1]]``."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    pad: int

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N,) tokens a row."""
        return np.diff(self.starts)

    def padded(self, rows: Sequence[int] | NDArray) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` (B, T) int64; T is the longest of the rows."""
        import torch

        chosen = np.asarray(rows, dtype=np.int64)
        lengths = self.sizes[chosen]
        position = np.arange(max(int(lengths.max(initial=1)), 1))
        mask = position < lengths[:, None]
        where = np.minimum(self.starts[chosen][:, None] + position, len(self.ids) - 1)
        ids = np.where(mask, self.ids[where], self.pad).astype(np.int64)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> TokenRows:
    """One row a text, in order. Any string is accepted; lone surrogates count as unknown characters."""
    safe = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    encoded = [found.ids for found in tokenizer.encode_batch_fast(safe)]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    ids = np.fromiter((i for row in encoded for i in row), dtype=np.int32, count=int(starts[-1]))
    pad = tokenizer.token_to_id(PAD)
    return TokenRows(ids if len(ids) else np.zeros(1, np.int32), starts, 0 if pad is None else pad)
