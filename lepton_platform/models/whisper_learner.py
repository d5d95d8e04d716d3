"""The learner of speech with a Whisper: it says the next token after those before it, from what it hears.

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.batch import Batch
from lepton_platform.models.graph import Graph
from lepton_platform.models.recordings import Recordings
from lepton_platform.models.speech_decoding import DECODER, ENCODER
from lepton_platform.models.speech_input import RATE
from lepton_platform.models.speech_params import WhisperParams, parsed, parsed_masks
from lepton_platform.models.speech_samples import Config, SpeechSamples
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.whisper import Whisper, WhisperSizes

TOKENIZER = "tokenizer.json"
NEXT = "next"  # the target
NOTHING = -100  # a target that is not learnt


@dataclass(frozen=True)
class WhisperSamples(SpeechSamples):
    """Recordings and the tokens of what is said."""

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """→ audio int16 (B, N), tokens (B, T); target ``next`` (B, T): the token after each."""
        import torch

        chosen = [int(row) for row in rows]
        start, end = self.config["tokens"]["start"], self.config["tokens"]["end"]
        said = [[]] * len(chosen) if self.said is None else [self.said[row] for row in chosen]
        longest = len(start) + max(map(len, said))
        tokens = np.full((len(chosen), longest), end, dtype=np.int64)
        following = np.full((len(chosen), longest), NOTHING, dtype=np.int64)
        for row, one in enumerate(said):
            whole = [*start, *one]
            tokens[row, : len(whole)] = whole
            following[row, len(start) - 1 : len(whole)] = [*one, end]
        inputs = {"audio": self.audio(chosen), "tokens": torch.from_numpy(tokens)}
        return Batch(inputs, {} if self.said is None else {NEXT: torch.from_numpy(following)})


@dataclass(frozen=True)
class WhisperLearner:
    """``decode``: a file's bytes → samples (N,) at 16 kHz; ``written``: a text as it is learnt."""

    content: str
    target: str
    decode: Callable[[bytes], NDArray[np.float32]]
    written: Callable[[str], str]

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """See ``Learner.configure``; leaves ``tokenizer.json``."""
        from lepton_platform.models.pretrained import PACKAGED_SPEECH, speech
        from lepton_platform.models.whisper_tokens import special_tokens

        del rows  # the tokens are those of the weights
        params = parsed("train.network", network, WhisperParams)
        masks = parsed_masks(params.masks)
        source = speech(params.weights or PACKAGED_SPEECH, cache)
        sizes = _sizes(params, source)
        special = special_tokens(source, sizes.vocabulary, params.language)
        (folder / TOKENIZER).write_bytes((source / TOKENIZER).read_bytes())
        most = sizes.positions - len(special["start"])
        if params.max_tokens > most:
            raise StageFailed(f"train.network.max_tokens: {params.max_tokens} is more than its {most} positions.")
        return {
            "kind": params.kind,
            "weights": params.weights,
            "sizes": sizes.model_dump(mode="json"),
            "masks": masks,
            "tokens": special,
            "max_tokens": params.max_tokens,
            "tokenizer": TOKENIZER,
            "labels": [],
            "input": {
                "rate": RATE,
                "tail_s": params.tail_s,
                "step_s": params.step_s,
                "least_s": params.least_s,
                "most_s": sizes.states / 50,
            },
            "files": [TOKENIZER],
            "inputs": ["audio"],
        }

    def build(self, config: Config) -> Whisper:
        from lepton_platform.models.spec_augment import Masks
        from lepton_platform.models.whisper import Whisper, WhisperSizes

        return Whisper(WhisperSizes(**config["sizes"]), Masks(**config["masks"]))

    def start(self, network: Whisper, config: Config, cache: Path) -> None:
        """Load pretrained weights; a network from scratch stays as it was built."""
        if config["weights"] is not None:
            from lepton_platform.models.pretrained import speech
            from lepton_platform.models.whisper_weights import load_whisper

            load_whisper(network, speech(config["weights"], cache))

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> WhisperSamples:
        del training  # what is hidden in training is hidden in the network
        recordings = Recordings(rows[self.content], self.decode, config["input"]["most_s"])
        return WhisperSamples(recordings, self._tokens(config, folder, rows), config)

    def _tokens(self, config: Config, folder: Path, rows: pa.Table) -> list[list[int]] | None:
        if self.target not in rows.column_names:
            return None
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / config["tokenizer"]))
        texts = [f" {self.written(text)}" for text in rows[self.target].to_pylist()]  # a text begins with a space
        return [tokenizer.encode(text, add_special_tokens=False).ids[: config["max_tokens"]] for text in texts]

    def losses(self, outputs: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
        """The mean cross-entropy of a row's tokens."""
        from torch.nn import functional as F

        following = batch.targets[NEXT]
        each = F.cross_entropy(
            outputs.float().transpose(1, 2),
            following,
            ignore_index=NOTHING,
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return each.sum(1) / (following != NOTHING).sum(1)

    def measures(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """``accuracy``: the share of a row's tokens that are the likeliest after the true ones before them."""
        following = batch.targets[NEXT]
        asked = following != NOTHING
        right = (outputs.argmax(2) == following) & asked
        return {"loss": self.losses(outputs, batch, 0.0), "accuracy": right.sum(1) / asked.sum(1)}

    def graphs(self, network: Whisper, config: Config) -> dict[str, Graph]:
        """What listens, and what says the next token."""
        import torch

        from lepton_platform.models.whisper import DecoderGraph, EncoderGraph

        sizes = config["sizes"]

        def heard(rows: int, said: int, states: int) -> dict[str, Tensor]:
            layers, heads = sizes["decoder_layers"], sizes["heads"]
            each = sizes["width"] // heads
            return {
                "token": torch.zeros(rows, dtype=torch.int64),
                "past": torch.zeros(layers, 2, rows, heads, said, each),
                "memory": torch.zeros(layers, 2, rows, heads, states, each),
            }

        return {
            ENCODER: Graph(
                EncoderGraph(network),
                {"audio": torch.zeros(2, RATE, dtype=torch.int16)},
                {"audio": torch.zeros(3, 2 * RATE, dtype=torch.int16)},
                ("memory",),
            ),
            DECODER: Graph(DecoderGraph(network), heard(2, 3, 50), heard(3, 5, 75), ("logits", "present", "attention")),
        }

    def depths(self, network: Whisper) -> dict[str, int]:
        """0 the decoder's last layer …, then the encoder's, the spectra's convolutions deepest."""
        from lepton_platform.models.depths import depths

        decoder = [f"decoder.layers.{n}" for n in reversed(range(len(network.decoder.layers)))]
        encoder = [f"encoder.layers.{n}" for n in reversed(range(len(network.encoder.layers)))]
        last, first = ("decoder.norm", decoder[0]), ("decoder.tokens", "decoder.positions")
        return depths(network, [last, *decoder[1:], first, ("encoder.norm", encoder[0]), *encoder[1:], "encoder"])


def _sizes(params: WhisperParams, source: Path) -> WhisperSizes:
    from lepton_platform.models.whisper import WhisperSizes
    from lepton_platform.models.whisper_weights import whisper_sizes

    if params.weights is None:
        return parsed("train.network.sizes", {"dropout": params.dropout, **params.sizes}, WhisperSizes)
    if params.sizes:
        raise StageFailed("train.network.sizes: a pretrained network has its own sizes; leave it out.")
    return whisper_sizes(source, params.dropout)
