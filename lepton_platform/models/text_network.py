"""An encoder of tokens, its states averaged, and a linear head: what classifies texts."""

import torch
from torch import Tensor, nn

from lepton_platform.models.rnn import Rnn
from lepton_platform.models.transformer import Transformer


def mean_of_real(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean (B, D) of every row's real tokens."""
    weight_BT1 = mask_BT[:, :, None].to(states_BTD.dtype)
    return (states_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


class TextNetwork(nn.Module):
    """``input_ids`` and ``attention_mask`` (B, T) int64 → logits (B, C) float32."""

    def __init__(self, encoder: Transformer | Rnn, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder: Transformer | Rnn = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The text's vector (B, D)."""
        return mean_of_real(self.encoder(input_ids, attention_mask), attention_mask)

    def scores(self, vectors: Tensor) -> Tensor:
        """Logits (B, C) float32 of vectors (B, D)."""
        return self.head(self.dropout(vectors)).to(torch.float32)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.scores(self.pooled(input_ids, attention_mask))


class FromVectors(nn.Module):
    """The network after its encoder: ``vectors`` (B, D) → logits (B, C) float32."""

    def __init__(self, whole: TextNetwork) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, vectors: Tensor) -> Tensor:
        return self.whole.scores(vectors)
