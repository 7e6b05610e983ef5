"""The focal loss (section 3), with cross entropy and balanced cross entropy as its special cases.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)

gamma = 0 leaves balanced cross entropy, alpha = None (both weights 1) cross entropy.

:func:`sigmoid_focal_loss_reference` is this formula. :func:`sigmoid_focal_loss` gives the same numbers faster:

- :mod:`retinanet.losses.focal_cpu` on CPUs,
- :mod:`retinanet.losses.focal_triton` on GPUs that Triton can compile for,
- :mod:`retinanet.losses.focal_dense` on other devices, and for weights per class;
- :mod:`retinanet.losses.focal_reductions` for one-hot labels, and without a sum.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.common import threads
from retinanet.common.arguments import real
from retinanet.common.errors import RequestError, first_line
from retinanet.losses.class_weights import term_weights
from retinanet.losses.focal_cpu import FocalLossWithGradient, sliced_loss
from retinanet.losses.focal_dense import dense_loss
from retinanet.losses.focal_reductions import Reduction, reduced_loss, require_shape
from retinanet.ops.iou_assigner import IGNORED


def sigmoid_focal_loss_reference(
    logits: Tensor,
    labels: Tensor,
    gamma: float = 2.0,
    alpha: float | Tensor | None = 0.25,
    weights: Tensor | None = None,
) -> Tensor:
    """The focal loss by its formula; arguments and result as of :func:`sigmoid_focal_loss`, in the logits' dtype."""
    logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]  # (n, K), (n,)
    is_positive = F.one_hot(labels + 1, logits.shape[-1] + 1)[..., 1:].bool()  # (n, K), all False for background
    x_t = torch.where(is_positive, logits, -logits)
    alpha_t = torch.ones_like(x_t)
    if alpha is not None:
        alpha_t = torch.where(is_positive, alpha_t * alpha, alpha_t * (1 - alpha))
    if weights is not None:
        alpha_t = alpha_t * weights
    # sigmoid(-x_t) is 1 - p_t, and logsigmoid(x_t) is log(p_t), without the rounding of p_t near 1.
    return (-alpha_t * torch.sigmoid(-x_t) ** gamma * F.logsigmoid(x_t)).sum()


def sigmoid_focal_loss(
    logits: Tensor,
    labels: Tensor,
    gamma: float = 2.0,
    alpha: float | Tensor | None = 0.25,
    weights: Tensor | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """Focal loss of anchors and classes, summed; divide it by the number of positive anchors.

        loss = sigmoid_focal_loss(logits, labels) / (labels >= 0).sum().clamp(min=1)

    Index labels with the reduction "sum" are the fast way. One-hot labels and other reductions are for code written for
    :func:`torchvision.ops.sigmoid_focal_loss`, whose defaults are one-hot and "none".

    Args:
        logits: (..., K) float32, bfloat16, float16 or float64, one sigmoid per class.
        labels: (...) int64: the class from 0 to K - 1, -1 for background, -2 for anchors that take no part. Or one-hot,
            (..., K) of a floating-point type: 1 for the class, 0 for others, all 0 for background.
        gamma: focusing parameter, 0 or more.
        alpha: weight of the positive term, 1 - alpha that of the negative; None weighs both with 1. A tensor (K,) has
            one for each class.
        weights: (K,), a factor for both terms of each class. No gradient reaches it or ``alpha``.
        reduction: "sum"; "mean" over the classes of all anchors that take part; or "none".

    Returns:
        () float32 (float64 for float64 logits); with "none" (..., K), 0 for anchors that take no part. Exact and
        finite, with exact gradients, for logits up to +-100.

    Raises:
        ValueError: where the shapes do not fit, gamma or alpha is out of range, or a label is out of range
            (labels are checked on CPUs only).

    Example:
        >>> logits = torch.tensor([[2.0, -3.0], [-4.0, -4.0], [0.0, 0.0]])  # of three anchors, for two classes
        >>> labels = torch.tensor([0, -1, -2])  # the first class, background, takes no part
        >>> round(sigmoid_focal_loss(logits, labels).item(), 6)
        0.000542
    """
    gamma = real("gamma", gamma)
    if not 0 <= gamma < math.inf:
        raise RequestError(f"gamma must be 0 or more, not {gamma:g}")
    if labels.is_floating_point() or reduction != "sum":
        return reduced_loss(logits, labels, gamma, alpha, weights, reduction)
    require_shape(logits, labels)
    rows = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    positive, negative = term_weights(alpha, weights, logits)
    by_class = isinstance(positive, Tensor)  # the kernels know one alpha only
    on_gpu = logits.device.type == "cuda" and logits.dtype != torch.float64 and not by_class
    if on_gpu and (kernels := _kernels(logits.device)):
        fused: Tensor = kernels.apply(*rows, gamma, alpha)
        return fused
    compute = dense_loss if threads.asynchronous(logits.device) else sliced_loss
    result: Tensor = FocalLossWithGradient.apply(compute, *rows, gamma, positive, negative, torch.is_grad_enabled())
    return result


@lru_cache
def _kernels(device: torch.device) -> Any:
    """The loss as GPU kernels; None where Triton is missing, has no C compiler, or does not know the GPU."""
    try:
        from retinanet.losses.focal_triton import FocalLoss

        FocalLoss.apply(torch.zeros((1, 1), device=device), torch.zeros(1, dtype=torch.int64, device=device), 2.0, 0.25)
    except Exception as error:
        reason = first_line(error)
        warnings.warn(f"the focal loss runs without its GPU kernels, which is slower: {reason}", stacklevel=2)
        return None
    return FocalLoss
