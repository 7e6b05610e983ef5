"""Writes a drawn image, complete or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError

QUALITY = 92
"""Of JPEG and WebP; other formats ignore it."""
LONGEST = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535}
"""The longest side in pixels that a format holds."""


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its file's ending.

    Raises:
        RequestError: images are not written under that ending.
        WorkError: the file cannot be written, or its format holds no image of this size.
    """
    format = Image.registered_extensions().get(path.suffix.lower())
    if format not in Image.SAVE:
        what = f"the ending {path.suffix}" if path.suffix else "no ending"
        raise RequestError(f"{path} has {what}: an image is written as .png or .jpg, results as .json or .csv")
    with replacing(path) as temporary:
        encode(image, temporary, format)


def encode(image: Image.Image, path: Path, format: str) -> None:
    """Write an image in a format of Pillow.

    Raises:
        OSError: it cannot be written. It has no number if the image is too large for the format.
    """
    longest, side = LONGEST.get(format), max(image.size)
    if longest is not None and side > longest:  # encoders say "broken data stream", and print lines of their own
        raise OSError(f"{format} holds at most {longest} pixels a side, not {side}: write a .png")
    image.save(path, format, quality=QUALITY)
