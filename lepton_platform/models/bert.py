"""Load an encoder of the BERT family, trained elsewhere, into the Lepton Transformer.

Only ``config.json`` and ``model.safetensors`` are read. The same weights, other names: queries, keys and values become
one matrix, and the embedding of the only segment is added to the positions, which it always accompanies.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lepton_platform.models.bert_graph import fits
from lepton_platform.models.transformer import Transformer, TransformerSizes
from lepton_platform.stage import StageFailed

_LAYER = {  # ours → BERT's, below encoder.layer.<n>
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "feed_norm": "output.LayerNorm",
}


def bert_sizes(folder: Path, dropout: float, attention_dropout: float) -> TransformerSizes:
    """The sizes that ``config.json`` tells; ``StageFailed`` if the network is not one that fits."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not fits(folder):
        raise StageFailed(
            f"The encoder in {folder} is of type '{config.get('model_type')}' with activation "
            f"'{config.get('hidden_act')}'. Encoders of the type 'bert' with 'gelu' and absolute positions can be "
            "trained: BERT, MiniLM, BGE, E5, GTE and their like."
        )
    return TransformerSizes(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        position_kind="learned",
        norm="post",
        norm_eps=config["layer_norm_eps"],
        dropout=dropout,
        attention_dropout=attention_dropout,
    )


def load_bert(encoder: Transformer, folder: Path) -> None:
    """Fill ``encoder``, built with ``bert_sizes(folder)``, with the folder's weights; a missing one is an error."""
    stored = {name.removeprefix("bert."): w for name, w in load_file(folder / "model.safetensors").items()}
    try:
        weights = _renamed(stored, encoder.depth)
    except KeyError as missing:
        raise StageFailed(
            f"{folder / 'model.safetensors'} has no weight {missing}: it is not a BERT encoder."
        ) from None
    encoder.load_state_dict({name: w.to(torch.float32) for name, w in weights.items()}, strict=True)


def _renamed(stored: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    segment_D = stored["embeddings.token_type_embeddings.weight"][0]
    weights = {
        "embeddings.tokens.weight": stored["embeddings.word_embeddings.weight"],
        "embeddings.positions": stored["embeddings.position_embeddings.weight"] + segment_D,
        "embeddings.norm.weight": stored["embeddings.LayerNorm.weight"],
        "embeddings.norm.bias": stored["embeddings.LayerNorm.bias"],
    }
    for n in range(layers):
        theirs = f"encoder.layer.{n}"
        for kind in ("weight", "bias"):
            parts = [stored[f"{theirs}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            weights[f"layers.{n}.attention.qkv.{kind}"] = torch.cat(parts)
            for ours, name in _LAYER.items():
                weights[f"layers.{n}.{ours}.{kind}"] = stored[f"{theirs}.{name}.{kind}"]
    return weights
