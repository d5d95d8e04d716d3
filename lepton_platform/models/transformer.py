"""The Lepton Transformer: an encoder over token ids, with the layer norm before or after each sub-layer.

"Attention Is All You Need" (Vaswani et al., 2017, arXiv:1706.03762) with the layer norm after the sub-layers, as there
and in BERT (Devlin et al., 2018, arXiv:1810.04805), or before them, which trains without warm-up
(Xiong et al., 2020, arXiv:2002.04745). With ``norm="post"`` it is BERT's network: ``models/bert.py`` loads its weights.

Letters in names are shapes: B rows, T tokens, D width, H heads.
"""

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F


class TransformerSizes(BaseModel):
    """What rebuilds the encoder; kept in the model's ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(ge=1, description="Token ids are 0 … vocabulary - 1.")
    width: int = Field(256, ge=1)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1, description="Must divide the width.")
    hidden: int = Field(1024, ge=1, description="Width inside the feed-forward network.")
    positions: int = Field(512, ge=1, description="The longest input, tokens.")
    position_kind: Literal["learned", "sinusoidal"] = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    norm_eps: float = Field(1e-5, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1, description="After the embeddings and after every sub-layer.")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="Of attention weights.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerSizes":
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        return self


def sinusoids(positions: int, width: int) -> Tensor:
    """Fixed positions (positions, width): sines and cosines of falling frequency (Vaswani et al., section 3.5)."""
    frequency_D = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle_TD = torch.arange(positions)[:, None] * frequency_D
    return torch.stack([angle_TD.sin(), angle_TD.cos()], dim=-1).flatten(1)[:, :width]


class Embeddings(nn.Module):
    """Token plus position; normalised at once where the layers normalise after themselves."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        if sizes.position_kind == "learned":
            self.positions: Tensor = nn.Parameter(torch.empty(sizes.positions, sizes.width))
        else:  # what a formula gives is not stored
            self.register_buffer("positions", sinusoids(sizes.positions, sizes.width), persistent=False)
        self.norm = nn.LayerNorm(sizes.width, sizes.norm_eps) if sizes.norm == "post" else nn.Identity()
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        x_BTD = self.tokens(input_ids_BT) + self.positions[: input_ids_BT.shape[1]]
        return self.dropout(self.norm(x_BTD))


class SelfAttention(nn.Module):
    """Every token looks at every real token of its row. One product makes queries, keys and values."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.heads, self.dropout = sizes.heads, sizes.attention_dropout
        self.qkv = nn.Linear(sizes.width, 3 * sizes.width)
        self.out = nn.Linear(sizes.width, sizes.width)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        rows, tokens, width = x_BTD.shape
        qkv = self.qkv(x_BTD).view(rows, tokens, 3, self.heads, width // self.heads)
        q_BHTd, k_BHTd, v_BHTd = qkv.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y_BHTd = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask_B11T, dropout_p=dropout)
        return self.out(y_BHTd.transpose(1, 2).reshape(rows, tokens, width))


class Layer(nn.Module):
    """Attention, then a feed-forward network with GELU (Hendrycks & Gimpel, 2016); each around a residual."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.before = sizes.norm == "pre"
        self.attention = SelfAttention(sizes)
        self.attention_norm = nn.LayerNorm(sizes.width, sizes.norm_eps)
        self.widen = nn.Linear(sizes.width, sizes.hidden)
        self.narrow = nn.Linear(sizes.hidden, sizes.width)
        self.feed_norm = nn.LayerNorm(sizes.width, sizes.norm_eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def feed(self, x_BTD: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(x_BTD)))

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        if self.before:
            x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), mask_B11T))
            return x_BTD + self.dropout(self.feed(self.feed_norm(x_BTD)))
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, mask_B11T)))
        return self.feed_norm(x_BTD + self.dropout(self.feed(x_BTD)))


class Transformer(nn.Module):
    """Token ids (B, T) and their mask (B, T), 1 where a token is real → states (B, T, D)."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.width, self.depth = sizes.width, sizes.layers
        self.embeddings = Embeddings(sizes)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, sizes.norm_eps) if sizes.norm == "pre" else nn.Identity()
        self.apply(_initialise)
        if isinstance(self.embeddings.positions, nn.Parameter):
            nn.init.normal_(self.embeddings.positions, std=0.02)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        x_BTD = self.embeddings(input_ids_BT)
        mask_B11T = attention_mask_BT[:, None, None, :].bool()
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_B11T)
        return self.norm(x_BTD)


def _initialise(module: nn.Module) -> None:
    """Normal with deviation 0.02 and no bias, as BERT starts."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
