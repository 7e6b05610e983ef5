"""The losses of the paper, and their sum over a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from retinanet.config import LossSettings
from retinanet.losses.box import box_loss
from retinanet.losses.focal import sigmoid_focal_loss
from retinanet.losses.ohem import hardest
from retinanet.losses.per_class import ClassBalance, class_balance
from retinanet.losses.pointwise import entries, pointwise_loss

if TYPE_CHECKING:
    from retinanet.matching import Targets
    from retinanet.model.retinanet import Outputs

__all__ = [
    "ClassBalance",
    "box_loss",
    "class_balance",
    "class_loss",
    "detection_loss",
    "hardest",
    "sigmoid_focal_loss",
]


def class_loss(logits: Tensor, labels: Tensor, settings: LossSettings, balance: ClassBalance | None = None) -> Tensor:
    """Sum of the class loss over anchors and classes, whichever ``settings.kind`` names.

    Args:
        logits: (..., K). labels: (...) int64, the class, -1 for background, -2 for anchors that take no part.
        balance: ``class_balance(settings, class_names)`` on the logits' device; only settings that name no class can
            do without.

    Returns:
        () float32 (float64 for float64 logits).
    """
    balance = balance or class_balance(settings, ())
    if settings.kind == "focal":
        return sigmoid_focal_loss(logits, labels, settings.gamma, balance.alpha, balance.weights)
    return entries(logits, labels, pointwise_loss(settings), balance.alpha, balance.weights).sum()


def detection_loss(
    outputs: Outputs,
    targets: Targets,
    anchors: Sequence[Tensor],
    settings: LossSettings,
    balance: ClassBalance | None = None,
) -> tuple[Tensor, Tensor]:
    """Class and box loss of a batch, each summed over all anchors of all pictures.

    Divide both by the number of positive anchors (at least 1) of the whole batch, all processes and accumulated parts
    together (section 4, "Training"). Computed in float32 whatever the network's precision.

    Args:
        outputs: of the network, per level logits (B, N_l, K) and deltas (B, N_l, 4).
        targets: of :func:`retinanet.matching.match` for the anchors of all levels, one level after the other.
        anchors: per level (N_l, 4).
        balance: as for :func:`class_loss`.

    Returns:
        Class loss and box loss, () float32 each; the box loss is already multiplied by ``settings.box_weight``.
    """
    balance = balance or class_balance(settings, ())
    total = outputs.logits[0].new_zeros((), dtype=torch.float32)
    if settings.ohem.batch is None:
        labels = targets.labels.split([logits.shape[1] for logits in outputs.logits], dim=1)
        for logits, own in zip(outputs.logits, labels, strict=True):
            total = total + class_loss(logits, own, settings, balance)
    else:
        logits = torch.cat(list(outputs.logits), dim=1)
        total = total + _mined_loss(logits, targets, torch.cat(list(anchors)), settings, balance)
    places = targets.places
    deltas = torch.cat([d.float() for d in outputs.deltas], dim=1).reshape(-1, 4)[places]
    positive = targets.labels.view(-1)[places] >= 0
    regression = box_loss(
        deltas,
        torch.cat(list(anchors))[places % max(1, targets.labels.shape[1])],
        targets.boxes,
        settings.box,
        settings.beta,
        positive.to(deltas.dtype),
    )
    return total, settings.box_weight * regression


def _mined_loss(
    logits: Tensor, targets: Targets, anchors: Tensor, settings: LossSettings, balance: ClassBalance
) -> Tensor:
    """Class loss of the hardest anchors of each picture; logits (B, N, K), anchors (N, 4)."""
    loss = pointwise_loss(settings)
    losses = entries(logits.detach(), targets.labels, loss, balance.alpha, balance.weights).sum(dim=2)  # (B, N)
    chosen = [hardest(*picture, anchors, settings.ohem) for picture in zip(losses, targets.labels)]
    mined = [logits[i, places] for i, places in enumerate(chosen)]
    labels = [targets.labels[i, places] for i, places in enumerate(chosen)]
    return class_loss(torch.cat(mined), torch.cat(labels), settings, balance)
