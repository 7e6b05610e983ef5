"""The running average against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinanet.training.ema import Ema


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("decay", [0.5, 0.9998])
def test_closed_form(decay: float) -> None:
    """average_n = sum over t of (1 - d_t) w_t times the product of the later d, plus the start's share."""
    net = model()
    start = {name: tensor.clone().double() for name, tensor in net.state_dict().items()}
    ema = Ema(net, decay)
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(12)]
    weights: list[dict[str, torch.Tensor]] = []
    for t in range(12):
        net(torch.randn(4, 3, 6, 6))  # moves the statistics
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        weights.append({name: tensor.clone().double() for name, tensor in net.state_dict().items()})
        ema.update(net, t)
    for name, tensor in ema.model.state_dict().items():
        if not tensor.is_floating_point():
            assert tensor == net.state_dict()[name] == 12  # batches counted, copied
            continue
        expected, share = torch.zeros_like(start[name]), 1.0
        for d, values in zip(reversed(decays), reversed(weights)):
            expected += share * (1 - d) * values[name]
            share *= d
        torch.testing.assert_close(tensor.double(), expected + share * start[name], rtol=1e-4, atol=1e-5)


def test_starts_low() -> None:
    """The first update takes 90 % of the new weights, whatever the decay; later ones less and less."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = Ema(net, 0.9998)
    nn.init.ones_(net.weight)
    ema.update(net, 0)
    assert ema.model.weight.item() == pytest.approx(0.9)
    nn.init.zeros_(net.weight)
    ema.update(net, 10**6)
    assert ema.model.weight.item() == pytest.approx(0.9 * 0.9998)


def test_stands_apart() -> None:
    net = model()
    ema = Ema(net, 0.9)
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert all(p.requires_grad for p in net.parameters())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        next(ema.model.parameters()).add_(1)
    ema.update(net, 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
