"""The focal loss of every entry, for one-hot labels and for the reductions of torchvision's function."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.losses.class_weights import term_weights
from retinanet.losses.pointwise import SOFTPLUS_LINEAR, entries, focal
from retinanet.ops.iou_assigner import IGNORED

Reduction = Literal["sum", "mean", "none"]


def reduced_loss(
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    alpha: float | Tensor | None,
    weights: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """As :func:`retinanet.losses.sigmoid_focal_loss`, by the plain formula and without a synchronisation."""
    if reduction not in get_args(Reduction):
        raise RequestError(f"reduction must be one of {', '.join(get_args(Reduction))}, not {shown(reduction)}")
    if labels.is_floating_point():
        losses = _one_hot(logits, labels, gamma, alpha, weights)
        return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()
    require_shape(logits, labels)
    losses = entries(logits, labels, partial(focal, gamma=gamma), alpha, weights)
    if reduction == "none":
        return losses
    counted = (labels != IGNORED).sum() * logits.shape[-1]
    return losses.sum() if reduction == "sum" else losses.sum() / counted


def require_shape(logits: Tensor, labels: Tensor) -> None:
    """
    Raises:
        RequestError: labels are not indices of the logits' rows.
    """
    if logits.shape[:-1] != labels.shape:
        raise _wrong(logits, labels)


def _wrong(logits: Tensor, labels: Tensor) -> RequestError:
    kind = str(labels.dtype).removeprefix("torch.")
    return RequestError(
        f"labels must be int64 indices {tuple(logits.shape[:-1])}, or one-hot {tuple(logits.shape)} of a "
        f"floating-point type, not {kind} {tuple(labels.shape)}"
    )


def _one_hot(
    logits: Tensor, targets: Tensor, gamma: float, alpha: float | Tensor | None, weights: Tensor | None
) -> Tensor:
    """(..., K), for targets (..., K) from 0 to 1."""
    if logits.shape != targets.shape:
        raise _wrong(logits, targets)
    positive, negative = term_weights(alpha, weights, logits)
    x = logits if logits.dtype == torch.float64 else logits.float()
    y = targets.to(x.dtype)
    # log(p) = -softplus(-x), and log(1 - p) = -softplus(x), without the rounding of p near 0 and 1.
    log_terms = [F.softplus(signed, threshold=SOFTPLUS_LINEAR) for signed in (-x, x)]
    cross_entropy = y * log_terms[0] + (1 - y) * log_terms[1]
    miss = y * (-x).sigmoid() + (1 - y) * x.sigmoid()  # 1 - p_t
    loss = cross_entropy if gamma == 0 else cross_entropy * miss**gamma
    return (positive * y + negative * (1 - y)) * loss
