"""The focal loss (section 3), with cross entropy and balanced cross entropy as its special cases.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)

gamma = 0 leaves balanced cross entropy, alpha = None (both weights 1) cross entropy.

Of 100 000 anchors some ten are positive, so nearly every logit is a background logit. The targets are therefore class
indices, never one-hot; each slice of the logits is read once, and its gradient is written in the same pass. Nothing
else of the logits' size is kept.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from retinanet.errors import first_line
from retinanet.losses.pointwise import SOFTPLUS_LINEAR
from retinanet.matching import IGNORED

# Logits per slice on a CPU: its handful of temporaries stay in the caches of two cores, and few calls are needed.
SLICE = 1 << 17

# Below this probability 1 - p is exact enough for its logarithm: it has lost at most 6 of 24 bits.
QUICK = 0.98


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float | None = 0.25) -> Tensor:
    """Sum of the focal loss over all anchors and classes; divide it by the number of positive anchors.

    Args:
        logits: (..., K) float32, bfloat16, float16 or float64, one sigmoid per class.
        labels: (...) int64: the class from 0 to K - 1, -1 for background, -2 for anchors that take no part.
        gamma: focusing parameter, 0 or more.
        alpha: weight of the positive term, 1 - alpha that of the negative; None weighs both with 1.

    Returns:
        () float32 (float64 for float64 logits). Exact and finite, with exact gradients, for logits up to +-100.

    Raises:
        ValueError: where the shapes do not fit or a label is out of range (which is looked for on processors alone).
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need labels {tuple(logits.shape[:-1])}, not {tuple(labels.shape)}"
        )
    if gamma < 0:
        raise ValueError(f"gamma must be 0 or more, not {gamma}")
    rows = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    if logits.device.type == "cuda" and logits.dtype != torch.float64 and (kernels := _kernels(logits.device)):
        fused: Tensor = kernels.apply(*rows, float(gamma), alpha)
        return fused
    result: Tensor = _FocalLoss.apply(*rows, float(gamma), alpha, torch.is_grad_enabled())
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
        ctx: Any, logits: Tensor, labels: Tensor, gamma: float, alpha: float | None, grad_enabled: bool
    ) -> Tensor:
        if labels.device.type == "cpu" and labels.numel():
            low, high = int(labels.min()), int(labels.max())  # on an accelerator this look would be a synchronisation
            if low < IGNORED or high >= logits.shape[1]:
                raise ValueError(f"labels must be from -2 to {logits.shape[1] - 1}, found {low} to {high}")
        total, ctx.grad = _loss(logits, labels, gamma, alpha, grad_enabled and ctx.needs_input_grad[0])
        if ctx.grad is not None:
            ctx.save_for_backward(logits, labels)
            ctx.constants = gamma, alpha
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels = ctx.saved_tensors
        # The first call gives the gradient away; only where the graph is kept for another is it computed again.
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            gamma, alpha = ctx.constants
            grad = _loss(logits, labels, gamma, alpha, True)[1]
            assert grad is not None, "it was asked for"
        return grad.mul_(upstream.to(grad.dtype)).to(logits.dtype), None, None, None, None


def _loss(
    logits: Tensor, labels: Tensor, gamma: float, alpha: float | None, needs_grad: bool
) -> tuple[Tensor, Tensor | None]:
    """The loss of logits (N, K) with labels (N,), and its gradient (N, K)."""
    rows, classes = logits.shape
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    # float16 would lose the gradients of easy background (1e-9) before the loss scale can lift them into its range.
    kept = wide if logits.dtype == torch.float16 else logits.dtype
    grad = torch.empty((rows, classes), dtype=kept, device=logits.device) if needs_grad else None
    total = torch.zeros((), dtype=torch.float64 if logits.device.type != "mps" else wide, device=logits.device)
    positive_weight, negative_weight = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    positive, ignored = (labels >= 0).nonzero()[:, 0], (labels == IGNORED).nonzero()[:, 0]
    classes_of = labels[positive]
    step = max(1, SLICE // classes) if logits.device.type == "cpu" else max(1, rows)
    starts = range(0, rows, step)
    for start, (p0, p1), (i0, i1) in zip(starts, _cut(positive, starts), _cut(ignored, starts), strict=True):
        part = slice(start, start + step)
        left_out = ignored[i0:i1] - start, positive[p0:p1] - start, classes_of[p0:p1]
        x = logits[part].to(wide).contiguous()
        total += _background(x, left_out, gamma, negative_weight, None if grad is None else grad[part])

    # The positive entries, y = 1, where p_t = p:  (1 - p)^gamma softplus(-x)
    x = logits[positive, classes_of].to(wide)
    q, ce = torch.sigmoid(-x), F.softplus(-x, threshold=SOFTPLUS_LINEAR)
    modulation = _power(q, gamma)
    total += positive_weight * (modulation * ce).sum()
    if grad is not None:
        # d/dx = -(1 - p)^gamma (gamma p softplus(-x) + (1 - p))
        slope = -positive_weight * modulation * (gamma * (1 - q) * ce + q)
        grad[positive, classes_of] = slope.to(kept)
    return total.to(wide), grad


def _cut(places: Tensor, starts: range) -> list[tuple[int, int]]:
    """For each slice of rows, from where to where in the ascending ``places`` its own lie."""
    edges = torch.searchsorted(places, torch.tensor([*starts, starts.stop], device=places.device)).tolist()
    return list(pairwise(edges))


def _background(
    x: Tensor, left_out: tuple[Tensor, Tensor, Tensor], gamma: float, weight: float, grad: Tensor | None
) -> Tensor:
    """Sum of -weight * p^gamma log(1 - p): the loss where y = 0 and p_t = 1 - p.

    Args:
        x: (n, K) float32 or float64, logits.
        left_out: what counts for nothing here: ignored rows (i,), and rows (j,) with the class (j,) they are positive
            for.
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
