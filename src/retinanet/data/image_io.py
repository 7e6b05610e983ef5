"""Decodes any image to RGB uint8: training, prediction and evaluation all read pixels here.

Only Pillow is used. torchvision.io gives the same pixels from a JPEG (both decode with libjpeg-turbo). It is 0.5 ms
faster for an image of 640 x 480 (1.5 against 2.0 ms), but reads fewer formats.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError
from retinanet.common.printable import amount
from retinanet.common.text import require_regular
from retinanet.data.image_formats import formats
from retinanet.data.pixel_formats import PixelError, scaled, to_rgb

MAX_PIXELS = 178_956_970
"""Images of more pixels are refused, as by Pillow itself, unless the user sets another limit (:func:`pixel_limit`)."""
LIMIT_VARIABLE = "RETINANET_MAX_PIXELS"
BAND = 1 << 22  # pixels copied at a time
DECODING = 7  # bytes a pixel while an RGB image is decoded: four of Pillow and three of the result
Transpose = Image.Transpose
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm",
     ".pnm", ".jp2", ".mpo", ".avif", ".heic", ".heif", ".hif")
)  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
TURNED = (5, 6, 7, 8)  # orientations that swap width and height
EXPECTED = "give a path, a PIL image, an (H, W, 3) or (H, W) RGB or grey array, or a (3, H, W) tensor"
EPS = (b"%!PS", b"\xc5\xd0\xd3\xc6")  # first bytes of EPS files, plain or with a preview
SIDES = ((b"\x89PNG", 16), (b"BM", 18))  # first bytes, and the offset of width and height (4 bytes each)
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands behind "ftyp"
DEEP = "values of more than 8 bits scaled to 8, each image by its declared or used range"
SEVERAL = "only the first of several pages or frames used"


class ImageError(RequestError):
    """An image cannot be used; ``reason`` is the message without the image's name."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"cannot read the image {name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.reason)


class FormatError(ImageError):
    """A file does not have a format that can be read."""


class TooLargeError(ImageError):
    """An image has more pixels than the limit."""


def pixel_limit(value: int | None = None) -> int:
    """The most pixels that an image may have.

    Args:
        value: the caller's limit. By default it is RETINANET_MAX_PIXELS of the environment, else :data:`MAX_PIXELS`.

    Raises:
        RequestError: the variable is not a whole number of at least 1.
    """
    if value is not None:
        return value
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) < 1:
        raise RequestError(f"{LIMIT_VARIABLE} must be a whole number of pixels, at least 1, not {text!r}")
    return int(text)


def read(
    path: str | os.PathLike[str], exif: bool = True, notes: list[str] | None = None, max_pixels: int | None = None
) -> Tensor:
    """Decode a file to a tensor.

    Grey becomes three equal channels. Transparent pixels are laid over white. More than 8 bits are scaled to 8 (see
    :mod:`retinanet.data.pixel_formats`). Of several pages or frames the first is read.

    Args:
        path: the file.
        exif: rotate the image as its EXIF orientation says.
        notes: gets a sentence for each thing that was scaled, ignored or left out.
        max_pixels: refuse images of more pixels, see :func:`pixel_limit`.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        ImageError: the image cannot be read; the message names the file and the reason.
    """
    with opened(path, max_pixels) as image:
        return _tensor(image, exif, notes)


def to_tensor(image: Any, notes: list[str] | None = None, max_pixels: int | None = None) -> Tensor:
    """Convert any accepted kind of image to (3, H, W) uint8 RGB.

    Args:
        image: a path, the bytes of an image file, a PIL image, an (H, W, 3), (H, W, 1) or (H, W) array (RGB or grey),
            or a (3, H, W) or (1, H, W) tensor. uint8 is used as it is, without a copy where possible; other numbers are
            scaled by :func:`retinanet.data.pixel_formats.scaled`.
        notes, max_pixels: as of :func:`read`.

    Raises:
        ImageError: it is anything else; the message says what is expected.
    """
    if isinstance(image, str | os.PathLike):
        return read(image, notes=notes, max_pixels=max_pixels)
    if isinstance(image, bytes):
        with opened(io.BytesIO(image), max_pixels) as file:
            return _tensor(file, True, notes)
    try:
        if isinstance(image, Image.Image):
            return _tensor(image, True, notes)
        if isinstance(image, np.ndarray):
            return _from_array(image, notes)
        if isinstance(image, Tensor):
            return _from_tensor(image, notes)
    except Exception as error:
        raise ImageError(str(getattr(image, "filename", "") or "given"), why_unreadable(error)) from error
    raise ImageError("given", f"a {type(image).__name__}; {EXPECTED}")


