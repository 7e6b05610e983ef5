"""The focal loss on devices that have no kernels of ours, without a synchronisation.

Indices of positive rows would have to be waited for. So one entry of every row is handled as the positive one, and it
counts nothing in rows without a positive class.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.losses.focal_cpu import Weight, compute_types, positive_terms, power
from retinanet.ops.iou_assigner import IGNORED


def dense_loss(
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    positive_weight: Weight,
    negative_weight: Weight,
    needs_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Loss and gradient on any device; a :data:`retinanet.losses.focal_cpu.Compute`."""
    wide, kept = compute_types(logits)
    classes, is_positive = labels.clamp(min=0)[:, None], (labels >= 0)[:, None]  # (N, 1)
    ignored = (labels == IGNORED)[:, None]
    x = logits.to(wide).masked_fill(ignored, 0)
    p, log_pt = torch.sigmoid(x), F.logsigmoid(-x)
    modulation = power(p, gamma).mul_(negative_weight).masked_fill_(ignored, 0)
    modulation.scatter_(1, classes, modulation.gather(1, classes).masked_fill_(is_positive, 0))
    weight = positive_weight[classes] if isinstance(positive_weight, Tensor) else positive_weight
    loss, slope = positive_terms(x.gather(1, classes), gamma, weight * is_positive.to(wide))
    total = loss - torch.mul(modulation, log_pt, out=x).sum()
    if not needs_grad:
        return total, None
    grad = torch.addcmul(log_pt, p, log_pt, value=-1, out=log_pt).mul_(-gamma).add_(p).mul_(modulation)
    grad.scatter_(1, classes, torch.where(is_positive, slope, grad.gather(1, classes)))
    return total, grad.to(kept)
