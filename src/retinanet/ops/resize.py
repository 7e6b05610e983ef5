"""From an image of any size to the network's input: resize, pad, normalise.

Images stay uint8 until they are on the device that computes; that is a quarter of the memory and of the copying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from retinanet.common.devices import moved
from retinanet.config.bounds import Interpolation
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.ops import opencv_resize

ROUND: dict[str, Callable[[float], int]] = {
    "nearest": lambda side: math.floor(side + 0.5),
    "down": math.floor,
    "detectron": round,  # half to even
    "detectron2": lambda side: math.floor(side + 0.5),
}


def factor(height: int, width: int, settings: PreprocessingSettings, size: int | None = None) -> float:
    """By how much an image of height x width pixels is enlarged; ``size`` stands in for ``settings.size``."""
    if settings.resize == "none":
        return 1.0
    target = settings.size if size is None else size
    shorter, longer = min(height, width), max(height, width)
    if settings.resize == "square":
        return target / longer
    # The limit on the longer side keeps its proportion when another size is asked for.
    longest = settings.longer * target / settings.size
    scale = target / shorter
    # Detectron compares the side as it will be after rounding, half to even.
    reached = round(scale * longer) if settings.rounding == "detectron" else scale * longer
    return longest / longer if reached > longest else scale


def resized_size(height: int, width: int, settings: PreprocessingSettings, size: int | None = None) -> tuple[int, int]:
    """(h, w) that an image of height x width pixels is resized to; ``size`` stands in for ``settings.size``."""
    if settings.resize == "none":
        return height, width
    rounded = ROUND[settings.rounding]
    if settings.rounding == "detectron2" and settings.resize == "shorter":
        target, shorter = settings.size if size is None else size, min(height, width)
        sides = [target if side == shorter else target / shorter * side for side in (height, width)]
        limit = min(1, settings.longer * target / settings.size / max(sides))
        return max(1, rounded(sides[0] * limit)), max(1, rounded(sides[1] * limit))
    scale = factor(height, width, settings, size)
    return max(1, rounded(height * scale)), max(1, rounded(width * scale))


def box_scale(
    original: Sequence[int], resized: Sequence[int], settings: PreprocessingSettings, size: int | None = None
) -> tuple[float, float]:
    """(y, x): how many resized pixels are one original pixel; both sizes are (height, width)."""
    if settings.rounding == "detectron":
        scale = factor(original[0], original[1], settings, size)
        return scale, scale
    return resized[0] / original[0], resized[1] / original[1]


def resize_image(image: Tensor, settings: PreprocessingSettings, size: int | None = None) -> Tensor:
    """Resize (3, H, W) uint8 as the settings say: (3, h, w) uint8, or float32 in 0..255.

    Resized in floating point (torchvision's and Detectron's convention), an image is not rounded to whole values.
    """
    target = resized_size(image.shape[1], image.shape[2], settings, size)
    if settings.interpolation != "plain":
        return resize_bilinear(image, target, settings.interpolation)
    # OpenCV computes source positions in float64, as PyTorch does for float64 images; torchvision in float32.
    dtype = torch.float64 if settings.rounding == "detectron" else torch.float32
    return _plain(image.to(dtype), target, box_scale(image.shape[1:], target, settings, size)).float()


def resize_reference(image: Tensor, size: tuple[int, int], antialias: bool = True) -> Tensor:
    """The formula of bilinear resizing: (3, H, W) -> (3, h, w) float64, before rounding.

    A target pixel is a weighted average of source pixels. Their weights fall linearly with the distance from its centre
    to 0 at a distance of one source pixel; with ``antialias`` of one target pixel, where that is larger.
    """

    def weights(source: int, target: int) -> Tensor:
        scale = source / target
        centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
        distances = (torch.arange(source, dtype=torch.float64) + 0.5 - centres[:, None]).abs()  # (target, source)
        result = (1 - distances / (max(1.0, scale) if antialias else 1.0)).clamp(min=0)
        return result / result.sum(dim=1, keepdim=True)

    return weights(image.shape[1], size[0]) @ image.double() @ weights(image.shape[2], size[1]).T


def resize_bilinear(image: Tensor, size: tuple[int, int], interpolation: Interpolation = "antialias") -> Tensor:
    """Bilinear resize, (3, H, W) uint8 -> (3, h, w) uint8; the setting explains ``interpolation``."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    if interpolation == "opencv":
        return opencv_resize.resize(image, size)
    if interpolation == "pillow":
        pil_image = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized = pil_image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()
    if interpolation == "plain":
        scales = (size[0] / image.shape[1], size[1] / image.shape[2])
        return _plain(image.float(), size, scales).round_().to(torch.uint8)
    # Channels last: in the other layout PyTorch fails for a result one pixel wide, or gives other pixels.
    pixels = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]


def _plain(image: Tensor, size: tuple[int, int], scales: tuple[float, float]) -> Tensor:
    """Not averaged, of the image's float type; ``scales`` (y, x) need not be the exact ratio of the sizes."""
    # F.interpolate takes a size or scales, not both.
    resized: Tensor = torch.ops.aten.upsample_bilinear2d(image[None], size, False, *scales)
    return resized[0]


def padded_size(
    sizes: Iterable[tuple[int, int]], settings: PreprocessingSettings, size: int | None = None
) -> tuple[int, int]:
    """(H, W) of the batch of images resized to these sizes: the largest sides, rounded up to ``settings.multiple``.

    ``size`` stands in for ``settings.size``, to which squares are padded.
    """
    heights, widths = zip(*sizes, strict=True)
    height, width = max(heights), max(widths)
    if settings.resize == "square":
        height = width = max(height, width, settings.size if size is None else size)
    multiple = settings.multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_batch(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Images (3, h, w) of one dtype in the upper left corners of a (B, 3, H, W) batch, zeros elsewhere."""
    batch = images[0].new_zeros((len(images), 3, *size))
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch


def normalize(images: Tensor, sizes: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std, with zeros in the padding, in channels-last memory.

    Args:
        images: (B, 3, H, W) uint8, or float in 0..255.
        sizes: (B, 2) int64, height and width of each image within its padding.
        mean, std: of R, G, B in 0..1.
    """
    # One copy, changed in place: at 800 pixels every further tensor would cost as much as all arithmetic.
    images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    shift, scale = _shift_and_scale(tuple(mean), tuple(std), images.device)
    images.sub_(shift).mul_(scale)
    sizes = moved(sizes, images.device)
    rows = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]  # (B, H)
    columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]  # (B, W)
    return images.mul_(rows[:, None, :, None] & columns[:, None, None, :])


@lru_cache(maxsize=16)
def _shift_and_scale(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Each (3, 1, 1) float32 on ``device``. Cached, because copying them to a GPU means waiting for it."""
    with torch.inference_mode(False):  # Tensors made in inference mode could not be used for training.
        shift, scale = torch.tensor(mean) * 255, 1 / (255 * torch.tensor(std))
        return shift[:, None, None].to(device), scale[:, None, None].to(device)
