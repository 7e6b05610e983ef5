"""Images as the network takes them: resized, and batched with others of the same padded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from retinanet.common.devices import moved
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.ops.resize import box_scale, normalize, pad_batch, padded_size, resize_image, resized_size

Size = tuple[int, int]
"""Height and width."""
T = TypeVar("T")


class PreparedImage(NamedTuple):
    """One image at the network's size, not yet padded or normalised."""

    pixels: Tensor
    """(3, h, w) uint8, or float32 in 0..255 for models that resize in floating point."""
    original: Size
    """Of the image as it was given."""
    scale: tuple[float, float]
    """(y, x): how many resized pixels are one original pixel."""
    padded: Size
    """Of the batch that the image can be part of."""

    @property
    def resized(self) -> Size:
        return self.pixels.shape[1], self.pixels.shape[2]


@dataclass
class ImageBatch:
    """Prepared images of one padded size."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB, or float32 in 0..255, with zeros right of and below each image."""
    sizes: Tensor
    """(B, 2) int64, height and width of each image within its padding."""
    originals: Tensor
    """(B, 2) int64, height and width of each image as it was given."""
    scales: Tensor
    """(B, 2) float64, (y, x): how many resized pixels are one original pixel."""

    @classmethod
    def stack(cls, prepared: Sequence[PreparedImage], **fields: Any) -> Self:
        """The batch of images of one padded size; ``fields`` are those that a subclass adds."""
        return cls(
            pad_batch([image.pixels for image in prepared], prepared[0].padded),
            torch.tensor([image.resized for image in prepared]),
            torch.tensor([image.original for image in prepared]),
            # In float64: a box that reaches the edge has to end at the edge, not a rounding error beyond.
            torch.tensor([image.scale for image in prepared], dtype=torch.float64),
            **fields,
        )

    def normalized(self, settings: PreprocessingSettings, device: torch.device | None = None) -> Tensor:
        """(B, 3, H, W) float32, the network's input, on ``device`` (the CPU by default)."""
        assert settings.mean is not None, "the model fills it in"
        assert settings.std is not None, "the model fills it in"
        images = self.images if device is None else moved(self.images, device)
        return normalize(images, self.sizes, settings.mean, settings.std)

    def pin_memory(self) -> Self:
        """The same batch in memory that a GPU copies from directly; called by torch's loader."""
        return replace(self, images=self.images.pin_memory())


def batch_size_of(original: Size, settings: PreprocessingSettings | None, size: int | None = None) -> Size:
    """Padded size of the batch for an image of ``original`` pixels; arguments as in :func:`prepare_image`."""
    return original if settings is None else padded_size([resized_size(*original, settings, size)], settings, size)


def prepare_image(image: Tensor, settings: PreprocessingSettings | None, size: int | None = None) -> PreparedImage:
    """Resize (3, H, W) uint8 for the network.

    Args:
        settings: None leaves the image as it is, for networks that resize images themselves.
        size: stands in for ``settings.size``.
    """
    original = image.shape[1], image.shape[2]
    if settings is None:
        return PreparedImage(image, original, (1.0, 1.0), original)
    pixels = resize_image(image, settings, size)
    scale = box_scale(original, pixels.shape[1:], settings, size)
    return PreparedImage(pixels, original, scale, batch_size_of(original, settings, size))


def network_input(image: Tensor, settings: PreprocessingSettings) -> Tensor:
    """One image, (3, H, W) uint8, resized, padded and normalised: (1, 3, H', W') float32."""
    return ImageBatch.stack([prepare_image(image, settings)]).normalized(settings)


def batches_by_size(items: Iterable[T], size_of: Callable[[T], Size], batch_size: int) -> Iterator[list[T]]:
    """Batches of up to ``batch_size`` items with the same padded size, each as soon as it is full.

    Images of one size only: what is detected in an image then depends on the others by no more than rounding.
    """
    waiting: dict[Size, list[T]] = {}
    for item in items:
        size = size_of(item)
        batch = waiting.setdefault(size, [])
        batch.append(item)
        if len(batch) == batch_size:
            yield waiting.pop(size)
    for size in list(waiting):
        yield waiting.pop(size)
