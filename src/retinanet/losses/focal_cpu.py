"""The focal loss on CPUs, with its gradient in the same pass over the logits.

Of 100 000 anchors some ten are positive, so nearly every logit is a background logit. The background term is summed
over every logit, slice by slice, without one-hot targets. Then the few positive entries are corrected. The logits are
read once, and nothing of their size is made but the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from retinanet.common.threads import map_slices, one_thread_each
from retinanet.losses.pointwise import SOFTPLUS_LINEAR, require_labels
from retinanet.ops.iou_assigner import IGNORED

# Logits per slice: the handful of temporaries stays in a core's caches, and few calls are needed.
SLICE = 1 << 17

# Below this probability, 1 - p keeps at least 18 of its 24 bits, which is enough for its logarithm.
EXACT_BELOW = 0.98

Weight = float | Tensor
Compute = Callable[[Tensor, Tensor, float, Weight, Weight, bool], tuple[Tensor, Tensor | None]]
"""(logits (N, K), labels (N,), gamma, weight of positive and of negative terms: a number or (K,), whether a gradient is
needed) -> loss (), gradient (N, K)."""


class FocalLossWithGradient(torch.autograd.Function):
    """The loss as ``compute`` gives it, which gives the gradient at the same time."""

    @staticmethod
    def forward(
        ctx: Any,
        compute: Compute,
        logits: Tensor,
        labels: Tensor,
        gamma: float,
        positive_weight: Weight,
        negative_weight: Weight,
        grad_enabled: bool,
    ) -> Tensor:
        with one_thread_each(labels.device):
            require_labels(labels, logits.shape[1])
        constants = gamma, positive_weight, negative_weight
        total, ctx.grad = compute(logits, labels, *constants, grad_enabled and ctx.needs_input_grad[1])
        if ctx.grad is not None:
            ctx.save_for_backward(logits, labels)
            ctx.compute, ctx.constants = compute, constants
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        # The stored gradient is scaled in place, so it serves once. A second call (retain_graph) computes it again.
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            grad = ctx.compute(logits, labels, *ctx.constants, True)[1]
        factor = upstream.to(grad.dtype)
        with one_thread_each(grad.device) as workers:
            map_slices(lambda rows: rows.mul_(factor), grad.split(rows_per_slice(grad)), workers)
        return None, grad.to(logits.dtype), None, None, None, None, None


def sliced_loss(
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    positive_weight: Weight,
    negative_weight: Weight,
    needs_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Loss and gradient on a CPU; a :data:`Compute`."""
    wide, kept = compute_types(logits)
    grad = torch.empty(logits.shape, dtype=kept) if needs_grad else None
    step = rows_per_slice(logits)
    starts = range(0, len(logits), step)
    with one_thread_each() as workers:
        positive, ignored = (labels >= 0).nonzero()[:, 0], (labels == IGNORED).nonzero()[:, 0]
        classes = labels[positive]

        def background(bounds: tuple[int, tuple[int, int], tuple[int, int]]) -> Tensor:
            start, (first, last), (first_ignored, last_ignored) = bounds
            rows = slice(start, start + step)
            left_out = ignored[first_ignored:last_ignored] - start, positive[first:last] - start, classes[first:last]
            x = logits[rows].to(wide).contiguous()
            return _background(x, left_out, gamma, negative_weight, None if grad is None else grad[rows])

        bounds = list(zip(starts, _in_slices(positive, starts), _in_slices(ignored, starts), strict=True))
        losses = map_slices(background, bounds, workers)
        weight = positive_weight[classes] if isinstance(positive_weight, Tensor) else positive_weight
        loss, slope = positive_terms(logits[positive, classes].to(wide), gamma, weight)
        if grad is not None:
            grad[positive, classes] = slope.to(kept)
        return torch.stack([*losses, loss]).sum(dtype=torch.float64).to(wide), grad


def rows_per_slice(logits: Tensor) -> int:
    """How many rows of (N, K) make a slice; other devices than CPUs take all at once."""
    rows, classes = logits.shape
    return max(1, SLICE // classes if logits.device.type == "cpu" else rows)


def compute_types(logits: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes in which the loss is computed, and in which its gradient is kept."""
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    # float16 would lose the gradients of easy background (1e-9) before the loss scale can lift them into its range.
    return wide, wide if logits.dtype == torch.float16 else logits.dtype


def _in_slices(indices: Tensor, starts: range) -> list[tuple[int, int]]:
    """For each slice of rows, the range of the ascending ``indices`` that lies in it."""
    edges = torch.searchsorted(indices, torch.tensor([*starts, starts.stop])).tolist()
    return list(pairwise(edges))


def _background(
    x: Tensor, left_out: tuple[Tensor, Tensor, Tensor], gamma: float, weight: Weight, grad: Tensor | None
) -> Tensor:
    """Sum of -weight * p^gamma log(1 - p): the loss where y = 0 and p_t = 1 - p.

    Args:
        x: (n, K) float32 or float64, logits.
        left_out: entries that count as 0: ignored rows (i,), and rows (j,) with the class (j,) that they are positive
            for.
        weight: a number, or (K,).
        grad: (n, K), where the gradient is written.
    """
    p = torch.sigmoid(x)
    # log(p_t) = log(1 - p): this way in half the time, and as exact unless p is close to 1.
    quick = x.numel() > 0 and float(p.amax()) < EXACT_BELOW
    log_pt = torch.log1p(-p) if quick else F.logsigmoid(-x)
    ignored, positive, classes = left_out
    for tensor in (p, log_pt):  # most slices are all background
        if len(ignored):
            tensor[ignored] = 0
        if len(positive):
            tensor[positive, classes] = 0
    modulation = power(p, gamma)
    if isinstance(weight, Tensor):
        modulation, weight = modulation.mul_(weight), 1.0
    # The product of two vectors is one pass without a temporary; it is limited to 2^31 entries.
    total = torch.dot(modulation.view(-1), log_pt.view(-1))
    if grad is not None:
        # d/dx = p^gamma (p - gamma (1 - p) log(1 - p))
        slope = torch.addcmul(log_pt, p, log_pt, value=-1, out=log_pt).mul_(-gamma * weight).add_(p, alpha=weight)
        if grad.dtype == slope.dtype:
            torch.mul(modulation, slope, out=grad)
        else:
            grad.copy_(modulation.mul_(slope))
    return -weight * total


def positive_terms(x: Tensor, gamma: float, weight: Weight) -> tuple[Tensor, Tensor]:
    """Sum of weight (1 - p)^gamma softplus(-x), the loss where y = 1 and p_t = p, and its gradient, shaped as x."""
    q, ce = torch.sigmoid(-x), F.softplus(-x, threshold=SOFTPLUS_LINEAR)
    modulation = power(q, gamma)
    loss = (weight * modulation * ce).sum() if isinstance(weight, Tensor) else weight * (modulation * ce).sum()
    # d/dx = -(1 - p)^gamma (gamma p softplus(-x) + (1 - p))
    return loss, -weight * modulation * (gamma * (1 - q) * ce + q)


def power(p: Tensor, gamma: float) -> Tensor:
    """p ** gamma, without the transcendental function where gamma is 0, 1 or 2."""
    if gamma == 0:
        return torch.ones_like(p)
    if gamma == 1:
        return p.clone()
    return p * p if gamma == 2 else p.pow(gamma)
