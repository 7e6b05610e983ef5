"""What the network gives for a batch of images."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """The network's output for a batch of B images; one entry per level, the finest first."""

    logits: list[Tensor]
    """(B, N_l, K), N_l = h * w * A, in the order of the anchors."""
    deltas: list[Tensor]
    """(B, N_l, 4): dx, dy, dw, dh."""
