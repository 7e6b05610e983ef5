"""Box geometry: areas, overlaps, and the four encoded offsets of box regression.

Boxes are float tensors (..., 4) of x1, y1, x2, y2 in continuous pixel coordinates: a box that covers the first pixel
alone is (0, 0, 1, 1), so width is x2 - x1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# A box is never decoded to more than 1000 / 16 = 62.5 times its anchor's side: keeps exp() from overflowing.
MAX_LOG_RATIO = math.log(1000 / 16)


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...): areas in square pixels; 0 for a box whose x2 < x1 or y2 < y1.

    Example:
        >>> area(torch.tensor([[0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 5.0, 9.0]]))
        tensor([12.,  0.])
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Areas of the pairwise intersections: (M, 4) and (N, 4) -> (M, N).

    Example:
        >>> intersection(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[2.0, 2, 6, 6], [5.0, 5, 6, 6]]))
        tensor([[4., 0.]])
    """
    # Each coordinate is made contiguous, since comparisons with strided ones would not be vectorised.
    x1, y1, x2, y2 = (coordinate.contiguous() for coordinate in b.unbind(dim=1))
    width = torch.minimum(a[:, None, 2], x2).sub_(torch.maximum(a[:, None, 0], x1)).clamp_(min=0)
    height = torch.minimum(a[:, None, 3], y2).sub_(torch.maximum(a[:, None, 1], y1)).clamp_(min=0)
    return width.mul_(height)


def iou(a: Tensor, b: Tensor, area_b: Tensor | None = None) -> Tensor:
    """Intersection over union of all pairs: (M, 4) and (N, 4) -> (M, N) in [0, 1]; 0 where both boxes are empty.

    Args:
        area_b: (N,), the areas of ``b`` where they are known already.

    Example:
        >>> iou(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0], [5.0, 5.0, 6.0, 6.0]]))
        tensor([[0.5000, 0.0000]])
    """
    inter = intersection(a, b)
    union = (area(a)[:, None] + (area(b) if area_b is None else area_b)).sub_(inter)
    return inter.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of corresponding boxes: (N, 4) and (N, 4) -> (N,) in [-1, 1]; differentiable.

    Source: Rezatofighi et al., "Generalized Intersection over Union" (2019), algorithm 1.

    Example:
        >>> giou(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]]))
        tensor([-0.5000])
    """
    tiny = torch.finfo(a.dtype).eps
    inter = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    union = area(a) + area(b) - inter
    return inter / (union + tiny) - (hull - union) / (hull + tiny)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (dx, dy, dw, dh) that turn anchors into boxes: (..., 4), (..., 4) -> (..., 4).

    dx = (x_box - x_anchor) / w_anchor and dw = log(w_box / w_anchor), likewise for y and h, with x and y the centres
    (Girshick et al., R-CNN, appendix C; the paper uses it unchanged). Both boxes need an area above 0.

    Example:
        >>> encode(torch.tensor([[2.0, 0.0, 12.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
        tensor([[0.2000, 0.0000, 0.0000, 0.0000]])
    """
    size = anchors[..., 2:] - anchors[..., :2]
    box_size = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / (2 * size)
    return torch.cat((shift, torch.log(box_size / size)), dim=-1)


def decode(deltas: Tensor, anchors: Tensor, limit_shrinking: bool = False) -> Tensor:
    """Inverse of :func:`encode`; dw and dh are at most log(1000 / 16), with ``limit_shrinking`` at least minus that.

    Example:
        >>> decode(torch.tensor([[0.2, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
        tensor([[ 2.,  0., 12., 10.]])
    """
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * size
    limited = deltas[..., 2:].clamp(min=-MAX_LOG_RATIO if limit_shrinking else None, max=MAX_LOG_RATIO)
    half = torch.exp(limited) * size / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def multiplied(deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """(..., 4) offsets, each of the four multiplied by its number.

    Numbers, because a tensor would have to be moved to the device first.

    Example:
        >>> multiplied(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), (10.0, 10.0, 5.0, 5.0))
        tensor([[1.0000, 2.0000, 1.5000, 2.0000]])
    """
    return torch.stack([deltas[..., i] * weight for i, weight in enumerate(weights)], dim=-1)


def clip(boxes: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Move corners outside an image of height x width pixels to its edge: (..., 4) -> (..., 4).

    The sides may be tensors that broadcast to (...), such as (B, 1) for boxes (B, N, 4).

    Example:
        >>> clip(torch.tensor([[-5.0, 2.0, 30.0, 8.0]]), height=10, width=20)
        tensor([[ 0.,  2., 20.,  8.]])
    """
    width, height = (torch.as_tensor(side, dtype=boxes.dtype, device=boxes.device) for side in (width, height))
    return torch.minimum(boxes.clamp(min=0), torch.stack((width, height, width, height), dim=-1))


def clip_inclusive(boxes: Tensor, sizes: Tensor, pixels: Tensor) -> Tensor:
    """Clip as Detectron does, whose x2 and y2 are those of a box's last pixel: (..., 4) -> (..., 4).

    Detectron clips first and last pixel in the image as it was given. The box ends one pixel of that image after the
    last, where an exact box ends one pixel of the input after it.

    Args:
        sizes: (..., 2) or (2,), height and width of the image within the input.
        pixels: of the same shape, how many input pixels, down and across, are one pixel of the image as given.

    Example:
        >>> clip_inclusive(torch.tensor([[-5.0, 2.0, 30.0, 8.0]]), torch.tensor([10.0, 20.0]), torch.tensor([2.0, 2.0]))
        tensor([[ 0.,  2., 20.,  9.]])
    """
    pixel, side = pixels.flip(-1), sizes.flip(-1)  # x before y
    start = torch.minimum(boxes[..., :2].clamp(min=0), side - pixel)
    end = torch.minimum(torch.maximum(boxes[..., 2:] + pixel - 1, pixel), side)
    return torch.cat((start, end), dim=-1)


def not_empty(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...) bool: whether a box has both width and height.

    Example:
        >>> not_empty(torch.tensor([[0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 5.0, 9.0]]))
        tensor([ True, False])
    """
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
