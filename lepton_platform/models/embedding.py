"""Embed texts with a pretrained encoder: mean-pooled, of length one. The features' and the monitoring's embedding.

Pooling follows Reimers & Gurevych, "Sentence-BERT" (2019): the mean over a text's tokens, padding left out.
Texts of like length share a batch, so little is spent on padding. On a CPU every core takes a batch of its own: no
waiting for the slowest thread in every matrix product, and bytes that do not depend on how many cores there are.
The same texts in the same order, with the same encoder on the same build of torch and kind of CPU, give the same bytes.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.side_by_side import cores, one_thread_a_batch
from lepton_platform.stage import Progress, StageFailed

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from torch.nn import Module

Precision = Literal["float32", "bfloat16"]
TEXTS_PER_TOKENISING = 4_096  # bounds what the tokenizer's objects take


def load_tokenizer(encoder_dir: Path, max_tokens: int) -> "Tokenizer":
    """The encoder's own tokenizer, cutting after ``max_tokens`` (special ones included), without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder_dir / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def token_ids(texts: Sequence[str], tokenizer: "Tokenizer") -> list[NDArray[np.int32]]:
    """The token ids of each text, one array a text; an empty text still has its special tokens."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a later fork would warn on stderr otherwise
    ids: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), TEXTS_PER_TOKENISING):
        encoded = tokenizer.encode_batch_fast([str(text) for text in texts[start : start + TEXTS_PER_TOKENISING]])
        ids.extend(np.asarray(one.ids, dtype=np.int32) for one in encoded)
    return ids


class TextEncoder:
    """An encoder in memory: load it once, call it often.

    ``encoder_dir`` holds config.json, model.safetensors and tokenizer.json. ``max_tokens`` may not be more than the
    encoder's positions. ``bfloat16`` is for machines that multiply it in hardware: faster there, and another vector
    by about one part in a thousand.
    """

    def __init__(
        self, encoder_dir: Path, *, max_tokens: int = 128, device: str = "cpu", precision: Precision = "float32"
    ) -> None:
        config: dict[str, Any] = json.loads((encoder_dir / "config.json").read_text(encoding="utf-8"))
        positions = config.get("max_position_embeddings", max_tokens)
        if not 1 <= max_tokens <= positions:
            raise StageFailed(f"max_tokens is {max_tokens}; the encoder in {encoder_dir} takes 1 to {positions}.")
        self.model = _network(encoder_dir).to(device=device, dtype=getattr(_torch(), precision)).eval()
        self.tokenizer = load_tokenizer(encoder_dir, max_tokens)
        self.device = device
        self.width: int = config["hidden_size"]

    def __call__(
        self, texts: Sequence[str], *, batch: int = 64, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """The embeddings (N, width) of ``texts``, in their order, each of Euclidean length one."""
        ids = token_ids(texts, self.tokenizer)
        vectors_ND = np.empty((len(ids), self.width), dtype=np.float32)
        done = 0
        with one_thread_a_batch(), ThreadPoolExecutor(cores() if self.device == "cpu" else 1) as pool:
            for rows, vectors_BD in pool.map(lambda rows: (rows, self._pooled(ids, rows)), batches(ids, batch)):
                vectors_ND[rows] = vectors_BD
                done += len(rows)
                if progress is not None:
                    progress(done, len(ids))
        return vectors_ND

    def _pooled(self, ids: Sequence[NDArray[np.int32]], rows: list[int]) -> NDArray[np.float32]:
        """The embeddings (B, width) of these rows."""
        torch = _torch()
        tokens_BT, mask_BT = padded([ids[row] for row in rows])
        with torch.inference_mode():
            tokens = torch.from_numpy(tokens_BT).to(self.device)
            mask = torch.from_numpy(mask_BT).to(self.device)
            answer = self.model(tokens, mask)
            hidden_BTD: Tensor = getattr(answer, "last_hidden_state", answer).float()
            weight_BT1 = mask.unsqueeze(-1).float()
            mean_BD = (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1)
            return torch.nn.functional.normalize(mean_BD, dim=1).cpu().numpy()


def _network(folder: Path) -> "Module":
    """The encoder: token ids and mask (B, T) → states (B, T, width), or an answer that holds them.

    The family of BERT is the Lepton Transformer, the very network that training starts from; others are transformers'
    own, whose import costs more than a thousand short texts.
    """
    from lepton_platform.models.bert_graph import fits
    from lepton_platform.models.transformer import Transformer

    if not fits(folder):
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # of loading weights
        # safetensors only, and no code that comes with the weights
        return AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    from lepton_platform.models import bert

    with _torch().random.fork_rng(devices=[]):  # its first values are thrown away: nobody else's draws move
        network = Transformer(bert.bert_sizes(folder, 0.0, 0.0))
    bert.load_bert(network, folder)
    return network


def embed(
    texts: Sequence[str],
    encoder_dir: Path,
    *,
    max_tokens: int = 128,
    batch: int = 64,
    device: str = "cpu",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The embeddings (N, width) of ``texts``, float32, each of Euclidean length one; loads the encoder for it."""
    encoder = TextEncoder(encoder_dir, max_tokens=max_tokens, device=device, precision=precision)
    return encoder(texts, batch=batch, progress=progress)


def batches(ids: Sequence[NDArray[np.int32]], batch: int) -> Iterator[list[int]]:
    """The rows in batches of like length; ties in the order of the texts."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def padded(ids: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and mask (B, T), T the longest: 1 where there is a token, 0 where there is padding."""
    tokens_BT = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
    mask_BT = np.zeros_like(tokens_BT)
    for place, one in enumerate(ids):
        tokens_BT[place, : len(one)] = one
        mask_BT[place, : len(one)] = 1
    return tokens_BT, mask_BT


def _torch() -> Any:
    import torch

    return torch
