"""The focal loss (section 3), with cross entropy and balanced cross entropy as its special cases.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)

gamma = 0 leaves balanced cross entropy, alpha = None (both weights 1) cross entropy.

Of 100 000 anchors some ten are positive, so nearly every logit is a background logit. The targets are therefore class
indices, never one-hot; each slice of the logits is read once, and its gradient is written in the same pass. Nothing
else of the logits' size is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BACKGROUND = -1
IGNORED = -2

# Logits per slice on a CPU: the handful of temporaries of one slice stay in its cache.
SLICE = 1 << 17

# exp(-80) is the smallest that still adds something in float32; beyond it softplus(x) = x exactly.
SOFTPLUS_LINEAR = 80.0


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
        ValueError: where the shapes do not fit or a label is out of range.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need labels {tuple(logits.shape[:-1])}, not {tuple(labels.shape)}"
        )
    if gamma < 0:
        raise ValueError(f"gamma must be 0 or more, not {gamma}")
    result: Tensor = _FocalLoss.apply(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), float(gamma), alpha, torch.is_grad_enabled()
    )
    return result


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, gamma: float, alpha: float | None, grad_enabled: bool
    ) -> Tensor:
        rows, classes = logits.shape
        wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
        if labels.device.type == "cpu" and labels.numel():
            low, high = int(labels.min()), int(labels.max())  # on an accelerator this look would be a synchronisation
            if low < IGNORED or high >= classes:
                raise ValueError(f"labels must be from -2 to {classes - 1}, found {low} to {high}")
        needs_grad = grad_enabled and ctx.needs_input_grad[0]
        # float16 would lose the gradients of easy background (1e-9) before the loss scale can lift them into its range.
        kept = wide if logits.dtype == torch.float16 else logits.dtype
        grad = torch.empty_like(logits, dtype=kept) if needs_grad else None
        total = torch.zeros((), dtype=torch.float64 if logits.device.type != "mps" else wide, device=logits.device)
        step = max(1, SLICE // classes) if logits.device.type == "cpu" else max(rows, 1)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            loss, slope = _slice_loss(logits[part].to(wide), labels[part], gamma, alpha, needs_grad)
            total += loss
            if grad is not None and slope is not None:
                grad[part] = slope
        if grad is not None:
            ctx.save_for_backward(grad)
            ctx.dtype = logits.dtype
        return total.to(wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * upstream.to(grad.dtype)).to(ctx.dtype), None, None, None, None


def _slice_loss(
    x: Tensor, labels: Tensor, gamma: float, alpha: float | None, needs_grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss sum and its gradient (n, K) for a slice of logits x (n, K) with labels (n,)."""
    positive = labels >= 0
    column = labels.clamp(min=0)[:, None]  # (n, 1): the class of a positive row, any for the others
    x_positive = x.gather(1, column)
    weight_positive, weight_negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    # Every entry as background, y = 0, where p_t = 1 - p:  p^gamma softplus(x)
    p, ce = torch.sigmoid(x), F.softplus(x, threshold=SOFTPLUS_LINEAR)
    modulation = _power(p, gamma)
    background = modulation * ce
    if needs_grad:
        # d/dx = p^gamma (gamma (1 - p) softplus(x) + p)
        slope = modulation * p if gamma == 0 else modulation.mul_(p + (1 - p).mul_(ce).mul_(gamma))
        slope *= weight_negative
    else:
        slope = None
    # A positive row's own class is no background, an ignored row nothing at all.
    background.scatter_(1, column, background.gather(1, column).masked_fill_(positive[:, None], 0))
    ignored = (labels == IGNORED)[:, None]
    background.masked_fill_(ignored, 0)
    total = background.sum(dtype=torch.float64 if x.device.type != "mps" else None) * weight_negative

    # The positive entries, y = 1, where p_t = p:  (1 - p)^gamma softplus(-x)
    q, ce_positive = torch.sigmoid(-x_positive), F.softplus(-x_positive, threshold=SOFTPLUS_LINEAR)
    modulation_positive = _power(q, gamma)
    total = total + ((modulation_positive * ce_positive).masked_fill_(~positive[:, None], 0)).sum() * weight_positive
    if slope is not None:
        # d/dx = -(1 - p)^gamma (gamma p softplus(-x) + (1 - p))
        slope_positive = -weight_positive * modulation_positive * (gamma * (1 - q) * ce_positive + q)
        slope.scatter_(1, column, torch.where(positive[:, None], slope_positive, slope.gather(1, column)))
        slope.masked_fill_(ignored, 0)
    return total, slope


def _power(p: Tensor, gamma: float) -> Tensor:
    """p ** gamma, without the transcendental function where gamma is 0, 1 or 2."""
    if gamma == 0:
        return torch.ones_like(p)
    if gamma == 1:
        return p.clone()
    return p * p if gamma == 2 else p.pow(gamma)
