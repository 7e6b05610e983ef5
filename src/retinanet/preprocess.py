"""From a picture of any size to the network's input: resize, pad, normalise.

Pictures stay uint8 until they are on the device that computes; that is a quarter of the memory and of the copying.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.config import PreprocessingSettings


def resized_size(height: int, width: int, settings: PreprocessingSettings, size: int | None = None) -> tuple[int, int]:
    """(h, w) that a picture of height x width pixels is resized to; ``size`` stands in for ``settings.size``."""
    if settings.resize == "none":
        return height, width
    target = settings.size if size is None else size
    if settings.resize == "square":
        scale = target / max(height, width)
    else:
        # The limit on the longer side keeps its proportion when another size is asked for.
        longest = settings.longer * target / settings.size
        scale = min(target / min(height, width), longest / max(height, width))
    rounded = math.floor if settings.rounding == "down" else (lambda side: math.floor(side + 0.5))
    return max(1, rounded(height * scale)), max(1, rounded(width * scale))


def resize(image: Tensor, size: tuple[int, int], antialias: bool = True, quantize: bool = True) -> Tensor:
    """Bilinear resize: (3, H, W) uint8 -> (3, h, w) uint8, or float32 in 0..255 where ``quantize`` is false."""
    if tuple(image.shape[1:]) == tuple(size):
        return image if quantize else image.float()
    if quantize and antialias:
        # Channels last, because for a result one pixel wide PyTorch fails, or makes other pixels, in the other layout.
        pixels = image[None].contiguous(memory_format=torch.channels_last)
        return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]
    resized = F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=antialias)[0]
    return resized.round_().to(torch.uint8) if quantize else resized


def padded_size(
    sizes: Iterable[tuple[int, int]], settings: PreprocessingSettings, size: int | None = None
) -> tuple[int, int]:
    """(H, W) of the batch of pictures resized to these sizes: the largest sides, rounded up to ``settings.multiple``.

    ``size`` stands in for ``settings.size``, to which squares are padded.
    """
    heights, widths = zip(*sizes, strict=True)
    height, width = max(heights), max(widths)
    if settings.resize == "square":
        height = width = max(height, width, settings.size if size is None else size)
    multiple = settings.multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_batch(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Pictures (3, h, w) of one dtype in the upper left corners of a (B, 3, H, W) batch, zeros elsewhere."""
    batch = images[0].new_zeros((len(images), 3, *size))
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch


def normalize(images: Tensor, sizes: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std, with zeros in the padding, in channels-last memory.

    Args:
        images: (B, 3, H, W) uint8, or float in 0..255.
        sizes: (B, 2) int64, height and width of each picture within its padding.
        mean, std: of R, G, B in 0..1.
    """
    # One copy of its own, worked on in place: at 800 pixels every further tensor would cost as much as all arithmetic.
    images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    scale = 1 / (255 * torch.tensor(std, device=images.device))
    shift = torch.tensor(mean, device=images.device) * 255
    images.sub_(shift[:, None, None]).mul_(scale[:, None, None])
    sizes = sizes.to(images.device)
    rows = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]  # (B, H)
    columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]  # (B, W)
    return images.mul_(rows[:, None, :, None] & columns[:, None, None, :])
