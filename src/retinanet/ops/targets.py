"""Training targets: what each anchor should predict."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class Targets:
    """What a batch of B images with N anchors each should predict."""

    labels: Tensor
    """(B, N) int64: the class from 0, -1 for background, -2 for anchors that take no part."""
    indices: Tensor
    """(P,) int64, into the flattened (B * N): anchors that may be positive. On a CPU these are the positive ones, on a
    GPU all (the CPU would have to wait for their number). Those with a label of 0 or more are positive."""
    boxes: Tensor
    """(P, 4) float32: the ground-truth box of each of these in input pixels; where it is not positive, the anchor."""
    num_positives: Tensor
    """() float32: how many anchors are positive, to be summed over processes."""
