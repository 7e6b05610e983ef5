"""The anchor grid of the pyramid levels, P3 to P7 in the paper (section 4, "Anchors")."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from retinanet.config.model_settings import AnchorSettings

PAPER_LEVELS = range(3, 8)


def grid_shapes(height: int, width: int, levels: Iterable[int] = PAPER_LEVELS) -> list[tuple[int, int]]:
    """(h, w) of each level for an input of height x width pixels: every halving rounds up."""
    return [(-(-height // 2**level), -(-width // 2**level)) for level in levels]


def cell_anchors(settings: AnchorSettings, index: int) -> Tensor:
    """The anchors of one position around the origin: (A, 4) float32, ratio by ratio, within a ratio scale by scale.

    Args:
        index: of the level among ``settings.levels``.
    """
    size = settings.sizes[index]
    ratios = torch.tensor(settings.ratios, dtype=torch.float64)
    scales = torch.tensor(settings.scales, dtype=torch.float64)
    if settings.rounding == "torchvision":
        # torchvision computes in float32 from whole sizes and rounds the half extents: up to 0.92 px from the paper's.
        sides = (size * scales).floor().float()
        height_ratios = ratios.float().sqrt()
        heights = (height_ratios[:, None] * sides[None, :]).reshape(-1)
        widths = ((1 / height_ratios)[:, None] * sides[None, :]).reshape(-1)
        return (torch.stack((-widths, -heights, widths, heights), dim=1) / 2).round()
    if settings.rounding == "detectron":
        # At the size of one stride: 6 x 12 for stride 8 and ratio 2, where the exact sides are 5.66 x 11.31.
        stride = 2 ** settings.levels[index]
        widths = (stride / ratios.sqrt()).round()
        heights = (widths * ratios).round()
        larger = size / stride * scales
        widths = (widths[:, None] * larger[None, :]).reshape(-1)
        heights = (heights[:, None] * larger[None, :]).reshape(-1)
        return (torch.stack((-widths, -heights, widths, heights), dim=1) / 2).float()
    heights = (ratios.sqrt()[:, None] * scales[None, :]).reshape(-1) * size
    widths = (ratios.rsqrt()[:, None] * scales[None, :]).reshape(-1) * size
    return (torch.stack((-widths, -heights, widths, heights), dim=1) / 2).float()


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # the cache is shared with training, which cannot differentiate through inference tensors
def make_anchors(settings: AnchorSettings, height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    """All anchors for a padded input of height x width pixels.

    Returns:
        For each level a float32 tensor (h * w * A, 4) of x1, y1, x2, y2 in input pixels, positions row by row and the
        A anchors of a position side by side: the order of the head's outputs. The tensors are shared: never write
        into them.
    """
    levels = []
    for index, (level, (h, w)) in enumerate(zip(settings.levels, grid_shapes(height, width, settings.levels))):
        stride = 2**level
        # torchvision's strides follow from the image: 61 x 64 rather than 64 x 64 at P6 of an 800 x 1216 input.
        step_y, step_x = (height // h, width // w) if settings.strides == "torchvision" else (stride, stride)
        y = (torch.arange(h, dtype=torch.float32) + settings.offset) * step_y
        x = (torch.arange(w, dtype=torch.float32) + settings.offset) * step_x
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)[..., [1, 0, 1, 0]]  # (h, w, 4)
        anchors = centres[:, :, None, :] + cell_anchors(settings, index)  # (h, w, A, 4)
        levels.append(anchors.reshape(-1, 4).to(device))
    return tuple(levels)
