"""Whisper's weights, trained elsewhere: as safetensors with the names of its usual hub, or as CTranslate2's plain arrays.

CTranslate2's ``model.bin`` (its converter's ``ModelSpec.save``, version 6) is a list of named arrays; nothing in it can be
executed. Products are fused there: queries, keys and values of self-attention are one matrix, keys and values of
cross-attention another. A key's bias is zero, as Whisper has none.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lepton_platform.models.whisper import Whisper, WhisperSizes
from lepton_platform.stage import StageFailed

ARRAYS, WEIGHTS = "model.bin", "model.safetensors"
_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # CTranslate2's numbers of its types
_MOST_ARRAYS = 100_000


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a CTranslate2 model by name; ``StageFailed`` where the file is not one."""
    try:
        return _parsed(memoryview(path.read_bytes()))
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise StageFailed(f"{path} cannot be read as a CTranslate2 model: {error!r}.") from None


def _parsed(data: memoryview) -> dict[str, np.ndarray]:
    at = 0

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", data, at)
        at += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return bytes(data[at - length : at - 1]).decode("utf-8")  # it ends with a zero

    if number("I") != 6 or text() != "WhisperSpec":
        raise ValueError("it is not version 6 of a Whisper")
    number("I")  # the revision
    found: dict[str, np.ndarray] = {}
    count = number("I")
    if count > _MOST_ARRAYS:
        raise ValueError(f"{count} arrays")
    for _ in range(count):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = _TYPES[number("B")]
        size = number("I")
        found[name] = np.frombuffer(data[at : at + size], kind).reshape(shape)
        at += size
    for _ in range(number("I")):  # a second name of an array
        alias, name = text(), text()
        found[alias] = found[name]
    return found


