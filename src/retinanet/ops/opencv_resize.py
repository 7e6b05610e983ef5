"""OpenCV's bilinear resize of uint8 images, bit for bit, without OpenCV.

Detectors trained with ``cv2.resize`` (MMDetection, Detectron) have seen its numbers: integer weights of 11 bits and no
averaging over pixels that disappear. Another resize changes their scores by some percent. OpenCV's ``INTER_LINEAR`` on
uint8:

- the centre of target pixel i lies at (i + 0.5) * scale - 0.5 in the source; calculated in double, kept in float32;
- the two weights, 1 - fraction and fraction, are rounded to 2048ths, halves to even;
- rows first: left * weight + right * weight, of which the 4 lowest bits are dropped;
- then columns: each row times its weight, the 16 lowest bits of each product dropped; the sum of the two has 2 bits
  too many, which are rounded off;
- an image that becomes exactly half as high and half as wide is averaged over 2 x 2 pixels instead, halves upwards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BITS = 11
"""A weight of 1 is 2 ** 11."""
ROWS = 32
"""Rows that are resized at once: they fit into the CPU's cache."""


class Taps(NamedTuple):
    """Which two source pixels make each target pixel of one axis, and their weights; four (target,) tensors."""

    first: Tensor  # int64
    second: Tensor  # int64
    first_weight: Tensor  # int32, in 2048ths
    second_weight: Tensor  # int32


def taps(source: int, target: int, hold_ends: bool) -> Taps:
    """The pixels and weights along one axis.

    Args:
        source, target: the side before and after, in pixels.
        hold_ends: a target pixel beyond the centre of the first or last source pixel takes that pixel alone (so along
            a row). Otherwise it takes the end pixel twice, once with each weight, and each product is truncated.
    """
    # OpenCV divides twice; target / source and its inverse are not always the same double as source / target.
    scale = 1.0 / (target / source)
    position = ((torch.arange(target, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    first = position.floor()
    fraction = position - first
    if hold_ends:
        fraction[(first < 0) | (first >= source - 1)] = 0
    first_weight = torch.round((1 - fraction) * 2**BITS).int()  # halves to even, as in OpenCV
    second_weight = torch.round(fraction * 2**BITS).int()
    index = first.long()
    return Taps(index.clamp(0, source - 1), (index + 1).clamp(0, source - 1), first_weight, second_weight)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """``cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)`` on bytes, the very same numbers.

    Args:
        image: (3, H, W) uint8; any number of channels.
        size: (h, w) in pixels.

    Returns:
        (3, h, w) uint8, on the device of ``image``.
    """
    height, width = image.shape[1:]
    if (height, width) == tuple(size):
        return image
    if (height, width) == (2 * size[0], 2 * size[1]):
        pairs = image[:, 0::2].to(torch.int16).add_(image[:, 1::2])
        return pairs[:, :, 0::2].add(pairs[:, :, 1::2]).add_(2).bitwise_right_shift_(2).to(torch.uint8)
    across = Taps(*(t.to(image.device) for t in taps(width, size[1], hold_ends=True)))
    down = Taps(*(t.to(image.device) for t in taps(height, size[0], hold_ends=False)))
    upper, lower = down.first, down.second
    if size[0] * 2 < height:  # most rows are not needed
        image = torch.cat([image.index_select(1, upper), image.index_select(1, lower)], dim=1)
        upper = torch.arange(size[0], device=image.device)
        lower = upper + size[0]

    rows = torch.cat([_mix_columns(rows, across) for rows in image.split(ROWS, dim=1)])  # (H, 3, w)
    top = rows.index_select(0, upper).int().mul_(down.first_weight[:, None, None]).bitwise_right_shift_(16)
    bottom = rows.index_select(0, lower).int().mul_(down.second_weight[:, None, None]).bitwise_right_shift_(16)
    return top.add_(bottom).add_(2).bitwise_right_shift_(2).to(torch.uint8).permute(1, 0, 2).contiguous()


def _mix_columns(image: Tensor, across: Taps) -> Tensor:
    """(3, H, W) uint8 -> (H, 3, w) int16: each row resized, in 128ths of a pixel's value."""
    columns = image.permute(2, 0, 1)  # with the column as the first axis a gather copies whole runs of memory
    left = columns.index_select(0, across.first).int().mul_(across.first_weight[:, None, None])
    right = columns.index_select(0, across.second).int().mul_(across.second_weight[:, None, None])
    return left.add_(right).bitwise_right_shift_(4).to(torch.int16).permute(2, 1, 0).contiguous()
