"""The Lepton speech transformer: an encoder of spectra and a decoder of words that looks at it.

Whisper's network (Radford et al., 2022, arXiv:2212.04356): ``models/whisper_weights.py`` loads its weights. The window is
as long as the recording needs, not thirty seconds: positions are sines, so a shorter one is the beginning of a longer.

Letters in names are shapes: B rows, N samples, T tokens, S encoder states (50 a second), D width, H heads, d = D / H, V
vocabulary, L decoder layers, A alignment heads, P tokens that are already said.
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_platform.models.log_mel import LogMel
from lepton_platform.models.spec_augment import Masks, SpecAugment


class WhisperSizes(BaseModel):
    """What rebuilds the network; the defaults are Whisper tiny's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(51_864, ge=1)
    width: int = Field(384, ge=2)
    heads: int = Field(6, ge=1, description="Must divide the width.")
    encoder_layers: int = Field(4, ge=1)
    decoder_layers: int = Field(4, ge=1)
    hidden: int = Field(1_536, ge=1, description="Width inside the feed-forward networks.")
    bands: int = Field(80, ge=1, description="Of the mel scale.")
    states: int = Field(1_500, ge=1, description="The longest recording, encoder states of 20 ms.")
    positions: int = Field(448, ge=1, description="The longest transcript, tokens.")
    dropout: float = Field(0.0, ge=0, lt=1, description="After every sub-layer.")
    alignment_heads: tuple[tuple[int, int], ...] = Field(
        (), description="(layer, head) of the decoder whose attention tells when a word is said."
    )


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width): sines in the first half, cosines in the second, as Whisper has them."""
    scale = math.log(10_000.0) / (width // 2 - 1)
    angle = torch.arange(length)[:, None] * torch.exp(-scale * torch.arange(width // 2))[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Attention(nn.Module):
    """Projections of multi-head attention; a key has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, x_BTD: Tensor) -> Tensor:
        """→ (B, H, T, d)."""
        rows, length, width = x_BTD.shape
        return x_BTD.view(rows, length, self.heads, width // self.heads).transpose(1, 2)

    def keys_values(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(self.key(x_BSD)), self.split(self.value(x_BSD))

    def merge(self, y_BHTd: Tensor) -> Tensor:
        rows, heads, length, each = y_BHTd.shape
        return self.out(y_BHTd.transpose(1, 2).reshape(rows, length, heads * each))

    def forward(self, x_BTD: Tensor, keys: Tensor, values: Tensor, causal: bool = False) -> Tensor:
        q_BHTd = self.split(self.query(x_BTD))
        return self.merge(F.scaled_dot_product_attention(q_BHTd, keys, values, is_causal=causal))

    def watched(self, x_BTD: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and what was looked at (B, H, T, S)."""
        q_BHTd = self.split(self.query(x_BTD))
        weights = (q_BHTd @ keys.transpose(2, 3) * q_BHTd.shape[-1] ** -0.5).softmax(-1)
        return self.merge(weights @ values), weights


class Feed(nn.Module):
    def __init__(self, sizes: WhisperSizes) -> None:
        super().__init__()
        self.widen = nn.Linear(sizes.width, sizes.hidden)
        self.narrow = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(x_BTD)))


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network; the layer norm before each."""

    def __init__(self, sizes: WhisperSizes) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(sizes.width)
        self.attention = Attention(sizes.width, sizes.heads)
        self.feed_norm = nn.LayerNorm(sizes.width)
        self.feed = Feed(sizes)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x_BSD: Tensor) -> Tensor:
        y_BSD = self.attention_norm(x_BSD)
        x_BSD = x_BSD + self.dropout(self.attention(y_BSD, *self.attention.keys_values(y_BSD)))
        return x_BSD + self.dropout(self.feed(self.feed_norm(x_BSD)))


class DecoderLayer(nn.Module):
    """Attention to what was said, then to what is heard, then a feed-forward network."""

    def __init__(self, sizes: WhisperSizes) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(sizes.width)
        self.attention = Attention(sizes.width, sizes.heads)
        self.cross_norm = nn.LayerNorm(sizes.width)
        self.cross = Attention(sizes.width, sizes.heads)
        self.feed_norm = nn.LayerNorm(sizes.width)
        self.feed = Feed(sizes)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor) -> Tensor:
        y_BTD = self.attention_norm(x_BTD)
        x_BTD = x_BTD + self.dropout(self.attention(y_BTD, *self.attention.keys_values(y_BTD), causal=True))
        x_BTD = x_BTD + self.dropout(self.cross(self.cross_norm(x_BTD), *self.cross.keys_values(memory_BSD)))
        return x_BTD + self.dropout(self.feed(self.feed_norm(x_BTD)))

    def step(self, x_B1D: Tensor, past: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One token more: → states, keys and values of all tokens (2, B, H, P + 1, d), attention (B, H, S)."""
        y_B1D = self.attention_norm(x_B1D)
        present = torch.cat([past, torch.stack(self.attention.keys_values(y_B1D))], dim=3)
        x_B1D = x_B1D + self.attention.watched(y_B1D, present[0], present[1])[0]
        said, weights = self.cross.watched(self.cross_norm(x_B1D), memory[0], memory[1])
        x_B1D = x_B1D + said
        return x_B1D + self.feed(self.feed_norm(x_B1D)), present, weights[:, :, 0]


class Encoder(nn.Module):
    """16-bit samples (B, N) → states (B, S, D), S = N / 320."""

    positions: Tensor

    def __init__(self, sizes: WhisperSizes, masks: Masks) -> None:
        super().__init__()
        self.spectra = LogMel(sizes.bands)
        self.masks = SpecAugment(masks)
        self.near = nn.Conv1d(sizes.bands, sizes.width, 3, padding=1)
        self.halve = nn.Conv1d(sizes.width, sizes.width, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(sizes.states, sizes.width), persistent=False)
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.encoder_layers))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, audio_BN: Tensor) -> Tensor:
        x_BDS = F.gelu(self.halve(F.gelu(self.near(self.masks(self.spectra(audio_BN))))))
        x_BSD = x_BDS.transpose(1, 2)
        x_BSD = x_BSD + self.positions[: x_BSD.shape[1]]
        for layer in self.layers:
            x_BSD = layer(x_BSD)
        return self.norm(x_BSD)


class Decoder(nn.Module):
    """Tokens (B, T) and the encoder's states → logits (B, T, V); the embedding is also the last matrix."""

    def __init__(self, sizes: WhisperSizes) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positions = nn.Parameter(torch.zeros(sizes.positions, sizes.width))
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.decoder_layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.alignment_heads = sizes.alignment_heads

    def forward(self, tokens_BT: Tensor, memory_BSD: Tensor) -> Tensor:
        x_BTD = self.tokens(tokens_BT) + self.positions[: tokens_BT.shape[1]]
        for layer in self.layers:
            x_BTD = layer(x_BTD, memory_BSD)
        return F.linear(self.norm(x_BTD), self.tokens.weight)

    def step(self, token_B: Tensor, past: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One token more, from keys and values: see ``DecoderGraph``."""
        said = past.shape[4]
        x_B1D = self.tokens(token_B[:, None]) + self.positions[said : said + 1]
        presents, attentions = [], []
        for layer, before, heard in zip(self.layers, past, memory, strict=True):
            x_B1D, present, weights_BHS = layer.step(x_B1D, before, heard)  # pyright: ignore[reportCallIssue]
            presents.append(present)
            attentions.append(weights_BHS)
        watched = [attentions[layer][:, head] for layer, head in self.alignment_heads]
        seen_BAS = torch.stack(watched, dim=1) if watched else attentions[-1].mean(1, keepdim=True)
        logits_BV = F.linear(self.norm(x_B1D[:, 0]), self.tokens.weight)
        return logits_BV, torch.stack(presents), seen_BAS


class Whisper(nn.Module):
    """Samples and the tokens said so far → what comes next, for every token: how it is trained."""

    def __init__(self, sizes: WhisperSizes, masks: Masks | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(sizes, masks or Masks.model_validate({}))
        self.decoder = Decoder(sizes)

    def forward(self, audio: Tensor, tokens: Tensor) -> Tensor:
        """``audio`` (B, N) int16, ``tokens`` (B, T) → (B, T, V)."""
        return self.decoder(tokens, self.encoder(audio))


class EncoderGraph(nn.Module):
    """How it is exported: samples (B, N) → what every decoder layer looks at, keys and values (L, 2, B, H, S, d)."""

    def __init__(self, network: Whisper) -> None:
        super().__init__()
        self.network = network

    def forward(self, audio: Tensor) -> Tensor:
        memory_BSD = self.network.encoder(audio)
        layers = self.network.decoder.layers
        return torch.stack([torch.stack(layer.cross.keys_values(memory_BSD)) for layer in layers])  # pyright: ignore


class DecoderGraph(nn.Module):
    """How it is exported: a token (B,), ``past`` (L, 2, B, H, P, d), ``memory`` → logits (B, V), ``present``, attention.

    ``present`` is ``past`` with the token's own keys and values behind; ``attention`` (B, A, S) is what the alignment
    heads looked at.
    """

    def __init__(self, network: Whisper) -> None:
        super().__init__()
        self.decoder = network.decoder

    def forward(self, token: Tensor, past: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.decoder.step(token, past, memory)