def whisper_sizes(folder: Path, dropout: float) -> WhisperSizes:
    """The sizes that the folder's files tell."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (folder / ARRAYS).is_file():
        return _sizes_of_arrays(read_arrays(folder / ARRAYS), config, dropout)
    if config.get("model_type") != "whisper":
        raise StageFailed(f"The network in {folder} is of type '{config.get('model_type')}', not 'whisper'.")
    generation = folder / "generation_config.json"
    told = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    return WhisperSizes(
        vocabulary=config["vocab_size"],
        width=config["d_model"],
        heads=config["decoder_attention_heads"],
        encoder_layers=config["encoder_layers"],
        decoder_layers=config["decoder_layers"],
        hidden=config["decoder_ffn_dim"],
        bands=config["num_mel_bins"],
        states=config["max_source_positions"],
        positions=config["max_target_positions"],
        dropout=dropout,
        alignment_heads=told.get("alignment_heads", ()),
    )


def _sizes_of_arrays(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], dropout: float) -> WhisperSizes:
    vocabulary, width = arrays["decoder/embeddings/weight"].shape

    def layers(side: str) -> int:
        return len({name.split("/")[1] for name in arrays if name.startswith(f"{side}/layer_") and name.count("/") > 2})

    return WhisperSizes(
        vocabulary=vocabulary,
        width=width,
        heads=int(arrays["decoder/num_heads"]),
        encoder_layers=layers("encoder"),
        decoder_layers=layers("decoder"),
        hidden=arrays["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        bands=arrays["encoder/conv1/weight"].shape[1],
        states=arrays["encoder/position_encodings/encodings"].shape[0],
        positions=arrays["decoder/position_encodings/encodings"].shape[0],
        dropout=dropout,
        alignment_heads=config.get("alignment_heads", ()),
    )


def load_whisper(network: Whisper, folder: Path) -> None:
    """Fill ``network``, built with ``whisper_sizes(folder)``; a missing weight is an error."""
    try:
        if (folder / ARRAYS).is_file():
            weights = _from_arrays(read_arrays(folder / ARRAYS), network)
        else:
            from safetensors.torch import load_file

            weights = _from_hub(load_file(folder / WEIGHTS), network)
    except KeyError as missing:
        raise StageFailed(f"The weights in {folder} lack {missing}: they are not a Whisper's.") from None
    network.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=True)


_OUTER = {  # ours → the hub's, CTranslate2's
    "encoder.near": ("model.encoder.conv1", "encoder/conv1"),
    "encoder.halve": ("model.encoder.conv2", "encoder/conv2"),
    "encoder.norm": ("model.encoder.layer_norm", "encoder/layer_norm"),
    "decoder.norm": ("model.decoder.layer_norm", "decoder/layer_norm"),
}
_NORMS = {  # within a layer
    "attention_norm": ("self_attn_layer_norm", "self_attention/layer_norm"),
    "cross_norm": ("encoder_attn_layer_norm", "attention/layer_norm"),
    "feed_norm": ("final_layer_norm", "ffn/layer_norm"),
    "feed.widen": ("fc1", "ffn/linear_0"),
    "feed.narrow": ("fc2", "ffn/linear_1"),
}
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def _names(network: Whisper) -> list[tuple[str, str]]:
    """(place, rest) of every parameter: ``encoder.layers.0`` and ``attention.query.weight``, or ``encoder`` and ``near.bias``."""
    found = []
    for name, _ in network.named_parameters():
        parts = name.split(".")
        cut = 3 if parts[1] == "layers" else 1
        found.append((".".join(parts[:cut]), ".".join(parts[cut:])))
    return found


def _from_hub(stored: Mapping[str, Tensor], network: Whisper) -> dict[str, Tensor]:
    found = {}
    for place, rest in _names(network):
        ours, _, kind = f"{place}.{rest}".rpartition(".")
        if ours == "decoder.tokens":
            theirs = "model.decoder.embed_tokens.weight"
        elif f"{place}.{rest}" == "decoder.positions":
            theirs = "model.decoder.embed_positions.weight"
        elif ours in _OUTER:
            theirs = f"{_OUTER[ours][0]}.{kind}"
        else:
            theirs = f"model.{place}.{_inner(rest.rpartition('.')[0])}.{kind}"
        found[f"{place}.{rest}"] = stored[theirs]
    return found


def _inner(part: str) -> str:
    if part in _NORMS:
        return _NORMS[part][0]
    block, projection = part.split(".")
    return f"{'self_attn' if block == 'attention' else 'encoder_attn'}.{_PROJECTIONS[projection]}"


def _from_arrays(arrays: Mapping[str, np.ndarray], network: Whisper) -> dict[str, Tensor]:
    found = {}
    for place, rest in _names(network):
        ours, _, kind = f"{place}.{rest}".rpartition(".")
        if ours == "decoder.tokens":
            array = arrays["decoder/embeddings/weight"]
        elif f"{place}.{rest}" == "decoder.positions":
            array = arrays["decoder/position_encodings/encodings"]
        elif ours in _OUTER:
            array = arrays[f"{_OUTER[ours][1]}/{_kind(ours, kind)}"]
        else:
            array = _of_layer(arrays, place, *rest.rpartition(".")[::2])
        found[f"{place}.{rest}"] = torch.from_numpy(array.astype(np.float32))
    return found


def _kind(part: str, kind: str) -> str:
    """A layer norm's weight and bias are gamma and beta there."""
    return {"weight": "gamma", "bias": "beta"}[kind] if part.endswith("norm") else kind


def _of_layer(arrays: Mapping[str, np.ndarray], place: str, part: str, kind: str) -> np.ndarray:
    side, _, number = place.split(".")
    layer = f"{side}/layer_{number}"
    if part in _NORMS:
        return arrays[f"{layer}/{_NORMS[part][1]}/{_kind(part, kind)}"]
    block, projection = part.split(".")
    if block == "attention":
        fused, order = (
            f"{layer}/self_attention",
            {"query": (0, 0, 3), "key": (0, 1, 3), "value": (0, 2, 3), "out": (1, 0, 1)},
        )
    else:
        fused, order = (
            f"{layer}/attention",
            {"query": (0, 0, 1), "key": (1, 0, 2), "value": (1, 1, 2), "out": (2, 0, 1)},
        )
    linear, part_number, parts = order[projection]
    return np.split(arrays[f"{fused}/linear_{linear}/{kind}"], parts)[part_number]
