"""A network that another runtime computes, as a detector uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from retinanet.config.model_settings import ModelSettings
from retinanet.ops.anchors import make_anchors
from retinanet.ops.network_outputs import Outputs

Run = Callable[[Tensor], Sequence[Tensor]]
"""(B, 3, H, W) float32, normalised, both sides a multiple of 32 -> logits of each level, then deltas of each level."""


class ExportedNetwork(nn.Module):
    """The interface that :class:`retinanet.Detector` needs of a network, without weights; it runs on the CPU.

    Args:
        settings: with mean and std filled in, as a built :class:`retinanet.RetinaNet` has them.
        run: computes the outputs (see ``Run``), float32 tensors (B, N_l, K) and (B, N_l, 4).
    """

    def __init__(self, settings: ModelSettings, num_classes: int, run: Run) -> None:
        super().__init__()
        self.settings, self.num_classes, self.run = settings, num_classes, run

    def forward(self, images: Tensor) -> Outputs:
        outputs = self.run(images)
        count = len(self.settings.anchors.levels)
        return Outputs(list(outputs[:count]), list(outputs[count:]))

    def anchors(self, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """As :meth:`retinanet.RetinaNet.anchors`."""
        return make_anchors(self.settings.anchors, height, width, torch.device(device))
