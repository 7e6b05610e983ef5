"""Class loss and box loss, summed over a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet.config.settings import LossSettings
from retinanet.losses.box import box_loss
from retinanet.losses.class_weights import ClassBalance, class_balance
from retinanet.losses.focal import sigmoid_focal_loss
from retinanet.losses.ohem import hardest
from retinanet.losses.own_losses import BUILT_IN, OwnLosses, own_box_loss, own_class_loss
from retinanet.losses.pointwise import entries, pointwise_loss
from retinanet.ops.iou_assigner import Targets
from retinanet.ops.network_outputs import Outputs


def class_loss(logits: Tensor, labels: Tensor, settings: LossSettings, balance: ClassBalance | None = None) -> Tensor:
    """Sum of the class loss that ``settings.kind`` names, over anchors and classes.

    Args:
        logits: (..., K). labels: (...) int64, the class, -1 for background, -2 for anchors that take no part.
        balance: ``class_balance(settings, class_names)`` on the logits' device; needed only
            where settings name classes.

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
    box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    own: OwnLosses = BUILT_IN,
) -> tuple[Tensor, Tensor]:
    """Class and box loss of a batch, each summed over all anchors of all images.

    Divide both by :func:`normalizer`, at least 1, of the whole batch, over all processes and accumulation steps
    (section 4, "Training"). With ``settings.normalizer`` "image" each image's sums are divided by its own positive
    anchors (at least 1) already. Computed in float32 whatever the network's precision.

    Args:
        outputs: of the network, per level logits (B, N_l, K) and deltas (B, N_l, 4).
        targets: of :func:`retinanet.ops.iou_assigner.match` for the anchors of all levels, one level after the other.
        anchors: per level (N_l, 4).
        balance: as for :func:`class_loss`.
        box_weights: ``model.head.box_weights``, by which deltas and their targets are multiplied.
        own: functions in place of those that the settings name.

    Returns:
        Class loss and box loss, () float32 each; the box loss is already multiplied by ``settings.box_weight``.
    """
    balance = balance or class_balance(settings, ())
    total = outputs.logits[0].new_zeros((), dtype=torch.float32)
    shares = None
    if settings.normalizer == "image":
        shares = 1 / (targets.labels >= 0).sum(dim=1).clamp(min=1)  # (B,) float32
    if own.classes is not None:
        logits = torch.cat(list(outputs.logits), dim=1)
        total = total + own_class_loss(own.classes, logits, targets.labels, shares)
    elif settings.ohem.batch is None:
        labels = targets.labels.split([logits.shape[1] for logits in outputs.logits], dim=1)
        for logits, level in zip(outputs.logits, labels, strict=True):
            total = total + _class_loss(logits, level, settings, balance, shares)
    else:
        logits = torch.cat(list(outputs.logits), dim=1)
        total = total + _mined_loss(logits, targets, torch.cat(list(anchors)), settings, balance, shares)
    indices, per_image = targets.indices, max(1, targets.labels.shape[1])
    deltas = torch.cat([d.float() for d in outputs.deltas], dim=1).reshape(-1, 4)[indices]
    matched = torch.cat(list(anchors))[indices % per_image]
    positive = targets.labels.view(-1)[indices] >= 0
    if own.boxes is not None:
        images = indices // per_image
        regression = own_box_loss(own.boxes, (deltas, matched, targets.boxes), images, positive, shares)
        return total, settings.box_weight * regression
    weights = positive.to(deltas.dtype)
    if shares is not None:
        weights = weights * shares[indices // per_image]
    regression = box_loss(deltas, matched, targets.boxes, settings.box, settings.beta, weights, box_weights)
    return total, settings.box_weight * regression


def normalizer(targets: Targets, settings: LossSettings) -> Tensor:
    """The divisor of the sums of :func:`detection_loss`, () float32: the number of positive anchors, or of images.

    Add those of all processes and accumulation steps first.
    """
    positives = targets.num_positives
    return positives if settings.normalizer == "batch" else torch.full_like(positives, len(targets.labels))


def _class_loss(
    logits: Tensor | list[Tensor],
    labels: Tensor | list[Tensor],
    settings: LossSettings,
    balance: ClassBalance,
    shares: Tensor | None,
) -> Tensor:
    """Class loss of B images, logits (N, K) and labels (N,) of each, multiplied by ``shares`` (B,) if there are."""
    if shares is None:
        logits, labels = (x if isinstance(x, Tensor) else torch.cat(x) for x in (logits, labels))
        return class_loss(logits, labels, settings, balance)
    losses = [class_loss(*image, settings, balance) for image in zip(logits, labels, strict=True)]
    return (torch.stack(losses) * shares).sum()


def _mined_loss(
    logits: Tensor,
    targets: Targets,
    anchors: Tensor,
    settings: LossSettings,
    balance: ClassBalance,
    shares: Tensor | None,
) -> Tensor:
    """Class loss of the hardest anchors of each image; logits (B, N, K), anchors (N, 4)."""
    loss = pointwise_loss(settings)
    losses = entries(logits.detach(), targets.labels, loss, balance.alpha, balance.weights).sum(dim=2)  # (B, N)
    chosen = [hardest(*image, anchors, settings.ohem) for image in zip(losses, targets.labels)]
    mined = [logits[i, indices] for i, indices in enumerate(chosen)]
    labels = [targets.labels[i, indices] for i, indices in enumerate(chosen)]
    return _class_loss(mined, labels, settings, balance, shares)
