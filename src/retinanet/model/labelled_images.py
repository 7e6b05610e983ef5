"""Images with their boxes, as a user's own training loop has them, made into the network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.ops.image_batch import prepare_image
from retinanet.ops.resize import normalize, pad_batch, padded_size
from retinanet.ops.targets import IGNORED

ROUNDED = ("opencv", "pillow")
"""Interpolations that resize whole numbers only."""


def batch_of(
    images: Sequence[Tensor], settings: PreprocessingSettings, device: torch.device
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Resize, normalise and pad images of any size.

    Args:
        images: (3, H, W) RGB each, uint8 or float from 0 to 1.
        settings: complete, as those of a model.

    Returns:
        The network's input (B, 3, H, W) float32 on ``device``, and for each image how many of its pixels (y, x) are one
        pixel of the image that was given.

    Raises:
        RequestError: an image is of another shape, type or range.
    """
    assert settings.mean is not None, "the model fills it in"
    assert settings.std is not None, "the model fills it in"
    if not images:
        raise RequestError("images is an empty list: give at least one tensor (3, H, W)")
    prepared = [prepare_image(_pixels(i, image, settings), settings) for i, image in enumerate(images)]
    pixels = [image.pixels for image in prepared]
    if len({tensor.dtype for tensor in pixels}) > 1:
        pixels = [tensor.float() for tensor in pixels]
    sizes = torch.tensor([image.resized for image in prepared])
    batch = pad_batch(pixels, padded_size((image.resized for image in prepared), settings))
    return normalize(batch.to(device), sizes, settings.mean, settings.std), [image.scale for image in prepared]


def boxes_of(targets: Any, images: int, num_classes: int) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes (n, 4) float32 and labels (n,) int64 of each image.

    Args:
        targets: a mapping for each image: "boxes" (n, 4) x1 y1 x2 y2, "labels" (n,) int64 from 0, or -2 for a region to
            ignore. With "iscrowd" (n,), boxes for which it is true are regions to ignore. Other entries are not used.

    Raises:
        RequestError: ``targets`` are anything else. The message names the image.
    """
    if not isinstance(targets, Sequence) or len(targets) != images:
        count = len(targets) if isinstance(targets, Sequence) else shown(targets)
        raise RequestError(f'targets must be a list of a dict ("boxes", "labels") for each of {images} images: {count}')
    pairs = [_labelled(i, target, num_classes) for i, target in enumerate(targets)]
    return [boxes for boxes, _ in pairs], [labels for _, labels in pairs]


def _pixels(index: int, image: object, settings: PreprocessingSettings) -> Tensor:
    """The image on the CPU, in 0..255."""
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        what = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else shown(image)
        raise RequestError(f"image {index} must be a tensor (3, H, W), not {what}")
    image = image.cpu()
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise RequestError(f"image {index} must be uint8, or float from 0 to 1, not {kind}")
    low, high = image.detach().aminmax()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise RequestError(
            f"image {index} is float and must be from 0 to 1, not from {low:.4g} to {high:.4g}: divide images of 0 to "
            "255 by 255, and leave the normalisation to the model"
        )
    image = image.float() * 255
    return image.round().to(torch.uint8) if settings.interpolation in ROUNDED else image


def _crowd(index: int, flags: Any, labels: Tensor) -> Tensor:
    """(n,) bool. One flag for several boxes is refused: it would make all of them regions to ignore."""
    try:
        crowd = torch.as_tensor(flags)
    except (TypeError, ValueError, RuntimeError):
        crowd = None
    if crowd is None or crowd.shape != labels.shape:
        what = shown(flags) if crowd is None else f"of shape {tuple(crowd.shape)}"
        raise RequestError(f'"iscrowd" of target {index} must be 0 or 1 for each of {len(labels)} boxes, not {what}')
    return crowd.to(labels.device).bool()


def _labelled(index: int, target: Any, num_classes: int) -> tuple[Tensor, Tensor]:
    if not isinstance(target, Mapping) or not {"boxes", "labels"} <= target.keys():
        raise RequestError(f'target {index} must be a dict with "boxes" and "labels", not {shown(target)}')
    boxes, labels = target["boxes"], target["labels"]
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.is_complex():
        what = f"{boxes.dtype} {tuple(boxes.shape)}" if isinstance(boxes, Tensor) else shown(boxes)
        raise RequestError(f"the boxes of target {index} must be a tensor (n, 4), not {what}")
    if not isinstance(labels, Tensor) or labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        what = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else shown(labels)
        raise RequestError(f"the labels of target {index} must be int64 ({len(boxes)},), not {what}")
    boxes = boxes.float()
    if "iscrowd" in target:
        labels = torch.where(_crowd(index, target["iscrowd"], labels), IGNORED, labels)
    usable = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if not usable.all():
        wrong = boxes[~usable][0].tolist()
        raise RequestError(f"target {index} has the box {wrong}, which is not x1 y1 x2 y2 with x1 < x2 and y1 < y2")
    known = ((labels >= 0) | (labels == IGNORED)) & (labels < num_classes)
    if not known.all():
        raise RequestError(
            f"target {index} has the label {int(labels[~known][0])}, but labels are from 0 to {num_classes - 1}, or "
            f"{IGNORED} for a region to ignore"
        )
    return boxes, labels