def _from_array(array: np.ndarray[Any, Any], notes: list[str] | None) -> Tensor:
    shape = array.shape
    if array.dtype.kind not in "buif" or not array.size or not (len(shape) == 2 or shape[2:] in ((1,), (3,))):
        raise ImageError("given", f"an array of {array.dtype} and shape {tuple(shape)}; {EXPECTED}")
    array = array.reshape(*shape[:2], -1)
    if array.dtype != np.uint8:
        array = scaled(array, notes=notes)
    elif not array.flags.writeable or min(array.strides) < 0:  # torch accepts neither
        array = array.copy()
    return torch.from_numpy(array).permute(2, 0, 1).expand(3, -1, -1).contiguous()


def _from_tensor(tensor: Tensor, notes: list[str] | None) -> Tensor:
    if tensor.is_complex() or tensor.dim() != 3 or tensor.shape[0] not in (1, 3) or not tensor.numel():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ImageError("given", f"a tensor of {kind} and shape {tuple(tensor.shape)}; {EXPECTED}")
    if tensor.dtype != torch.uint8:
        values = tensor.detach().cpu()
        tensor = torch.from_numpy(
            scaled((values.float() if values.is_floating_point() else values).numpy(), None, notes)
        )
    return tensor.expand(3, -1, -1).contiguous()


def header(path: str | os.PathLike[str], notes: list[str] | None = None) -> tuple[int, int, bool]:
    """Read the size of an image without decoding it, and check the end of the file.

    Args:
        notes: gets a sentence where the file holds several images, or values of more than 8 bits.

    Returns:
        Height and width as stored, and whether EXIF swaps the two.

    Raises:
        ImageError: the file is missing, not an image, too large or truncated.
    """
    with opened(path) as image:
        if notes is not None:
            notes += [SEVERAL] * _several(image) + [DEEP] * (image.mode.startswith("I") or image.mode == "F")
        # Decoding takes time, so JPEG and PNG are only decoded if their end is missing: other data may follow the end
        # of a valid image. Other formats are always decoded; Pillow rotates a TIFF while it decodes.
        if not _ends_well(path, image.format):
            to_rgb(image)
        width, height = image.size
        return height, width, _orientation(image) in TURNED


def pixels(path: str | os.PathLike[str], max_pixels: int | None = None) -> int:
    """The number of pixels of a file; 0 where it cannot be read."""
    try:
        with opened(path, max_pixels) as image:
            return int(image.width * image.height)
    except ImageError:
        return 0


