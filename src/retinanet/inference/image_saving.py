"""Writes a drawn image, complete or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError

QUALITY = 92
"""Of JPEG and WebP; other formats ignore it."""


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its file's ending.

    Raises:
        RequestError: images are not written under that ending.
        WorkError: the file cannot be written.
    """
    format = Image.registered_extensions().get(path.suffix.lower())
    if format not in Image.SAVE:
        what = f"the ending {path.suffix}" if path.suffix else "no ending"
        raise RequestError(f"{path} has {what}: an image is written as .png or .jpg, results as .json or .csv")
    with replacing(path) as temporary:
        image.save(temporary, format, quality=QUALITY)
