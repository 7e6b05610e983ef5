"""The copy of an image's file for another data set: byte for byte, wherever its boxes stay right."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import WorkError, first_line
from retinanet.data import image_io
from retinanet.data.dataset import DetectionData

MAX_SEGMENT = 65533  # bytes of EXIF that one segment of a JPEG file holds


def copy(data: DetectionData, index: int, target: Path, by_suffix: bool) -> list[str]:
    """Write an image to ``target``; returns how the copy differs from the original.

    Args:
        by_suffix: as for :func:`content`.

    Raises:
        WorkError: it cannot be read or written.
    """
    source = data.path(index)
    suffix, changed = content(data, index, by_suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if changed is None:
            shutil.copyfile(source, target)
        else:
            target.write_bytes(changed)
    except OSError as error:
        raise WorkError(f"cannot copy {source} to {target}: {what_is_wrong(error)}") from error
    differs = [] if data.annotations.exif[index] else ["images copied without their EXIF orientation"]
    return differs + ["images written as PNG"] * (changed is not None and suffix == ".png")


def content(data: DetectionData, index: int, by_suffix: bool) -> tuple[str, bytes | None]:
    """The suffix and the bytes of an image's copy; None where the file is copied as it is.

    Args:
        by_suffix: the layout recognises images by their suffix, so the copy must have a known one.
    """
    path, as_is = data.path(index), bool(data.annotations.exif[index])
    suffix = path.suffix
    known = not by_suffix or suffix.lower() in image_io.SUFFIXES
    if as_is and known:
        return suffix, None
    try:
        with image_io.opened(path) as image:
            kind = str(image.format).lower()
            if not known:
                suffix = f".{kind}"
            if suffix.lower() in image_io.SUFFIXES or known:
                if as_is:
                    return suffix, None
                if kind in ("jpeg", "mpo") and (changed := _without_rotation(path.read_bytes(), image)):
                    return suffix, changed
    except Exception as error:
        raise WorkError(f"cannot read the image {path}: {first_line(error)}") from error
    file = io.BytesIO()
    Image.fromarray(data.read(index).permute(1, 2, 0).numpy()).save(file, "PNG")
    return ".png", file.getvalue()


def _without_rotation(file: bytes, image: Image.Image) -> bytes | None:
    """A JPEG file with the EXIF orientation 1 and the same pixel data; None where the orientation is not in EXIF."""
    exif, stored = image.getexif(), image.info.get("exif", b"")
    exif[image_io.ORIENTATION] = 1
    blocks = (stored, exif.tobytes())
    if not stored or max(map(len, blocks)) > MAX_SEGMENT:
        return None
    old, new = (b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block for block in blocks)
    changed = file.replace(old, new, 1)
    with Image.open(io.BytesIO(changed)) as copy:
        return changed if copy.getexif().get(image_io.ORIENTATION, 1) == 1 else None
