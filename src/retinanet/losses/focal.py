"""The focal loss (section 3), with cross entropy and balanced cross entropy as its special cases.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)

gamma = 0 leaves balanced cross entropy, alpha = None (both weights 1) cross entropy.

Of 100 000 anchors some ten are positive, so nearly every logit is a background logit. The targets are therefore class
indices, never one-hot; each slice of the logits is read once, and its gradient is written in the same pass. Nothing
else of the logits' size is kept.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from retinanet.common import threads
from retinanet.common.arguments import real
from retinanet.common.errors import RequestError, first_line
from retinanet.common.threads import alone, map_slices
from retinanet.losses.class_weights import term_weights
from retinanet.losses.pointwise import SOFTPLUS_LINEAR, require_labels
from retinanet.ops.iou_assigner import IGNORED

# Logits per slice on a CPU: its handful of temporaries stay in a core's caches, and few calls are needed.
SLICE = 1 << 17

# Below this probability 1 - p is exact enough for its logarithm: it has lost at most 6 of 24 bits.
QUICK = 0.98


def sigmoid_focal_loss(
    logits: Tensor,
    labels: Tensor,
    gamma: float = 2.0,
    alpha: float | Tensor | None = 0.25,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum of the focal loss over all anchors and classes; divide it by the number of positive anchors.

    Args:
        logits: (..., K) float32, bfloat16, float16 or float64, one sigmoid per class.
        labels: (...) int64: the class from 0 to K - 1, -1 for background, -2 for anchors that take no part.
        gamma: focusing parameter, 0 or more.
        alpha: weight of the positive term, 1 - alpha that of the negative; None weighs both with 1. A tensor (K,) has
            one for each class.
        weights: (K,), a factor for both terms of each class. No gradient reaches it or ``alpha``.

    Returns:
        () float32 (float64 for float64 logits). Exact and finite, with exact gradients, for logits up to +-100.

    Raises:
        ValueError: where the shapes do not fit, gamma or alpha is out of range, or a label is (which is looked for on
            CPUs alone).
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need labels {tuple(logits.shape[:-1])}, not {tuple(labels.shape)}"
        )
    gamma = real("gamma", gamma)
    if not 0 <= gamma < math.inf:
        raise RequestError(f"gamma must be 0 or more, not {gamma:g}")
    rows = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    positive, negative = term_weights(alpha, weights, logits)
    by_class = isinstance(positive, Tensor)  # the kernels know one alpha only
    on_gpu = logits.device.type == "cuda" and logits.dtype != torch.float64 and not by_class
    if on_gpu and (kernels := _kernels(logits.device)):
        fused: Tensor = kernels.apply(*rows, float(gamma), alpha)
        return fused
    result: Tensor = _FocalLoss.apply(*rows, float(gamma), positive, negative, torch.is_grad_enabled())
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


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        gamma: float,
        positive_weight: float | Tensor,
        negative_weight: float | Tensor,
        grad_enabled: bool,
    ) -> Tensor:
        with alone(labels.device):
            require_labels(labels, logits.shape[1])
        constants = gamma, positive_weight, negative_weight
        total, ctx.grad = _loss(logits, labels, grad_enabled and ctx.needs_input_grad[0], *constants)
        if ctx.grad is not None:
            ctx.save_for_backward(logits, labels)
            ctx.constants = constants
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        logits, labels = ctx.saved_tensors
        # The first call gives the gradient away; only where the graph is kept for another is it computed again.
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            grad = _loss(logits, labels, True, *ctx.constants)[1]
            assert grad is not None, "it was asked for"
        factor = upstream.to(grad.dtype)
        with alone(grad.device) as workers:
            map_slices(lambda part: part.mul_(factor), grad.split(_rows(grad)), workers)
        return grad.to(logits.dtype), None, None, None, None, None


def _loss(
    logits: Tensor,
    labels: Tensor,
    needs_grad: bool,
    gamma: float,
    positive_weight: float | Tensor,
    negative_weight: float | Tensor,
) -> tuple[Tensor, Tensor | None]:
    """The loss of logits (N, K) with labels (N,), and its gradient (N, K); weights are numbers or both (K,)."""
    if (
        isinstance(positive_weight, Tensor)
        and isinstance(negative_weight, Tensor)
        and threads.asynchronous(logits.device)
    ):
        return _unasked_loss(logits, labels, needs_grad, gamma, positive_weight, negative_weight)
    rows, classes = logits.shape
    wide, kept = _types(logits)
    grad = torch.empty((rows, classes), dtype=kept, device=logits.device) if needs_grad else None
    step = _rows(logits)
    starts = range(0, rows, step)
    with alone(logits.device) as workers:
        positive, ignored = (labels >= 0).nonzero()[:, 0], (labels == IGNORED).nonzero()[:, 0]
        classes_of = labels[positive]

        def background(cut: tuple[int, tuple[int, int], tuple[int, int]]) -> Tensor:
            start, (p0, p1), (i0, i1) = cut
            part = slice(start, start + step)
            left_out = ignored[i0:i1] - start, positive[p0:p1] - start, classes_of[p0:p1]
            x = logits[part].to(wide).contiguous()
            return _background(x, left_out, gamma, negative_weight, None if grad is None else grad[part])

        cuts = list(zip(starts, _cut(positive, starts), _cut(ignored, starts), strict=True))
        losses = map_slices(background, cuts, workers)
        if isinstance(positive_weight, Tensor):
            positive_weight = positive_weight[classes_of]
        loss, slope = _positive(logits[positive, classes_of].to(wide), gamma, positive_weight)
        if grad is not None:
            grad[positive, classes_of] = slope.to(kept)
        exact = torch.float64 if logits.device.type != "mps" else wide
        return torch.stack([*losses, loss]).sum(dtype=exact).to(wide), grad


def _unasked_loss(
    logits: Tensor, labels: Tensor, needs_grad: bool, gamma: float, positive_weight: Tensor, negative_weight: Tensor
) -> tuple[Tensor, Tensor | None]:
    """As :func:`_loss` for weights (K,), without asking the device which rows are positive or ignored.

    Of every row one entry is treated as the positive one; for rows that have none it counts nothing.
    """
    wide, kept = _types(logits)
    own, has_own = labels.clamp(min=0)[:, None], (labels >= 0)[:, None]  # (N, 1)
    ignored = (labels == IGNORED)[:, None]
    x = logits.to(wide).masked_fill(ignored, 0)
    p, log_pt = torch.sigmoid(x), F.logsigmoid(-x)
    modulation = _power(p, gamma).mul_(negative_weight).masked_fill_(ignored, 0)
    modulation.scatter_(1, own, modulation.gather(1, own).masked_fill_(has_own, 0))
    loss, slope = _positive(x.gather(1, own), gamma, positive_weight[own] * has_own)
    total = loss - torch.mul(modulation, log_pt, out=x).sum()
    if not needs_grad:
        return total, None
    grad = torch.addcmul(log_pt, p, log_pt, value=-1, out=log_pt).mul_(-gamma).add_(p).mul_(modulation)
    grad.scatter_(1, own, torch.where(has_own, slope, grad.gather(1, own)))
    return total, grad.to(kept)


def _rows(logits: Tensor) -> int:
    """How many rows of (N, K) make a slice."""
    rows, classes = logits.shape
    return max(1, SLICE // classes if logits.device.type == "cpu" else rows)


def _types(logits: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """What the loss is computed in, and what its gradient is kept in."""
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    # float16 would lose the gradients of easy background (1e-9) before the loss scale can lift them into its range.
    return wide, wide if logits.dtype == torch.float16 else logits.dtype


def _positive(x: Tensor, gamma: float, weight: float | Tensor) -> tuple[Tensor, Tensor]:
    """The entries with y = 1, where p_t = p: the sum of weight (1 - p)^gamma softplus(-x), and its gradient, as x."""
    q, ce = torch.sigmoid(-x), F.softplus(-x, threshold=SOFTPLUS_LINEAR)
    modulation = _power(q, gamma)
    loss = (weight * modulation * ce).sum() if isinstance(weight, Tensor) else weight * (modulation * ce).sum()
    # d/dx = -(1 - p)^gamma (gamma p softplus(-x) + (1 - p))
    return loss, -weight * modulation * (gamma * (1 - q) * ce + q)


def _cut(places: Tensor, starts: range) -> list[tuple[int, int]]:
    """For each slice of rows, from where to where in the ascending ``places`` its own lie."""
    edges = torch.searchsorted(places, torch.tensor([*starts, starts.stop], device=places.device)).tolist()
    return list(pairwise(edges))


def _background(
    x: Tensor, left_out: tuple[Tensor, Tensor, Tensor], gamma: float, weight: float | Tensor, grad: Tensor | None
) -> Tensor:
    """Sum of -weight * p^gamma log(1 - p): the loss where y = 0 and p_t = 1 - p.

    Args:
        x: (n, K) float32 or float64, logits.
        left_out: what counts for nothing here: ignored rows (i,), and rows (j,) with the class (j,) they are positive
            for.
        weight: a number, or (K,).
        grad: (n, K), where the gradient is written.
    """
    p = torch.sigmoid(x)
    # log(p_t) = log(1 - p): this way in half the time, and as exact unless p is close to 1.
    quick = x.device.type == "cpu" and x.numel() > 0 and float(p.amax()) < QUICK
    log_pt = torch.log1p(-p) if quick else F.logsigmoid(-x)
    ignored, positive, classes_of = left_out
    for tensor in (p, log_pt):  # most slices are all background
        if len(ignored):
            tensor[ignored] = 0
        if len(positive):
            tensor[positive, classes_of] = 0
    modulation = _power(p, gamma)
    if isinstance(weight, Tensor):
        modulation, weight = modulation.mul_(weight), 1.0
    # The product of two vectors is one pass without a temporary; it is limited to 2^31 entries.
    total = torch.dot(modulation.view(-1), log_pt.view(-1)) if x.device.type == "cpu" else (modulation * log_pt).sum()
    if grad is not None:
        # d/dx = p^gamma (p - gamma (1 - p) log(1 - p))
        slope = torch.addcmul(log_pt, p, log_pt, value=-1, out=log_pt).mul_(-gamma * weight).add_(p, alpha=weight)
        if grad.dtype == slope.dtype:
            torch.mul(modulation, slope, out=grad)
        else:
            grad.copy_(modulation.mul_(slope))
    return -weight * total


def _power(p: Tensor, gamma: float) -> Tensor:
    """p ** gamma, without the transcendental function where gamma is 0, 1 or 2."""
    if gamma == 0:
        return torch.ones_like(p)
    if gamma == 1:
        return p.clone()
    return p * p if gamma == 2 else p.pow(gamma)
