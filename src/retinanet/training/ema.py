"""The moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """A second model with averaged weights: average = d * average + (1 - d) * weights.

    At update t the decay is d = min(decay, (1 + t) / (10 + t)). It starts low, so that the average soon forgets the
    random first weights. Parameters and floating-point buffers are averaged; integer buffers are copied.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.decay = decay
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Move the average towards ``model``; ``updates`` is the number of earlier updates."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        averages, weights = list(self.model.state_dict().values()), list(model.state_dict().values())
        floating = [i for i, tensor in enumerate(averages) if tensor.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in floating], [weights[i] for i in floating], 1 - decay)
        for average, weight in zip(averages, weights):
            if not average.is_floating_point():
                average.copy_(weight)
