"""Schedules, frozen parameters, learning rates by depth, and what L1 and L2 do to weights."""

import pytest
import torch
from torch import nn

from lepton_platform.stage import StageFailed
from lepton_platform.training.optimizer import build_optimizer, freeze, schedule, set_learning_rate, shrink
from lepton_platform.training.params import TrainParams

DEPTHS = {"0.weight": 2, "0.bias": 2, "1.weight": 1, "1.bias": 1, "2.weight": 0, "2.bias": 0}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(("decay", "middle", "end"), [("linear", 0.5, 0.0), ("cosine", 0.5, 0.0), ("constant", 1, 1)])
def test_the_rate_rises_then_falls(decay, middle, end):
    params = TrainParams(warmup_fraction=0.2, decay=decay)
    factors = [schedule(step, 100, params) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 20)
    assert factors[:20] == sorted(factors[:20])
    assert max(factors) == factors[20] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(middle)
    assert factors[99] == pytest.approx(end, abs=0.02)


def test_no_warmup_and_one_step():
    assert schedule(0, 1, TrainParams(warmup_fraction=0.0)) == 1.0
    assert schedule(0, 1, TrainParams(warmup_fraction=1.0)) == 1.0


def test_lower_layers_learn_more_slowly_and_the_head_faster():
    net = network()
    params = TrainParams(learning_rate=0.1, layer_decay=0.5, head_learning_rate_factor=3.0)
    optimizer = build_optimizer(net, params, DEPTHS)
    set_learning_rate(optimizer, 0.1)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(net[0].weight)] == pytest.approx(0.05)
    assert rates[id(net[1].bias)] == pytest.approx(0.1)
    assert rates[id(net[2].weight)] == pytest.approx(0.3)


def test_biases_do_not_decay():
    net = network()
    optimizer = build_optimizer(net, TrainParams(weight_decay=0.5), DEPTHS)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay[id(net[0].weight)] == 0.5
    assert decay[id(net[0].bias)] == 0.0


def test_what_is_frozen_is_not_trained():
    net = network()
    freeze(net, ["0", "1.b*"])
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"1.weight", "2.weight", "2.bias"}
    optimizer = build_optimizer(net, TrainParams(), DEPTHS)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 3


def test_a_pattern_without_a_parameter_is_an_error():
    with pytest.raises(StageFailed, match=r"no parameter matches 'encoder'.*0\.bias"):
        freeze(network(), ["encoder"])
    with pytest.raises(StageFailed, match="nothing to train"):
        freeze(network(), ["*"])


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_l2_pulls_weights_towards_zero(kind):
    norms = []
    for weight_decay in (0.0, 0.5):
        net = network()
        params = TrainParams(optimizer=kind, weight_decay=weight_decay, learning_rate=0.01, head_learning_rate_factor=1)
        optimizer = build_optimizer(net, params, DEPTHS)
        for _ in range(50):
            (net(torch.ones(1, 4)).sum() * 0.0).backward()  # no gradient but the penalty's
            optimizer.step()
            optimizer.zero_grad()
        norms.append(net[0].weight.norm().item())
    assert norms[1] < 0.9 * norms[0]


def test_l1_makes_the_weights_of_useless_inputs_exactly_zero():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 1))
    params = TrainParams(optimizer="sgd", momentum=0.0, weight_decay=0.0, head_learning_rate_factor=1.0, l1=0.1)
    optimizer = build_optimizer(net, params, {"0.weight": 1, "0.bias": 1})
    inputs = torch.randn(500, 8)
    target = 3 * inputs[:, :1] - 2 * inputs[:, 1:2]
    set_learning_rate(optimizer, 0.1)
    for _ in range(200):
        nn.functional.mse_loss(net(inputs), target).backward()
        optimizer.step()
        shrink(optimizer, params.l1)
        optimizer.zero_grad()
    (weights,) = net[0].weight.detach()
    assert (weights[2:] == 0).all()
    # Lasso shrinks what is left by l1 / 2 for inputs of variance 1.
    assert weights[:2] == pytest.approx(torch.tensor([2.95, -1.95]), abs=0.02)
