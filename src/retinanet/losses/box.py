"""Box regression losses: sums over the positive anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

from torch import Tensor
from torch.nn import functional as F

from retinanet.common.arguments import real
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.config.bounds import BoxLoss
from retinanet.ops import boxes as geometry


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    kind: BoxLoss,
    beta: float = 1 / 9,
    weights: Tensor | None = None,
    box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """Sum of the box loss.

    Args:
        deltas: (P, 4) float32, predicted offsets of the positive anchors.
        anchors: (P, 4) float32, those anchors.
        boxes: (P, 4) float32, the boxes that they are assigned to; all x1 y1 x2 y2 in input pixels.
        kind: "smooth_l1" (the paper's) and "l1" compare encoded offsets, summed over the four coordinates; "giou" is
            1 - GIoU of the decoded boxes.
        beta: the difference at which smooth L1 turns from quadratic to linear; the authors' code has 1/9.
        weights: (P,) of the anchors; 1 by default.
        box_weights: of dx, dy, dw and dh, by which both offsets are multiplied before they are compared.

    Returns:
        () float32; 0, with a gradient of 0, where there are no positives.

    Raises:
        RequestError: ``kind`` is unknown, or ``beta`` out of range.
    """
    if kind not in get_args(BoxLoss):
        raise RequestError(f"kind must be one of {', '.join(get_args(BoxLoss))}, not {shown(kind)}")
    if not 0 <= real("beta", beta) < math.inf:
        raise RequestError(f"beta must be 0 or more, not {beta}")
    if kind == "giou":
        losses = 1 - geometry.giou(geometry.decode(deltas, anchors), boxes)  # (P,)
    else:
        functions: dict[str, Any] = {"smooth_l1": partial(F.smooth_l1_loss, beta=beta), "l1": F.l1_loss}
        targets = geometry.encode(boxes, anchors)
        if any(weight != 1 for weight in box_weights):
            deltas, targets = (geometry.multiplied(each, box_weights) for each in (deltas, targets))
        losses = functions[kind](deltas, targets, reduction="none").sum(dim=1)
    return losses.sum() if weights is None else (losses * weights).sum()
