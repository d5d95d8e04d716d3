"""The Lepton RNN: embedding and LSTM, in both directions, over token ids.

LSTM: Hochreiter & Schmidhuber, 1997; both directions: Graves & Schmidhuber, 2005. The backward direction reads every
row from its own last real token, by index and not by packing, so that the network can be exported to ONNX.

Letters in names are shapes: B rows, T tokens, D width.
"""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class RnnSizes(BaseModel):
    """What rebuilds the encoder; kept in the model's ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(ge=1, description="Token ids are 0 … vocabulary - 1.")
    width: int = Field(128, ge=1, description="Of the embeddings.")
    hidden: int = Field(128, ge=1, description="Of the LSTM, in each direction.")
    layers: int = Field(1, ge=1)
    bidirectional: bool = True
    dropout: float = Field(0.1, ge=0, lt=1, description="After the embeddings and after every layer.")


def reversed_rows(lengths_B: Tensor, tokens: int) -> Tensor:
    """Row by row the positions (B, T) that turn its real tokens round and leave its padding where it is."""
    position_T = torch.arange(tokens, device=lengths_B.device)
    turned_BT = lengths_B[:, None] - 1 - position_T
    return torch.where(turned_BT >= 0, turned_BT, position_T)


def take(x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
    """``x[b, positions[b, t]]`` for all b and t."""
    return x_BTD.gather(1, positions_BT[:, :, None].expand(-1, -1, x_BTD.shape[2]))


class RnnLayer(nn.Module):
    """One LSTM forwards and, if asked for, one backwards, side by side."""

    def __init__(self, width: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.forwards = nn.LSTM(width, hidden, batch_first=True)
        self.backwards = nn.LSTM(width, hidden, batch_first=True) if bidirectional else None

    def forward(self, x_BTD: Tensor, turn_BT: Tensor) -> Tensor:
        y_BTD = self.forwards(x_BTD)[0]
        if self.backwards is None:
            return y_BTD
        z_BTD = take(self.backwards(take(x_BTD, turn_BT))[0], turn_BT)
        return torch.cat([y_BTD, z_BTD], dim=2)


class Rnn(nn.Module):
    """Token ids (B, T), padded on the right, and their mask (B, T) → states (B, T, D)."""

    def __init__(self, sizes: RnnSizes) -> None:
        super().__init__()
        self.depth = sizes.layers
        self.width = sizes.hidden * (2 if sizes.bidirectional else 1)
        self.embeddings = nn.Embedding(sizes.vocabulary, sizes.width)
        inner = [sizes.width] + [self.width] * (sizes.layers - 1)
        self.layers = nn.ModuleList(RnnLayer(width, sizes.hidden, sizes.bidirectional) for width in inner)
        self.dropout = nn.Dropout(sizes.dropout)
        nn.init.normal_(self.embeddings.weight, std=0.1)
        for name, parameter in self.layers.named_parameters():
            _initialise(name, parameter, sizes.hidden)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        turn_BT = reversed_rows(attention_mask_BT.sum(1), input_ids_BT.shape[1])
        x_BTD = self.dropout(self.embeddings(input_ids_BT))
        for layer in self.layers:
            x_BTD = self.dropout(layer(x_BTD, turn_BT))
        return x_BTD


def _initialise(name: str, parameter: nn.Parameter, hidden: int) -> None:
    """Orthogonal recurrences (Saxe et al., 2013); the forget gate open at first (Jozefowicz et al., 2015)."""
    with torch.no_grad():
        if "weight_hh" in name:
            for gate in parameter.chunk(4):
                nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            nn.init.xavier_uniform_(parameter)
        else:
            parameter.zero_()
            if "bias_ih" in name:
                parameter[hidden : 2 * hidden].fill_(1.0)
