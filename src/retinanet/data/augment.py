"""Augmentation in two steps: :func:`draw` decides from the annotations, :func:`apply` changes the pixels.

A decision is a function of (seed, draw, image) alone. So the sizes in a batch are known before it is decoded, and a
resumed run draws the same as an uninterrupted one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.config.bounds import Interpolation
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.config.settings import AugmentationSettings
from retinanet.ops.iou_assigner import IGNORED
from retinanet.ops.resize import resize_bilinear, resized_size

GREY = (0.299, 0.587, 0.114)  # weights of R, G and B in the brightness (ITU-R BT.601)
STRONGEST = (0.5, 0.5, 0.5, 0.1)  # largest change of brightness, contrast, saturation and hue at colour = 1
ASPECT = 4 / 3  # the aspect ratio of a crop differs from its image's by this factor at most


@dataclass(frozen=True)
class Drawn:
    """The changes to one image, in the order in which they are applied."""

    crop: tuple[int, int, int, int]
    """x1 y1 x2 y2 in pixels of the decoded image."""
    size: tuple[int, int]
    """Height and width that the crop is resized to."""
    flip: bool = False
    """Mirror left and right."""
    colour: tuple[float, float, float, float] | None = None
    """Factors of brightness, contrast and saturation; hue in turns of the colour wheel."""


def draw(
    seed: int,
    number: int,
    image: int,
    size: tuple[int, int],
    boxes: NDArray[np.float32],
    augmentation: AugmentationSettings,
    preprocessing: PreprocessingSettings,
) -> Drawn:
    """Decide the augmentation of one draw of an image.

    Args:
        number: of the draw, see :meth:`retinanet.data.sampler.Repeats.drawn`.
        image: index in the data set.
        size: height and width of the decoded image.
        boxes: (n, 4) without crowd regions; the centre of at least one of them lies in the crop.
    """
    # Each decision has its own random number: switching one augmentation on does not change the others.
    chance = rng(1, seed, number, image).random(13).tolist()
    crop = (0, 0, size[1], size[0])
    if chance[0] < augmentation.crop:
        crop = _crop(chance[1:6], size, boxes, augmentation.crop_scale)
    target: float = preprocessing.size
    if augmentation.sizes:
        target = augmentation.sizes[int(chance[6] * len(augmentation.sizes))]
    low, high = augmentation.zoom
    target *= low * (high / low) ** chance[7]
    resized = resized_size(crop[3] - crop[1], crop[2] - crop[0], preprocessing, max(1, round(target)))
    colour = None
    if augmentation.colour > 0:
        far = [(2 * value - 1) * most * augmentation.colour for value, most in zip(chance[9:], STRONGEST)]
        colour = (1 + far[0], 1 + far[1], 1 + far[2], far[3])
    return Drawn(crop, resized, chance[8] < augmentation.flip, colour)


def rng(*key: int) -> np.random.Generator:
    """A generator that is a function of the key. The key's first number is its purpose."""
    return np.random.default_rng([number & (1 << 64) - 1 for number in key])


def _crop(
    chance: list[float], size: tuple[int, int], boxes: NDArray[np.float32], scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A window of whole pixels around the centre of a box, or anywhere in an image without boxes."""
    low, high = scale
    across = low + (high - low) * chance[0]
    least, most = max(low, across / ASPECT), min(high, across * ASPECT)
    down = least + (most - least) * chance[1]
    centre = None
    if len(boxes):
        x1, y1, x2, y2 = boxes[int(chance[2] * len(boxes))].tolist()
        centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    starts, ends = [], []
    for axis, (side, share) in enumerate(((size[1], across), (size[0], down))):
        length = min(side, max(1, round(share * side)))
        first, last = 0, side - length
        if centre is not None:  # the first whole number above centre - length, the last up to the centre
            first, last = max(first, math.floor(centre[axis] - length) + 1), min(last, math.floor(centre[axis]))
        starts.append(first + int(chance[3 + axis] * (last - first + 1)))
        ends.append(starts[-1] + length)
    return starts[0], starts[1], ends[0], ends[1]


def apply(
    image: Tensor, boxes: Tensor, labels: Tensor, drawn: Drawn, interpolation: Interpolation = "antialias"
) -> tuple[Tensor, Tensor, Tensor]:
    """Crop, resize, flip and recolour an image with its boxes.

    Args:
        image: (3, H, W) uint8. boxes: (n, 4) float32 in its pixels. labels: (n,) int64, -2 for regions to ignore.
        interpolation: of ``model.preprocessing``.

    Returns:
        (3, h, w) uint8, and the m <= n boxes (m, 4) that are kept, with their labels (m,). A box is kept if its centre
        lies in the crop, a region to ignore if any of it does. Boxes are clipped to the crop.
    """
    x1, y1, x2, y2 = drawn.crop
    height, width = drawn.size
    image = resize_bilinear(image[:, y1:y2, x1:x2], drawn.size, interpolation)
    if drawn.flip:
        image = image.flip(-1)
    if drawn.colour is not None:
        image = _recolour(image, *drawn.colour)

    exact = boxes.double()  # sums of float32 would round the sides of small boxes
    centre = (exact[:, :2] + exact[:, 2:]) / 2
    start, end = exact.new_tensor([x1, y1]), exact.new_tensor([x2, y2])
    inside = ((centre >= start) & (centre < end)).all(1)
    scale = exact.new_tensor([width / (x2 - x1), height / (y2 - y1)] * 2)
    exact = (exact - start.repeat(2)) * scale
    if drawn.flip:
        exact = torch.stack((width - exact[:, 2], exact[:, 1], width - exact[:, 0], exact[:, 3]), 1)
    clipped = torch.minimum(exact.clamp(min=0), exact.new_tensor([width, height] * 2)).float()
    keep = (inside | (labels == IGNORED)) & (clipped[:, 2:] > clipped[:, :2]).all(1)
    return image, clipped[keep], labels[keep]


def _recolour(image: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """(3, H, W) uint8 -> the same. The four changes are linear in R, G, B: one matrix and one offset do all of them.

    There are only sums of integers and operations on single pixels, so the bytes do not depend on the thread count.
    """
    yiq = np.array([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    angle = 2 * math.pi * hue
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.linalg.inv(yiq) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ yiq
    saturate = saturation * np.eye(3) + (1 - saturation) * np.array([GREY] * 3)
    matrix = (brightness * contrast * turn @ saturate).tolist()
    sums = image.sum((1, 2), dtype=torch.int64).tolist()
    grey = sum(weight * value for weight, value in zip(GREY, sums)) / image[0].numel()
    offset = brightness * (1 - contrast) * grey
    red, green, blue = image.float()
    planes = [red * r + green * g + blue * b + offset for r, g, b in matrix]
    return torch.stack(planes).round_().clamp_(0, 255).to(torch.uint8)
