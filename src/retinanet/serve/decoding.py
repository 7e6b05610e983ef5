"""Decodes a file in memory; its number of pixels is checked before that."""

from __future__ import annotations

import io
from typing import BinaryIO

from torch import Tensor

from retinanet.data.image_io import DECODING, FormatError, ImageError, TooLargeError, opened, to_tensor
from retinanet.serve.limits import DECODED, Allocation, Limits, Refused


def decode(file: BinaryIO, limits: Limits, allocation: Allocation) -> Tensor:
    """An image's pixels, read as by all commands (:mod:`retinanet.data.image_io`). The file is closed.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        Refused: 413 too many pixels, 415 not an image of a known format, 422 damaged.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    taken = 0
    try:
        with file, opened(file, limits.pixels) as image:
            pixels = image.width * image.height
            allocation.take(DECODING * pixels)
            taken = DECODING * pixels
            decoded = to_tensor(image)
    except TooLargeError:
        raise Refused(413, f"it has more than {limits.megapixels:g} megapixels") from None
    except FormatError as error:
        raise Refused(415, error.reason) from None
    except ImageError as error:
        allocation.give_back(taken)
        if isinstance(error.__cause__, Refused):
            raise error.__cause__ from None
        raise Refused(422, error.reason) from None
    allocation.give_back(taken - DECODED * pixels + size)
    return decoded
