"""A checkpoint is there whole or not at all, and only for the run that it belongs to."""

import torch
from torch import nn

from lepton_platform.training.checkpoint import (
    Checkpoint,
    State,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)


def test_an_optimiser_goes_on_as_if_nothing_had_happened():
    def step(net, optimizer, n):
        torch.manual_seed(n)
        net(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    for n in range(3):
        step(net, optimizer, n)
    other = nn.Linear(3, 2)
    other.load_state_dict(net.state_dict())
    resumed = torch.optim.AdamW(other.parameters(), fused=True)
    restore_optimizer(resumed, other, {k: v.clone() for k, v in optimizer_tensors(optimizer, net).items()})
    step(net, optimizer, 9)
    step(other, resumed, 9)
    assert torch.equal(net.weight, other.weight)


def test_the_newest_whole_one_counts(tmp_path):
    for step in (5, 10):
        weights = {"w": torch.full((2,), float(step))}
        save_checkpoint(tmp_path, "run", Checkpoint(State(step=step), weights, {}, weights))
    half = tmp_path / "new"  # a kill while the next one was being written
    half.mkdir()
    (half / "network.safetensors").write_bytes(b"half")
    empty = tmp_path / "step-000000099"  # a kill while an older one was being removed
    empty.mkdir()
    found = load_checkpoint(tmp_path, "run")
    assert found is not None
    assert found.state.step == 10
    assert found.network["w"].tolist() == [10.0, 10.0]
    assert not (tmp_path / "step-000000005").exists()
    save_checkpoint(tmp_path, "run", Checkpoint(State(step=15), {}, {}, {}))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000015"]


def test_another_runs_checkpoint_is_not_taken(tmp_path):
    save_checkpoint(tmp_path, "one", Checkpoint(State(step=5), {}, {}, {}))
    assert load_checkpoint(tmp_path, "other") is None
    assert load_checkpoint(tmp_path / "nowhere", "one") is None
