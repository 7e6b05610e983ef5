"""The running average of a model's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """A second model whose weights follow those of the trained one: average = d * average + (1 - d) * weights.

    The decay d starts low and rises to ``decay`` (d = min(decay, (1 + t) / (10 + t)) at update t), so that the random
    first weights are soon forgotten. Parameters and floating buffers (batch norm statistics) are averaged, integer
    buffers copied.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.decay = decay
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Move the average towards ``model``; ``updates`` is how many updates went before this one."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        ours, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        floating = [i for i, tensor in enumerate(ours) if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[i] for i in floating], [theirs[i] for i in floating], 1 - decay)
        for tensor, source in zip(ours, theirs):
            if not tensor.is_floating_point():
                tensor.copy_(source)
