"""The Lepton RNN reads as torch's packed LSTM does, without packing."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lepton_platform.models.rnn import Rnn, RnnSizes, reversed_rows


def test_rows_are_turned_within_their_length():
    assert reversed_rows(torch.tensor([3, 5, 0]), 5).tolist() == [[2, 1, 0, 3, 4], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]]


def test_as_a_packed_bidirectional_lstm():
    torch.manual_seed(0)
    ours = Rnn(RnnSizes(vocabulary=20, width=6, hidden=5, layers=2)).eval()
    theirs = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for n, layer in enumerate(ours.layers):
            for side, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(theirs, f"{kind}_l{n}{suffix}").copy_(getattr(side, f"{kind}_l0"))
    ids = torch.randint(0, 20, (3, 7))
    lengths = torch.tensor([7, 4, 1])
    mask = (torch.arange(7) < lengths[:, None]).long()
    with torch.no_grad():
        packed = pack_padded_sequence(ours.embeddings(ids), lengths, batch_first=True)
        expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
        found = ours(ids, mask)
    assert torch.allclose(found[mask.bool()], expected[mask.bool()], atol=1e-6)


def test_one_direction_does_not_look_ahead():
    torch.manual_seed(0)
    rnn = Rnn(RnnSizes(vocabulary=20, width=6, hidden=5, bidirectional=False)).eval()
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 9, 9]])
    with torch.no_grad():
        states = rnn(ids, torch.ones_like(ids))
    assert rnn.width == 5
    assert torch.equal(states[0, :2], states[1, :2])
    assert not torch.allclose(states[0, 2], states[1, 2])
