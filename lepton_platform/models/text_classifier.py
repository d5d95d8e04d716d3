"""Learning to label texts: the learner that every task of this kind shares (see ``training/part.py``).

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_platform.models.batch import Batch
from lepton_platform.models.labelling import Labelling, wrong_params
from lepton_platform.models.tokens import TokenRows, load_tokenizer, tokenize, train_tokenizer
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.settled import Settled
    from lepton_platform.models.text_network import TextNetwork

Config = Mapping[str, Any]
TOKENIZER = "tokenizer.json"


class TextParams(BaseModel):
    """The section ``train.network`` of a task that labels texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pretrained", "transformer", "rnn"] = "pretrained"
    encoder: str = Field("minilm", description="'minilm' (packaged), a folder, or a hub's name: weights and tokenizer.")
    vocabulary: int | None = Field(
        None,
        ge=8,
        description="From scratch: tokens of a vocabulary learnt from the training rows; None: the encoder's.",
    )
    max_tokens: int = Field(64, ge=4, description="Longer texts are cut.")
    dropout: float = Field(0.1, ge=0, lt=1, description="In the encoder.")
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    head_dropout: float = Field(0.1, ge=0, lt=1, description="Before the head.")
    sizes: dict[str, Any] = Field(
        default_factory=dict, description="From scratch: width, layers, hidden, heads, norm …"
    )


def parse_params(section: Mapping[str, Any]) -> TextParams:
    try:
        return TextParams.model_validate(section)
    except ValidationError as error:
        raise wrong_params("train.network", error, TextParams) from None


@dataclass(frozen=True)
class TextSamples:
    """Tokens and, where they are known, the labels' numbers (N,)."""

    tokens: TokenRows
    labels: np.ndarray | None

    @property
    def sizes(self) -> np.ndarray:
        return self.tokens.sizes

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        import torch

        targets = {} if self.labels is None else {"label": torch.from_numpy(self.labels[np.asarray(rows, np.int64)])}
        return Batch(self.tokens.padded(rows), targets)


@dataclass(frozen=True)
class TextClassifier(Labelling):
    """Learns the label of a text."""

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """See ``Learner.configure``; leaves ``tokenizer.json``."""
        params = parse_params(network)
        tokenizer = None
        if params.kind == "pretrained" or params.vocabulary is None:
            from lepton_platform.models.pretrained import encoder

            source = encoder(params.encoder, cache)
            tokenizer = load_tokenizer(source / TOKENIZER, params.max_tokens)
        else:
            source = None
            tokenizer = train_tokenizer(rows[self.content].to_pylist(), params.vocabulary)
            tokenizer.enable_truncation(params.max_tokens)
        sizes = _sizes(params, source, tokenizer.get_vocab_size())
        tokenizer.save(str(folder / TOKENIZER))
        return {
            "kind": params.kind,
            "encoder": params.encoder if params.kind == "pretrained" else None,
            "sizes": sizes,
            "head_dropout": params.head_dropout,
            "labels": list(self.labels),
            "max_tokens": params.max_tokens,
            "tokenizer": TOKENIZER,
            "files": [TOKENIZER],  # what a service needs beside the network
            "inputs": ["input_ids", "attention_mask"],
        }

    def build(self, config: Config) -> TextNetwork:
        from lepton_platform.models.rnn import Rnn, RnnSizes
        from lepton_platform.models.text_network import TextNetwork
        from lepton_platform.models.transformer import Transformer, TransformerSizes

        rnn, sizes = config["kind"] == "rnn", config["sizes"]
        encoder = Rnn(RnnSizes(**sizes)) if rnn else Transformer(TransformerSizes(**sizes))
        return TextNetwork(encoder, len(config["labels"]), config["head_dropout"])

    def start(self, network: TextNetwork, config: Config, cache: Path) -> None:
        """Load the pretrained encoder; a network from scratch stays as it was built."""
        if config["kind"] == "pretrained":
            from lepton_platform.models.bert import load_bert
            from lepton_platform.models.pretrained import encoder
            from lepton_platform.models.transformer import Transformer

            assert isinstance(network.encoder, Transformer)
            load_bert(network.encoder, encoder(config["encoder"], cache))

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> TextSamples:
        tokenizer = load_tokenizer(folder / config["tokenizer"], config["max_tokens"])
        return TextSamples(tokenize(tokenizer, rows[self.content].to_pylist()), self.numbers(rows))

    def examples(self, config: Config) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Texts of two lengths, full of the first token."""
        import torch

        def batch(rows: int, tokens: int) -> dict[str, Tensor]:
            shape = (rows, min(tokens, config["max_tokens"]))
            return {
                "input_ids": torch.zeros(shape, dtype=torch.int64),
                "attention_mask": torch.ones(shape, dtype=torch.int64),
            }

        return batch(2, 3), batch(3, 8)

    def settled(self, network: TextNetwork, frozen: Collection[str]) -> Settled | None:
        """See ``Learner.settled``: where all of the encoder is frozen, it says once what a text's vector is."""
        from lepton_platform.models.settled import Settled
        from lepton_platform.models.text_network import FromVectors

        whole = all(name in frozen for name, _ in network.named_parameters() if name.startswith("encoder."))
        return Settled(network.pooled, FromVectors(network)) if whole else None

    def depths(self, network: TextNetwork) -> dict[str, int]:
        """0 the head, 1 the encoder's last layer …, the embeddings highest."""
        layers = network.encoder.depth
        return {name: _depth(name, layers) for name, _ in network.named_parameters()}


def _depth(name: str, layers: int) -> int:
    path = name.split(".")
    if path[0] == "head":
        return 0
    if path[1] == "layers":
        return layers - int(path[2])
    return layers + 1 if path[1] == "embeddings" else 1  # a last norm learns with the last layer


def _sizes(params: TextParams, source: Path | None, vocabulary: int) -> dict[str, Any]:
    """The encoder's sizes, complete: what is not said is written down with its default."""
    from lepton_platform.models.rnn import RnnSizes
    from lepton_platform.models.transformer import TransformerSizes

    if params.kind == "pretrained":
        from lepton_platform.models.bert import bert_sizes

        assert source is not None
        if params.sizes:
            raise StageFailed("train.network.sizes: a pretrained encoder has its own sizes; leave it out.")
        sizes: BaseModel = bert_sizes(source, params.dropout, params.attention_dropout)
    else:
        model = RnnSizes if params.kind == "rnn" else TransformerSizes
        given: dict[str, Any] = {"vocabulary": vocabulary, "dropout": params.dropout}
        if params.kind == "transformer":
            given |= {"positions": params.max_tokens, "attention_dropout": params.attention_dropout}
        try:
            sizes = model.model_validate({**given, **params.sizes})
        except ValidationError as error:
            raise wrong_params("train.network.sizes", error, model) from None
    if isinstance(sizes, TransformerSizes) and params.max_tokens > sizes.positions:
        raise StageFailed(
            f"train.network.max_tokens: {params.max_tokens} is more than its {sizes.positions} positions."
        )
    return sizes.model_dump()
