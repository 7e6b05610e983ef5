"""The optimizer and its two groups of parameters."""

from __future__ import annotations

import torch
from torch import nn

from retinanet.config.settings import TrainSettings
from retinanet.training.schedule import scaled_lr

FACTOR = "lr_factor"  # of a group of parameters


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters of ``model`` that require gradients.

    Parameters with at most one dimension (normalization and biases) get ``norm_weight_decay`` if it is set. Those of
    ``model.backbone`` have groups of their own if ``backbone_lr`` is not 1.
    """
    norm_decay = settings.weight_decay if settings.norm_weight_decay is None else settings.norm_weight_decay
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parts = [(list(trained.values()), 1.0)]
    if settings.backbone_lr != 1:
        backbone = [parameter for name, parameter in trained.items() if name.startswith("backbone.")]
        others = [parameter for name, parameter in trained.items() if not name.startswith("backbone.")]
        parts = [(others, 1.0), (backbone, settings.backbone_lr)]
    lr = scaled_lr(settings)
    groups = [
        {
            "params": [p for p in parameters if (p.ndim > 1) == matrices],
            "weight_decay": decay,
            "lr": lr * factor,
            FACTOR: factor,
        }
        for parameters, factor in parts
        for matrices, decay in ((True, settings.weight_decay), (False, norm_decay))
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(settings.momentum, settings.beta2))
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate; that of the backbone is ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(FACTOR, 1.0)  # runs that an older version saved have no factor
