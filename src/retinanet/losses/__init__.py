"""The losses of the paper, and their sum over a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from retinanet.config import LossSettings
from retinanet.losses.box import box_loss
from retinanet.losses.focal import sigmoid_focal_loss

if TYPE_CHECKING:
    from retinanet.matching import Targets
    from retinanet.model.retinanet import Outputs

__all__ = ["box_loss", "detection_loss", "sigmoid_focal_loss"]


def detection_loss(
    outputs: Outputs, targets: Targets, anchors: Sequence[Tensor], settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """Class and box loss of a batch, each summed over all anchors of all pictures.

    Divide both by the number of positive anchors (at least 1) of the whole batch, all processes and accumulated parts
    together (section 4, "Training"). Computed in float32 whatever the network's precision.

    Args:
        outputs: of the network, per level logits (B, N_l, K) and deltas (B, N_l, 4).
        targets: of :func:`retinanet.matching.match` for the anchors of all levels, one level after the other.
        anchors: per level (N_l, 4).

    Returns:
        Class loss and box loss, () float32 each; the box loss is already multiplied by ``settings.box_weight``.
    """
    class_loss = outputs.logits[0].new_zeros((), dtype=torch.float32)
    start = 0
    for logits in outputs.logits:
        end = start + logits.shape[1]
        labels = targets.labels[:, start:end]
        class_loss = class_loss + sigmoid_focal_loss(logits, labels, settings.gamma, settings.alpha)
        start = end
    deltas = torch.cat([d.float() for d in outputs.deltas], dim=1).reshape(-1, 4)[targets.positives]
    positive_anchors = torch.cat(list(anchors))[targets.positives % start]
    return class_loss, settings.box_weight * box_loss(
        deltas, positive_anchors, targets.boxes, settings.box, settings.beta
    )
