"""From a file in memory to pixels; how many they are is looked at before they are decoded."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from retinanet.data.pictures import PictureError, to_tensor, what_is_wrong
from retinanet.deploy.serve.limits import DECODED, DECODING, Limits, Refused, Share

if TYPE_CHECKING:
    from torch import Tensor

# Of what Pillow opens: no format that starts other programs (EPS) or that nobody photographs in.
KNOWN = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")


@cache
def formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in KNOWN if name in Image.OPEN)


def decode(file: io.BytesIO, limits: Limits, share: Share) -> Tensor:
    """A picture's pixels, turned as its EXIF says; of an animation the first frame. The file is closed.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        Refused: 413 too many pixels, 415 no picture of a known format, 422 damaged.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with file:
        try:
            image = Image.open(file, formats=formats())
        except UnidentifiedImageError:
            if size == 0:
                raise Refused(422, "the file is empty") from None
            known = ", ".join(name for name in formats() if name not in ("MPO", "DIB"))
            raise Refused(415, f"it is not a picture of a known format ({known})") from None
        except Image.DecompressionBombError:
            raise Refused(413, f"it has more than {limits.megapixels:g} megapixels") from None
        except Exception as error:
            raise Refused(422, what_is_wrong(error)) from None
        with image:
            pixels = image.width * image.height
            if pixels > limits.pixels:
                raise Refused(413, f"{image.width} x {image.height} are more than {limits.megapixels:g} megapixels")
            share.take(DECODING * pixels)
            try:
                picture = to_tensor(image)
            except PictureError as error:
                share.give(DECODING * pixels)
                raise Refused(422, error.reason) from None
    share.give((DECODING - DECODED) * pixels + size)
    return picture
