"""From a file in memory to pixels; how many they are is looked at before they are decoded."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from retinanet.data.image_io import DECODING, FormatError, ImageError, TooLargeError, opened, to_tensor
from retinanet.serve.limits import DECODED, Limits, Refused, Share

if TYPE_CHECKING:
    from torch import Tensor


def decode(file: io.BytesIO, limits: Limits, share: Share) -> Tensor:
    """An image's pixels, read as by all commands (:mod:`retinanet.data.image_io`). The file is closed.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        Refused: 413 too many pixels, 415 no image of a known format, 422 damaged.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    taken = 0
    try:
        with file, opened(file, limits.pixels) as image:
            pixels = image.width * image.height
            share.take(DECODING * pixels)
            taken = DECODING * pixels
            decoded = to_tensor(image)
    except TooLargeError:
        raise Refused(413, f"it has more than {limits.megapixels:g} megapixels") from None
    except FormatError as error:
        raise Refused(415, error.reason) from None
    except ImageError as error:
        share.give(taken)
        if isinstance(error.__cause__, Refused):
            raise error.__cause__ from None
        raise Refused(422, error.reason) from None
    share.give(taken - DECODED * pixels + size)
    return decoded