@contextmanager
def opened(source: str | os.PathLike[str] | IO[bytes], max_pixels: int | None = None) -> Iterator[Image.Image]:
    """A context with a file, or the content of a file, as a PIL image that is not decoded yet.

    Raises:
        ImageError: it cannot be opened or has too many pixels, or the body of the context raised an error.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "given"
    limit = pixel_limit(max_pixels)
    try:
        with _pillows_limit(None):
            image = _open(source)
        with image, _pillows_limit(limit):
            width, height = image.size
            if width * height > limit:
                raise TooLargeError(name, _too_large(width, height, limit))
            yield image
    except ImageError as error:
        raise type(error)(name, error.reason) from error.__cause__
    except Exception as error:
        raise ImageError(name, why_unreadable(error)) from error


def _open(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    if isinstance(source, str | os.PathLike):
        require_regular(source)  # opening a pipe would wait
    try:
        return Image.open(source, formats=formats())
    except UnidentifiedImageError:
        start = _start(source)
        if not start:
            raise ImageError("given", "the file is empty") from None
        if start.startswith(EPS):
            raise FormatError("given", "EPS is a program, which is not run; save it as PNG") from None
        sides = next((start[at : at + 8] for kind, at in SIDES if start.startswith(kind)), b"")
        if bytes(4) in (sides[:4], sides[4:]):
            raise ImageError("given", "its width or height is 0") from None
        if start[4:8] != b"ftyp" or start[8:12] not in HEIF:
            raise FormatError("given", "it is not an image that Pillow knows") from None
    try:
        import pillow_heif
    except ImportError:
        raise FormatError("given", "HEIC needs pillow-heif: pip install 'retinanet[heif]'") from None
    pillow_heif.register_heif_opener()
    formats.cache_clear()
    return Image.open(source, formats=formats())


def _start(source: str | os.PathLike[str] | IO[bytes]) -> bytes:
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read(26)
    source.seek(0)
    return source.read(26)


_lock = threading.Lock()
_limits: list[int | None] = []  # those in force, in all threads
_before: int | None = None


@contextmanager
def _pillows_limit(limit: int | None) -> Iterator[None]:
    """Replace Pillow's limit, which is global and warns on the terminal, by the highest limit of all threads."""
    global _before
    with _lock:
        if not _limits:
            _before = Image.MAX_IMAGE_PIXELS
        _limits.append(limit)
        Image.MAX_IMAGE_PIXELS = _highest()
    try:
        yield
    finally:
        with _lock:
            _limits.remove(limit)
            Image.MAX_IMAGE_PIXELS = _highest() if _limits else _before


def _forget_limits() -> None:
    """Start anew in a forked process: it has none of the threads that held the lock or a limit."""
    global _lock
    _lock = threading.Lock()
    if _limits:
        _limits.clear()
        Image.MAX_IMAGE_PIXELS = _before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_limits)


def _highest() -> int | None:
    known = [limit for limit in _limits if limit is not None]
    return max(known) if len(known) == len(_limits) else None


def _too_large(width: int, height: int, limit: int) -> str:
    need = amount(DECODING * width * height)
    return (
        f"it has {width} x {height} = {width * height} pixels, above the limit of {limit}: set "
        f"{LIMIT_VARIABLE} or predict's --max-pixels higher if you trust the file, which takes some {need} of memory"
    )


def why_unreadable(error: BaseException) -> str:
    """The reason why Pillow raised an exception for an image, in a few words."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it is too large to decode safely ({str(error).split(',')[0].lower()})"
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, PixelError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return what_is_wrong(error)
    return f"it is damaged or cut short ({' '.join(str(error).split()) or type(error).__name__})"


def _several(image: Image.Image) -> bool:
    """Whether the file has several images; the others of an MPO are previews and depth maps of the first."""
    try:
        return image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    except Exception:  # the first may be intact where a later one is damaged
        return True


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises nearly anything, but the pixels can be used
        return 1


def _ends_well(path: str | os.PathLike[str], kind: str | None) -> bool:
    """Whether a JPEG or PNG file has the bytes that end an image; False for other formats."""
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind or "")
    if end is None:
        return False
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 64))
        return end in file.read()


def _tensor(image: Image.Image, exif: bool, notes: list[str] | None) -> Tensor:
    if notes is not None and _several(image):
        notes.append(SEVERAL)
    rgb = to_rgb(image, notes)
    turn = UPRIGHT.get(_orientation(image)) if exif else None
    if turn is not None:
        rgb = rgb.transpose(turn)
    result = torch.empty((3, rgb.height, rgb.width), dtype=torch.uint8)
    rows = max(1, BAND // rgb.width)
    for top in range(0, rgb.height, rows):  # in bands, because memory may not hold a second copy of a large image
        band = rgb if rows >= rgb.height else rgb.crop((0, top, rgb.width, min(top + rows, rgb.height)))
        result[:, top : top + rows] = torch.from_numpy(np.array(band)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    return result
