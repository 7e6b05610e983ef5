"""The optimizer and its two groups of parameters."""

from __future__ import annotations

import torch
from torch import nn

from retinanet.config.settings import TrainSettings
from retinanet.training.schedule import scaled_lr

FACTOR = "lr_factor"  # of a group of parameters


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters of ``model`` that require gradients.

    Parameters with at most one dimension (normalization and biases) get ``norm_weight_decay`` if it is set.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    norm_decay = settings.weight_decay if settings.norm_weight_decay is None else settings.norm_weight_decay
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": norm_decay},
    ]
    lr = scaled_lr(settings)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(settings.momentum, settings.beta2))
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate; that of the backbone is ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(FACTOR, 1.0)  # runs that an older version saved have no factor
