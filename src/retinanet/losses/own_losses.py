"""Losses of the user's own: plain functions of tensors in place of the built-in ones.

def hinge(logits, labels):                      # (N, K) float32, (N,) int64
    sign = torch.nn.functional.one_hot(labels + 1, logits.shape[1] + 1)[:, 1:] * 2 - 1
    return torch.relu(1 - sign * logits).sum()  # (), the sum over all anchors

criterion = Criterion(loss=hinge)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.ops.targets import IGNORED

ClassLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K) float32, labels (N,) int64) -> () the sum of the loss over anchors and classes.

A label is the class, or -1 for background; anchors that take no part are left out. The trainer divides the sum by the
number of positive anchors of the whole batch.
"""
BoxLossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(deltas (P, 4), anchors (P, 4), boxes (P, 4)), all float32, of the positive anchors -> () the sum of the loss.

Deltas are the network's offsets (dx, dy, dw, dh): :func:`retinanet.ops.boxes.decode` makes boxes of them. Anchors and
the boxes that they are assigned to are x1 y1 x2 y2 in input pixels.
"""


@dataclass(frozen=True)
class OwnLosses:
    """Functions in place of the built-in losses; None keeps the built-in one."""

    classes: ClassLoss | None = None
    boxes: BoxLossFunction | None = None


BUILT_IN = OwnLosses()


def own_class_loss(loss: ClassLoss, logits: Tensor, labels: Tensor, shares: Tensor | None) -> Tensor:
    """The class loss of a batch, () float32.

    Args:
        logits: (B, N, K). labels: (B, N) int64.
        shares: (B,), a factor for each image. With it, ``loss`` is called for each image, else once for all.

    Raises:
        RequestError: ``loss`` does not return the sum as a tensor.
    """
    logits, counted = logits.float(), labels != IGNORED
    if shares is None:
        return _checked("loss", loss(logits[counted], labels[counted]), logits)
    images = zip(logits, labels, counted)
    losses = [_checked("loss", loss(x[taken], label[taken]), logits) for x, label, taken in images]
    return (torch.stack(losses) * shares).sum()


def own_box_loss(
    loss: BoxLossFunction,
    candidates: tuple[Tensor, Tensor, Tensor],
    images: Tensor,
    positive: Tensor,
    shares: Tensor | None,
) -> Tensor:
    """The box loss of a batch, () float32; 0, with a gradient of 0, without a positive anchor.

    Args:
        candidates: deltas, anchors and boxes (P, 4) of anchors that may be positive.
        images: (P,) the image of each. positive: (P,) bool, whether it is positive.
        shares: (B,), a factor for each image. With it, ``loss`` is called for each image, else once for all.

    Raises:
        RequestError: ``loss`` does not return the sum as a tensor.
    """
    deltas, anchors, boxes = (tensor[positive] for tensor in candidates)
    total = deltas.sum() * 0
    if shares is None:
        return total + _checked("box_loss", loss(deltas, anchors, boxes), deltas) if len(deltas) else total
    images = images[positive]
    for image, share in enumerate(shares):
        own = images == image
        if own.any():
            total = total + share * _checked("box_loss", loss(deltas[own], anchors[own], boxes[own]), deltas)
    return total


def _checked(name: str, value: Tensor, source: Tensor) -> Tensor:
    """
    Raises:
        RequestError: ``value`` is not a number computed from ``source``.
    """
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        found = shown(value)
        if isinstance(value, Tensor):
            found = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
        raise RequestError(f"{name}= must return the sum over its anchors, a float tensor of shape (), not {found}")
    if source.requires_grad and not value.requires_grad:
        raise RequestError(
            f"{name}= returned a number without a gradient: compute it from its first argument by operations of "
            "torch, without detach, item or NumPy"
        )
    return value.float()
