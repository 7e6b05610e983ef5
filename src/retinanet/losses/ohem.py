"""Online hard example mining over anchors (section 5.1, "Online Hard Example Mining"; Shrivastava et al., 2016).

Where the focal loss gives easy examples less weight, this leaves them out. Only the anchors with the largest class loss
of each image are trained on, after non-maximum suppression among anchors by that loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retinanet.config.settings import OhemSettings
from retinanet.ops.iou_assigner import IGNORED

FIRST = 16  # times the wanted number of anchors: how many of the hardest suppression takes at first


@torch.no_grad()
def hardest(losses: Tensor, labels: Tensor, anchors: Tensor, settings: OhemSettings) -> Tensor:
    """Indices (n,) int64 of the anchors of one image to train on, the hardest first.

    With ``settings.negatives`` = r at most batch / (1 + r) positives are taken, the hardest, and the r times as many
    hardest background anchors, so none of an image without positives (as in SSD).

    Args:
        losses: (N,) class loss of each anchor, summed over classes.
        labels: (N,) int64, the class, -1 for background, -2 for anchors that take no part: those are never taken.
        anchors: (N, 4) x1 y1 x2 y2.
        settings: with a batch.
    """
    from torchvision.ops import nms  # here, so that importing retinanet does not import torchvision

    assert settings.batch is not None, "the caller checks this"
    counted = (labels != IGNORED).nonzero()[:, 0]
    order = counted[losses[counted].argsort(descending=True, stable=True)]
    positives = negatives = settings.batch
    if settings.negatives is not None:
        positives = math.ceil(settings.batch / (1 + settings.negatives))
    # Which of the hardest n anchors are kept does not depend on the others, and suppression takes time as n squared.
    first = FIRST * settings.batch
    while True:
        hard = kept = order[:first]
        if settings.nms < 1:
            # Ranks stand in for the losses, so that of equal losses the first is the harder here too.
            ranks = torch.arange(len(hard), 0, -1, device=hard.device, dtype=torch.float32)
            kept = hard[nms(anchors[hard].float(), ranks, settings.nms)]
        is_positive = labels[kept] >= 0
        if settings.negatives is None:
            enough = len(kept) >= settings.batch
        else:
            count = int(is_positive.sum())
            # Positives further down could still be taken, where fewer than wanted were found.
            every_positive = int((labels[hard] >= 0).sum()) == int((labels >= 0).sum())
            negatives = math.floor(min(count, positives) * settings.negatives)
            enough = (count >= positives or every_positive) and len(kept) - count >= negatives
        if enough or first >= len(order):
            break
        first *= 4
    if settings.negatives is None:
        return kept[: settings.batch]
    rank = torch.where(is_positive, is_positive.cumsum(0) <= positives, (~is_positive).cumsum(0) <= negatives)
    return kept[rank]
