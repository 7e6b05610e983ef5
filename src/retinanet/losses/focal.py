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

# sigmoid and softplus of it are 0, whatever the type.
FAR_BELOW = -1e4


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
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(f"the focal loss runs without its GPU kernels, which is slower: {reason}", stacklevel=2)
        return None
    return FocalLoss


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
        # float16 would lose the gradients of easy background (1e-9) before the loss scale can lift them into its range.
        kept = wide if logits.dtype == torch.float16 else logits.dtype
        grad = torch.empty_like(logits, dtype=kept) if grad_enabled and ctx.needs_input_grad[0] else None
        positive_weight, negative_weight = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

        # Every entry as background; but a positive row's own class is none, nor is anything of an ignored row.
        total = torch.zeros((), dtype=torch.float64 if logits.device.type != "mps" else wide, device=logits.device)
        step = max(1, SLICE // classes) if logits.device.type == "cpu" else max(1, rows)
        for start in range(0, rows, step):
            part, some = slice(start, start + step), labels[start : start + step]
            x = logits[part].to(wide, memory_format=torch.contiguous_format, copy=True)
            x[some == IGNORED] = FAR_BELOW
            positive = (some >= 0).nonzero()[:, 0]
            x[positive, some[positive]] = FAR_BELOW
            total += _background(x, gamma, negative_weight, None if grad is None else grad[part])

        # The positive entries, y = 1, where p_t = p:  (1 - p)^gamma softplus(-x)
        positive = (labels >= 0).nonzero()[:, 0]
        x = logits[positive, labels[positive]].to(wide)
        q, ce = torch.sigmoid(-x), F.softplus(-x, threshold=SOFTPLUS_LINEAR)
        modulation = _power(q, gamma)
        total += positive_weight * (modulation * ce).sum()
        if grad is not None:
            # d/dx = -(1 - p)^gamma (gamma p softplus(-x) + (1 - p))
            slope = -positive_weight * modulation * (gamma * (1 - q) * ce + q)
            grad[positive, labels[positive]] = slope.to(kept)
            ctx.save_for_backward(grad)
            ctx.dtype = logits.dtype
        return total.to(wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * upstream.to(grad.dtype)).to(ctx.dtype), None, None, None, None


def _background(x: Tensor, gamma: float, weight: float, grad: Tensor | None) -> Tensor:
    """Sum of weight * p^gamma softplus(x) over a slice of logits: the loss where y = 0 and p_t = 1 - p.

    Args:
        x: (n, K) float32 or float64; overwritten.
        grad: (n, K), where the gradient is written.
    """
    p = torch.sigmoid(x)
    ce = F.softplus(x, threshold=SOFTPLUS_LINEAR)
    modulation = _power(p, gamma)
    # The product of two vectors is one pass without a temporary; it is limited to 2^31 entries.
    total = torch.dot(modulation.view(-1), ce.view(-1)) if x.device.type == "cpu" else (modulation * ce).sum()
    if grad is not None:
        # d/dx = p^gamma (gamma (1 - p) softplus(x) + p)
        slope = torch.addcmul(ce, p, ce, value=-1, out=x).mul_(gamma).add_(p)
        grad.copy_(modulation.mul_(slope).mul_(weight))
    return weight * total


def _power(p: Tensor, gamma: float) -> Tensor:
    """p ** gamma, without the transcendental function where gamma is 0, 1 or 2."""
    if gamma == 0:
        return torch.ones_like(p)
    if gamma == 1:
        return p.clone()
    return p * p if gamma == 2 else p.pow(gamma)
