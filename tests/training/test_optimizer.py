"""Which parameters are trained, and how each is decayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinanet.config.model_settings import BackboneSettings, HeadSettings, ModelSettings, PyramidSettings
from retinanet.config.settings import TrainSettings
from retinanet.model import RetinaNet
from retinanet.training.optimizer import make_optimizer, set_lr


def model(frozen_stages: int = 0) -> RetinaNet:
    return RetinaNet(
        ModelSettings(
            backbone=BackboneSettings(name="resnet18", frozen_stages=frozen_stages),
            pyramid=PyramidSettings(channels=16),
            head=HeadSettings(depth=1, width=16, norm="group"),
        ),
        2,
    )


def test_the_papers() -> None:
    optimizer = make_optimizer(model(), TrainSettings())
    assert isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 1e-4)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_groups(kind: str) -> None:
    net = model(frozen_stages=2)
    settings = TrainSettings(optimizer=kind, norm_weight_decay=0.0, weight_decay=0.05, batch_size=8)  # type: ignore[arg-type]
    optimizer = make_optimizer(net, settings)
    assert isinstance(optimizer, torch.optim.AdamW if kind == "adamw" else torch.optim.SGD)
    assert all(group["lr"] == 0.005 for group in optimizer.param_groups)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    kernels = {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d)}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith(("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1"))
            assert id(parameter) not in decay
        else:
            assert decay.pop(id(parameter)) == (0.05 if id(parameter) in kernels else 0.0), name
    assert not decay


def test_set_lr() -> None:
    optimizer = make_optimizer(model(), TrainSettings())
    set_lr(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_two_steps_by_hand() -> None:
    """v = m v + g + wd w; w = w - lr v."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2.0)
    optimizer = make_optimizer(net, TrainSettings(lr=0.1, lr_batch=0, weight_decay=0.01))
    w, v = 2.0, 0.0
    for gradient in (1.0, -3.0):
        net.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        v = 0.9 * v + gradient + 0.01 * w
        w -= 0.1 * v
        assert net.weight.item() == pytest.approx(w)
