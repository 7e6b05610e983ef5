"""Converts decoded values to 8-bit RGB: bit depths, floating-point values, transparency.

Changes beyond the plain conversion of a mode are noted, in a fixed sentence for each kind so that callers can count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras, scanners and microscopes deliver
NORMALISED = 8.0  # fractions up to here are not values of 0 to 255, which would be black
SLACK = 0.05  # share of the range by which interpolation overshoots in floating-point images
HIDDEN = 16  # where all pixels have less alpha (of 255) the image would be blank: alpha holds something else then
BLOCK = 1 << 22  # values that are scaled at a time: 32 MB
ALPHA_IGNORED = "alpha that hides the whole image ignored"
MAXIMA = (281, 341)  # TIFF's tags MaxSampleValue and SMaxSampleValue
BITS = 258  # TIFF's tag BitsPerSample
SCALERS = ("ppm", "ppm_plain")  # decoders that already scale values from the declared range to 16 bits


class PixelError(ValueError):
    """Values cannot be converted to 8-bit RGB; the message says why and what to do."""


def to_rgb(image: Image.Image, notes: list[str] | None = None) -> Image.Image:
    """Decode an image of any mode to RGB; an RGB image is returned as it is.

    Transparent pixels are laid over white, unless that would hide the whole image. More than 8 bits and floating-point
    values are scaled by :func:`scaled`.

    Args:
        notes: gets a sentence for each thing that was scaled or ignored.

    Raises:
        PixelError: values below 0 or not finite, or a colour image of 16 bits that uses few of them.
    """
    decoder, *_, how = next(iter(getattr(image, "tile", ())), ("", ""))  # only known before decoding
    deep = image.mode in ("RGB", "RGBA") and ";16" in str(how)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(scaled(np.asarray(image), _declared(image, decoder), notes)).convert("RGB")
    if image.has_transparency_data:
        rgb = _over_white(image.convert("RGBA"), notes)
    elif image.mode == "RGB":
        image.load()
        rgb = image
    else:
        rgb = image.convert("RGB")
    return _from_upper_bytes(rgb, notes) if deep else rgb


def scaled(values: NDArray[Any], declared: float | None = None, notes: list[str] | None = None) -> NDArray[np.uint8]:
    """Scale values of any numeric type to uint8, in the same shape.

    The declared range becomes 0 to 255. If there is none, or values exceed it, it is the smallest range that holds all
    values: 0 to 1 (floating point only), 8, 10, 12, 14 or 16 bits, or any higher number of bits. False and True become
    0 and 255.

    Raises:
        PixelError: values that are not real numbers, not finite, or below 0.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise PixelError(f"its values are {values.dtype}, no real numbers")
    floating = values.dtype.kind == "f"
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise PixelError("some of its floating-point values are not finite; replace them, or save it with 8 bits")
    full = _maximum(high, declared, floating)
    # Interpolation gives values a little below 0. Lower values, or a range slightly wider than 0 to 1, are normalised.
    normalised = floating and 1 < high < NORMALISED and full > high * (1 + SLACK)
    if low < (-SLACK * min(full, high) if floating else 0) or (normalised and not (np.rint(values) == values).all()):
        raise PixelError(f"its values go from {low:g} to {high:g}: give 0 to 255, or floating-point values of 0 to 1")
    if notes is not None:
        notes.append(f"values of 0 to {full:.10g} scaled to 8 bits")
    result = np.empty(values.shape, np.uint8)
    rows = max(1, BLOCK // max(1, values[0].size))
    for start in range(0, len(values), rows):
        block = values[start : start + rows].astype(np.float64) * (255 / full)
        result[start : start + rows] = np.clip(np.rint(block), 0, 255)
    return result


def _maximum(high: float, declared: float | None, floating: bool) -> float:
    """The value that becomes 255."""
    slack = 1 + SLACK if floating else 1
    if declared is not None and high <= declared * slack:
        return declared
    ranges = [1.0] * floating + [2.0**bits - 1 for bits in DEPTHS]
    return next((full for full in ranges if high <= full * slack), 2.0 ** int(high).bit_length() - 1)


def _declared(image: Image.Image, decoder: str) -> float | None:
    """The largest pixel value that the file declares; None where it only declares the size of its numbers."""
    if decoder in SCALERS:
        return 65535.0
    tags: Any = getattr(image, "tag_v2", {})
    for tag in MAXIMA:
        value = tags.get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int | float) and 0 < value < float("inf"):
            return float(value)
    bits = tags.get(BITS, (16,))[0]
    return None if bits in (16, 32) else 2.0**bits - 1


def _over_white(layer: Image.Image, notes: list[str] | None) -> Image.Image:
    """RGBA over white. Alpha is ignored if it would hide the whole image."""
    if np.asarray(layer.getchannel("A")).max() < HIDDEN:
        if notes is not None:
            notes.append(ALPHA_IGNORED)
        return layer.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _from_upper_bytes(rgb: Image.Image, notes: list[str] | None) -> Image.Image:
    """A colour image of 16 bits, of which Pillow keeps the upper 8: it would be dark if 14 bits or fewer are used."""
    high = int(np.asarray(rgb).max())
    if high >= 64:
        return rgb
    if high < 16:
        raise PixelError(
            f"its channels of 16 bits hold no value above {256 * high + 255}, too few to scale; save it with 8 bits"
        )
    if notes is not None:
        notes.append("values of 0 to 16383 scaled to 8 bits")
    return rgb.point(lambda value: min(255, round(value * 255 / 63)))
