"""The paper's losses of one example, as functions of x_t = y x: the logit, with its sign turned for background.

p_t = sigmoid(x_t) is the probability of the right answer. These are the plain formulas: the figures draw them, hard
example mining ranks by them. Training sums the focal loss of millions of entries by :mod:`retinanet.losses.focal`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.common import threads
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings
from retinanet.losses.class_weights import term_weights
from retinanet.ops.iou_assigner import IGNORED

# exp(-80) is the smallest that still adds something in float32; beyond it softplus(x) = x exactly.
SOFTPLUS_LINEAR = 80.0

Pointwise = Callable[[Tensor], Tensor]


def focal(x_t: Tensor, gamma: float = 2.0) -> Tensor:
    """(1 - p_t)^gamma (-log p_t) (equation 4); gamma = 0 is cross entropy. Any shape, floating point."""
    ce = F.softplus(-x_t, threshold=SOFTPLUS_LINEAR)
    return ce if gamma == 0 else torch.sigmoid(-x_t) ** gamma * ce


def focal_star(x_t: Tensor, gamma: float = 2.0, beta: float = 1.0) -> Tensor:
    """FL* = -log(sigmoid(gamma x_t + beta)) / gamma (appendix A, equations 9 and 10). gamma is above 0."""
    return F.softplus(-(gamma * x_t + beta), threshold=SOFTPLUS_LINEAR) / gamma


def hinge(x_t: Tensor, margin: float = 0.5) -> Tensor:
    """max(0, margin - p_t): 0 where the right answer has at least the probability ``margin`` (section 5.1)."""
    return torch.relu(margin - torch.sigmoid(x_t))


def pointwise_loss(settings: LossSettings) -> Pointwise:
    """The function of x_t that ``settings`` name, without alpha."""
    functions = {
        "focal": partial(focal, gamma=settings.gamma),
        "focal_star": partial(focal_star, gamma=settings.gamma, beta=settings.star_beta),
        "hinge": partial(hinge, margin=settings.margin),
    }
    return functions[settings.kind]


def require_labels(labels: Tensor, classes: int) -> None:
    """Check labels on a CPU; on a GPU the CPU would have to wait for the result.

    Raises:
        RequestError: they are not int64, or not all from -2 to ``classes`` - 1.
    """
    if labels.dtype != torch.int64:
        raise RequestError(f"labels must be int64, not {str(labels.dtype).removeprefix('torch.')}")
    if labels.numel() and not threads.asynchronous(labels.device):
        low, high = int(labels.min()), int(labels.max())
        if low < IGNORED or high >= classes:
            raise RequestError(f"labels must be from {IGNORED} to {classes - 1}, found {low} to {high}")


def positive_pairs(labels: Tensor, classes: int) -> Tensor:
    """Whether each (anchor, class) pair is positive, y = 1: labels (...) int64 -> (..., classes) bool."""
    positive = torch.zeros((*labels.shape, classes), dtype=torch.bool, device=labels.device)
    return positive.scatter_(-1, labels.clamp(min=0)[..., None], (labels >= 0)[..., None])


def entries(
    logits: Tensor, labels: Tensor, loss: Pointwise, alpha: float | Tensor | None, weights: Tensor | None = None
) -> Tensor:
    """The loss of every anchor and class, alpha_t loss(x_t).

    Args:
        logits: (..., K). labels: (...) int64, the class, -1 for background, -2 for anchors that take no part.
        alpha, weights: as in :class:`retinanet.losses.ClassBalance`.

    Returns:
        (..., K) float32 (float64 for float64 logits), 0 for anchors that take no part.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    require_labels(labels, x.shape[-1])
    is_positive = positive_pairs(labels, x.shape[-1])
    positive, negative = term_weights(alpha, weights, x)
    weight = torch.where(is_positive, positive, negative).to(x.dtype)
    weight = weight.masked_fill((labels == IGNORED)[..., None], 0)
    return weight * loss(torch.where(is_positive, x, -x))
