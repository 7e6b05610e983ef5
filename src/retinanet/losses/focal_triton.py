"""The focal loss on a GPU: one kernel that reads the logits for the loss, one that writes their gradient.

Nothing is kept between the two but the logits themselves. Triton comes with PyTorch's CUDA builds.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2048


@triton.jit
def _entry(logits, labels, index, inside, classes, positive_weight, negative_weight):  # type: ignore[no-untyped-def]
    """z with p_t = 1 - sigmoid(z), the sign of dz / dx, the entry's weight, and whether it counts."""
    row = index // classes
    label = tl.load(labels + row, mask=inside, other=-2)
    x = tl.load(logits + index, mask=inside, other=0.0).to(tl.float32)
    is_positive = label == (index - row * classes)
    z = tl.where(is_positive, -x, x)
    weight = tl.where(is_positive, positive_weight, negative_weight)
    return z, tl.where(is_positive, -1.0, 1.0), weight, label != -2


@triton.jit
def _softplus(z):  # type: ignore[no-untyped-def]
    e = tl.exp(-tl.abs(z))
    # log(1 + e), which float32 rounds to 0 for small e.
    return tl.maximum(z, 0.0) + tl.where(e < 1e-3, e * (1.0 - e * (0.5 - e * 0.33333333)), tl.log(1.0 + e))


@triton.jit  # type: ignore[untyped-decorator]
def _loss(  # type: ignore[no-untyped-def]
    logits, labels, partial, count, classes, gamma, positive_weight, negative_weight, BLOCK: tl.constexpr
):
    block = tl.program_id(0).to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    z, _, weight, counts = _entry(logits, labels, index, inside, classes, positive_weight, negative_weight)
    ce = _softplus(z)
    # sigmoid(z) ** gamma, since log sigmoid(z) = z - softplus(z)
    tl.store(partial + block, tl.sum(tl.where(counts, weight * tl.exp(gamma * (z - ce)) * ce, 0.0)))


@triton.jit  # type: ignore[untyped-decorator]
def _gradient(  # type: ignore[no-untyped-def]
    logits, labels, upstream, gradient, count, classes, gamma, positive_weight, negative_weight, BLOCK: tl.constexpr
):
    block = tl.program_id(0).to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    z, sign, weight, counts = _entry(logits, labels, index, inside, classes, positive_weight, negative_weight)
    ce = _softplus(z)
    u = tl.exp(z - ce)
    slope = tl.exp(gamma * (z - ce)) * (gamma * (1.0 - u) * ce + u)
    slope = tl.where(counts, slope * weight * sign * tl.load(upstream).to(tl.float32), 0.0)
    tl.store(gradient + index, slope.to(gradient.dtype.element_ty), mask=inside)


class FocalLoss(torch.autograd.Function):
    """(N, K) float32, bfloat16 or float16 and (N,) int64 -> () float32; as :mod:`retinanet.losses.focal` describes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, gamma: float, alpha: float | None) -> Tensor:
        logits, labels = logits.contiguous(), labels.contiguous()
        weights = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        ctx.constants = (logits.numel(), logits.shape[1], gamma, *weights)
        ctx.save_for_backward(logits, labels)
        partial = torch.zeros(triton.cdiv(logits.numel(), BLOCK), device=logits.device)
        if len(partial):
            with _on(logits.device):
                _loss[(len(partial),)](logits, labels, partial, *ctx.constants, BLOCK=BLOCK)
        return partial.sum(dtype=torch.float64).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        logits, labels = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        if blocks := triton.cdiv(logits.numel(), BLOCK):
            with _on(logits.device):
                _gradient[(blocks,)](logits, labels, upstream, gradient, *ctx.constants, BLOCK=BLOCK)
        return gradient, None, None, None


def _on(device: torch.device) -> Any:
    """Triton starts kernels on the current device, wherever their data lies."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
