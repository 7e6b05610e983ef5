"""Writes a drawn image, complete or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError, WorkError

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
    if max(image.size) > (longest := LONGEST.get(format, max(image.size))):
        raise WorkError(
            f"cannot write {path}: {format} holds at most {longest} pixels a side, not {max(image.size)}: write a .png"
        )
    with replacing(path) as temporary:
        image.save(temporary, format, quality=QUALITY)
