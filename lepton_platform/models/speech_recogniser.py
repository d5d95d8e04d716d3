"""Learning to write down what is said: the learner that every task of this kind shares (see ``training/part.py``).

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_platform.models.batch import Batch
from lepton_platform.models.graph import Graph, Run
from lepton_platform.models.labelling import wrong_params
from lepton_platform.models.recordings import Recordings
from lepton_platform.models.speech_decoding import DECODER, ENCODER, transcripts
from lepton_platform.models.speech_input import RATE, padded, window
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.whisper import Whisper, WhisperSizes

Config = Mapping[str, Any]
TOKENIZER = "tokenizer.json"
NOTHING = -100  # a target that is not learnt


class SpeechParams(BaseModel):
    """The section ``train.network`` of a task that writes down speech."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str | None = Field(
        "whisper-tiny-en",
        description="'whisper-tiny-en' (packaged), a folder, or a hub's name: weights and tokenizer. None: from scratch.",
    )
    sizes: dict[str, Any] = Field(
        default_factory=dict, description="From scratch: width, heads, encoder_layers, decoder_layers, hidden, states …"
    )
    language: str = Field("en", description="Of a network that knows several.")
    tail_s: float = Field(0.5, ge=0, le=5, description="Silence behind a recording, seconds.")
    step_s: float = Field(0.5, gt=0, le=30, description="A window is a multiple of it, seconds.")
    least_s: float = Field(1.0, gt=0, le=30, description="The shortest window; 30 is what Whisper was trained with.")
    max_tokens: int = Field(200, ge=4, description="The longest transcript.")
    dropout: float = Field(0.0, ge=0, lt=1)
    masks: dict[str, Any] = Field(
        default_factory=dict, description="SpecAugment: time_masks, time_share, band_masks, bands."
    )


@dataclass(frozen=True)
class SpeechSamples:
    """Recordings and, where they are known, the tokens of what is said."""

    recordings: Recordings
    tokens: list[list[int]] | None
    config: Config

    @property
    def sizes(self) -> np.ndarray:
        return np.array([window(len(one), self.config) for one in self.recordings], dtype=np.int64)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """→ audio int16 (B, N), tokens (B, T); target ``next`` (B, T): the token after each."""
        import torch

        chosen = [int(row) for row in rows]
        start, end = self.config["tokens"]["start"], self.config["tokens"]["end"]
        said = [[]] * len(chosen) if self.tokens is None else [self.tokens[row] for row in chosen]
        longest = len(start) + max(map(len, said))
        tokens = np.full((len(chosen), longest), end, dtype=np.int64)
        following = np.full((len(chosen), longest), NOTHING, dtype=np.int64)
        for row, one in enumerate(said):
            whole = [*start, *one]
            tokens[row, : len(whole)] = whole
            following[row, len(start) - 1 : len(whole)] = [*one, end]
        audio = padded([self.recordings[row] for row in chosen], self.config)
        inputs = {"audio": torch.from_numpy(audio), "tokens": torch.from_numpy(tokens)}
        return Batch(inputs, {} if self.tokens is None else {"next": torch.from_numpy(following)})


@dataclass(frozen=True)
class SpeechRecogniser:
    """Learns the text of a recording. ``decode``: a file's bytes → samples (N,) at 16 kHz; ``written``: a text as it is learnt."""

    content: str
    target: str
    decode: Callable[[bytes], NDArray[np.float32]]
    written: Callable[[str], str]
    labels: tuple[str, ...] = ()  # an answer is a text, not one of a few

    @property
    def columns(self) -> tuple[str, ...]:
        return self.content, self.target

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """See ``Learner.configure``; leaves ``tokenizer.json``."""
        from lepton_platform.models.pretrained import PACKAGED_SPEECH, speech
        from lepton_platform.models.whisper_tokens import special_tokens

        params, masks = _parsed(network)
        source = speech(params.weights or PACKAGED_SPEECH, cache)
        sizes = _sizes(params, source)
        special = special_tokens(source, sizes.vocabulary, params.language)
        (folder / TOKENIZER).write_bytes((source / TOKENIZER).read_bytes())
        most = sizes.positions - len(special["start"])
        if params.max_tokens > most:
            raise StageFailed(f"train.network.max_tokens: {params.max_tokens} is more than its {most} positions.")
        return {
            "kind": "whisper",
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

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> SpeechSamples:
        del training  # what is hidden in training is hidden in the network
        recordings = Recordings(rows[self.content], self.decode, config["input"]["most_s"])
        return SpeechSamples(recordings, self._tokens(config, folder, rows), config)

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

        following = batch.targets["next"]
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
        following = batch.targets["next"]
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

    def answer(self, run: Mapping[str, Run], inputs: Mapping[str, NDArray], config: Config, folder: Path) -> NDArray:
        """(B,) of ``Transcript``."""
        return transcripts(run, inputs["audio"], config, folder)

    def depths(self, network: Whisper) -> dict[str, int]:
        """0 the decoder's last layer …, then the encoder's, the spectra's convolutions deepest."""
        from lepton_platform.models.depths import depths

        decoder = [f"decoder.layers.{n}" for n in reversed(range(len(network.decoder.layers)))]
        encoder = [f"encoder.layers.{n}" for n in reversed(range(len(network.encoder.layers)))]
        last, first = ("decoder.norm", decoder[0]), ("decoder.tokens", "decoder.positions")
        return depths(network, [last, *decoder[1:], first, ("encoder.norm", encoder[0]), *encoder[1:], "encoder"])


def _sizes(params: SpeechParams, source: Path) -> WhisperSizes:
    from lepton_platform.models.whisper import WhisperSizes
    from lepton_platform.models.whisper_weights import whisper_sizes

    if params.weights is not None:
        if params.sizes:
            raise StageFailed("train.network.sizes: a pretrained network has its own sizes; leave it out.")
        return whisper_sizes(source, params.dropout)
    try:
        return WhisperSizes.model_validate({"dropout": params.dropout, **params.sizes})
    except ValidationError as error:
        raise wrong_params("train.network.sizes", error, WhisperSizes) from None


def _parsed(network: Mapping[str, Any]) -> tuple[SpeechParams, dict[str, Any]]:
    from lepton_platform.models.spec_augment import Masks

    where, model = "train.network", SpeechParams
    try:
        params = SpeechParams.model_validate(network)
        where, model = "train.network.masks", Masks
        return params, Masks.model_validate(params.masks).model_dump()
    except ValidationError as error:
        raise wrong_params(where, error, model) from None
