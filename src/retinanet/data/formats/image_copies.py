"""An image's file, copied for another data set: byte for byte wherever its boxes stay right."""

from __future__ import annotations

import io
import shutil
import struct
from pathlib import Path

from PIL import Image

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import WorkError, first_line
from retinanet.data import image_io
from retinanet.data.dataset import DetectionData


def copy(data: DetectionData, index: int, target: Path, by_suffix: bool) -> list[str]:
    """Write an image to ``target``; returns what of the copy is not as it was.

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
    differs = [] if bool(data.annotations.exif[index]) else ["images copied without their EXIF orientation"]
    return differs + ["images written as PNG"] * (changed is not None and suffix == ".png")


def content(data: DetectionData, index: int, by_suffix: bool) -> tuple[str, bytes | None]:
    """The suffix and the bytes of an image's copy; None where the file is copied as it is.

    Args:
        by_suffix: the layout knows images by their suffix, so the copy has one that it knows.
    """
    path, as_is = data.path(index), bool(data.annotations.exif[index])
    suffix = path.suffix
    known = not by_suffix or suffix.lower() in image_io.SUFFIXES
    if as_is and known:
        return suffix, None
    try:
        with image_io.opened(path) as image:
            kind = str(image.format).lower()
            exif = image.info.get("exif", b"")
        if not known:
            suffix = f".{kind}"
        if suffix.lower() in image_io.SUFFIXES or known:
            if as_is:
                return suffix, None
            if kind in ("jpeg", "mpo") and (changed := _unturned(path.read_bytes(), exif)):
                return suffix, changed
    except Exception as error:
        raise WorkError(f"cannot read the image {path}: {first_line(error)}") from error
    file = io.BytesIO()
    Image.fromarray(data.read(index).permute(1, 2, 0).numpy()).save(file, "PNG")
    return ".png", file.getvalue()


def _unturned(file: bytes, exif: bytes) -> bytes | None:
    """A JPEG file whose EXIF orientation is 1, else the same bytes; None where the orientation lies elsewhere."""
    if not exif or exif not in file:
        return None
    start = file.index(exif) + len(b"Exif\0\0")
    order = "<" if exif[6:8] == b"II" else ">"
    changed = bytearray(file)
    try:
        (directory,) = struct.unpack_from(f"{order}I", file, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", file, start + directory)
        for entry in range(start + directory + 2, start + directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", file, entry)
            if tag == image_io.ORIENTATION:
                struct.pack_into(order + {3: "H", 4: "I"}[kind], changed, entry + 8, 1)
        with Image.open(io.BytesIO(changed)) as image:
            return bytes(changed) if image.getexif().get(image_io.ORIENTATION, 1) == 1 else None
    except (struct.error, KeyError, OSError):
        return None
