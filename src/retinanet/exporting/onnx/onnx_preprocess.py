"""The part of an ONNX file before the network: from uint8 images to its input.

The same function as :mod:`retinanet.ops.resize` and :mod:`retinanet.ops.opencv_resize`, in ONNX's own operators
(opset 18) and in the order of the calculation there. A batch holds B images of one size, so that resizing and padding
are the same for all of them. Sides and scales are calculated in float64, as Python does, or a side of 800 pixels could
become 799.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from retinanet.config.model_settings import PreprocessingSettings
from retinanet.exporting.onnx.onnx_ops import Ops
from retinanet.ops.opencv_resize import BITS

PILLOW_BITS = 22
"""In Pillow a weight of 1 is 2 ** 22; in PyTorch at most that."""


class Sides(NamedTuple):
    """Names of (2,) tensors, height before width."""

    original: str
    """float64, of the images as given."""
    resized: str
    """float64, whole numbers, of the resized images."""
    padded: str
    """int64, of the network's input."""
    scale: str
    """float64: how many resized pixels are one original pixel."""


def preprocess(ops: Ops, images: str, settings: PreprocessingSettings, output: str) -> Sides:
    """Resize, normalise, pad: ``images`` (B, H, W, 3) uint8 RGB -> ``output`` (B, 3, H', W') float32."""
    shape = ops.Shape(images)
    original = ops.cast(ops.slice(shape, 1, 3), np.float64)
    resized, factor = _resized(ops, original, settings)
    scale = factor if settings.rounding == "detectron" else ops.Div(resized, original)
    pixels = _resize(ops, images, resized, scale, settings)

    assert settings.mean is not None, "the model fills it in"
    assert settings.std is not None, "the model fills it in"
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    normalised = ops.Mul(ops.Sub(pixels, ops.floats((mean * 255).numpy())), ops.floats((1 / (255 * std)).numpy()))

    sides = ops.cast(resized, np.int64)
    least = ops.Max(sides, ops.ints([settings.size] * 2)) if settings.resize == "square" else sides
    if settings.resize == "square":  # both sides of a square are the longer one, which rounding may have changed
        least = ops.Expand(ops.ReduceMax(least, keepdims=1), ops.ints([2]))
    multiple = ops.ints([settings.multiple])
    padded = ops.Mul(ops.Div(ops.Add(least, ops.ints([settings.multiple - 1])), multiple), multiple)
    missing = ops.Concat(ops.ints([0] * 6), ops.Sub(padded, sides), axis=0)
    ops.Pad(normalised, missing, ops.floats(0), mode="constant", outputs=[output])
    return Sides(original, resized, padded, scale)


def _resized(ops: Ops, original: str, settings: PreprocessingSettings) -> tuple[str, str]:
    """Whole sides of the resized image, and the factor (2,) that they are rounded from."""
    if settings.resize == "none":
        return original, ops.doubles([1.0, 1.0])
    shorter, longer = ops.ReduceMin(original, keepdims=1), ops.ReduceMax(original, keepdims=1)
    size, longest = ops.doubles([settings.size]), ops.doubles([settings.longer])
    if settings.resize == "square":
        factor = ops.Div(size, longer)
    else:
        factor = ops.Div(size, shorter)
        if settings.rounding == "detectron2":
            sides = ops.Where(ops.Equal(original, shorter), size, ops.Mul(factor, original))
            limit = ops.Min(ops.doubles([1.0]), ops.Div(longest, ops.ReduceMax(sides, keepdims=1)))
            return _rounded(ops, ops.Mul(sides, limit), settings), factor
        reached = ops.Mul(factor, longer)
        if settings.rounding == "detectron":
            reached = ops.Round(reached)
        factor = ops.Where(ops.Greater(reached, longest), ops.Div(longest, longer), factor)
    factor = ops.Expand(factor, ops.ints([2]))
    return _rounded(ops, ops.Mul(original, factor), settings), factor


def _rounded(ops: Ops, sides: str, settings: PreprocessingSettings) -> str:
    if settings.rounding == "detectron":
        sides = ops.Round(sides)  # half to even
    else:
        sides = ops.Floor(sides if settings.rounding == "down" else ops.Add(sides, ops.doubles(0.5)))
    least: str = ops.Max(sides, ops.doubles(1.0))
    return least


def _resize(ops: Ops, images: str, resized: str, scale: str, settings: PreprocessingSettings) -> str:
    """(B, H, W, 3) uint8 -> (B, 3, h, w) float32 in 0..255."""
    if settings.resize != "none" and settings.interpolation == "opencv":
        images = _resize_opencv(ops, images, resized)
    pixels = ops.Transpose(images, perm=[0, 3, 1, 2])
    if settings.resize == "none" or settings.interpolation == "opencv":
        return ops.cast(pixels, np.float32)
    if settings.interpolation != "plain":
        return _resize_averaging(ops, pixels, resized, settings.interpolation)
    pixels = ops.cast(pixels, np.float32)
    sizes = ops.Concat(ops.slice(ops.Shape(pixels), 0, 2), ops.cast(resized, np.int64), axis=0)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if settings.rounding != "detectron":
        resampled: str = ops.Resize(pixels, "", "", sizes, **linear)
        return resampled
    # The scale is not the ratio of the sides. Given a scale, ONNX rounds the sides down, so that there must be some to
    # spare: the last row and column again, which is what a resize sees beyond the edge.
    spare = ops.cast(ops.Add(ops.Ceil(ops.Div(ops.doubles(1.0), scale)), ops.doubles(1.0)), np.int64)
    pixels = ops.Pad(pixels, ops.Concat(ops.ints([0] * 6), spare, axis=0), "", mode="edge")
    scales = ops.Concat(ops.floats([1.0, 1.0]), ops.cast(scale, np.float32), axis=0)
    larger = ops.Resize(pixels, "", scales, **linear)
    cut: str = ops.Slice(larger, ops.ints([0, 0]), ops.cast(resized, np.int64), ops.ints([2, 3]))
    return cut


def _resize_averaging(ops: Ops, pixels: str, resized: str, interpolation: str) -> str:
    """Bilinear, averaging over pixels that disappear, rounded after each axis, as PyTorch and Pillow do it on bytes.

    ONNX's own antialiased resize is not taken: it has neither their weights, whole numbers, nor their rounding, and a
    grey level in one pixel of a thousand can move scores by more than 0.001. A product with a matrix of weights has.
    The width comes first, as in PyTorch; Pillow takes the height first where that is less work, in some versions.
    """
    sides = ops.Shape(pixels, start=2, end=4)
    # Weights of 15 bits times values of 8 fit into float32 up to a shrinking by 4, as the values are from -128 to 127;
    # behind that, single pixels may be the next level. Pillow's weights have 22 bits.
    kind = np.float64 if interpolation == "pillow" else np.float32
    middle, half = ops.doubles(128.0), ops.doubles(0.5)
    pixels = ops.cast(pixels, np.float64)
    for axis in (1, 0):
        weights, one = _weights(ops, sides, resized, axis, interpolation)
        shifted, narrow = ops.cast(ops.Sub(pixels, middle), kind), ops.cast(weights, kind)
        rest = ops.Mul(ops.ReduceSum(weights, ops.ints([1])), middle)  # (target, 1)
        if axis == 1:
            total = ops.MatMul(shifted, ops.Transpose(narrow, perm=[1, 0]))  # (B, 3, H, W) x (W, w)
            rest = ops.Transpose(rest, perm=[1, 0])
        else:
            total = ops.MatMul(narrow, shifted)  # (h, H) x (B, 3, H, w)
        pixels = ops.Floor(ops.Add(ops.Div(ops.Add(ops.cast(total, np.float64), rest), one), half))
        pixels = ops.Min(pixels, ops.doubles(255.0))  # rounded weights may add up to more than one
    result: str = ops.cast(pixels, np.float32)
    return result


def _weights(ops: Ops, sides: str, resized: str, axis: int, interpolation: str) -> tuple[str, str]:
    """Whole weights (target, source) of source pixels along the height (axis 0) or width (1), and what stands for 1."""
    source = ops.Gather(sides, ops.ints(axis))
    target, half = ops.Gather(resized, ops.ints(axis)), ops.doubles(0.5)
    scale = ops.Div(ops.cast(source, np.float64), target)
    targets = ops.cast(ops.Range(ops.ints(0), ops.cast(target, np.int64), ops.ints(1)), np.float64)
    sources = ops.cast(ops.Range(ops.ints(0), source, ops.ints(1)), np.float64)
    centres = ops.Unsqueeze(ops.Mul(ops.Add(targets, half), scale), ops.ints([1]))  # (target, 1)
    apart = ops.Mul(
        ops.Add(ops.Sub(sources, centres), half), ops.Div(ops.doubles(1.0), ops.Max(scale, ops.doubles(1.0)))
    )
    weights = ops.Max(ops.Sub(ops.doubles(1.0), ops.Abs(apart)), ops.doubles(0.0))
    weights = ops.Div(weights, ops.ReduceSum(weights, ops.ints([1])))
    powers = 2.0 ** np.arange(PILLOW_BITS + 1)
    if interpolation == "pillow":
        one = ops.doubles(powers[-1])
    else:  # PyTorch takes the largest power of two with which all weights stay below 2 ** 15
        largest = ops.ReduceMax(weights, keepdims=0)
        fits = ops.Less(ops.Floor(ops.Add(ops.Mul(largest, ops.doubles(powers[1:])), half)), ops.doubles(2.0**15))
        one = ops.Gather(ops.doubles(powers), ops.ReduceSum(ops.cast(fits, np.int64), keepdims=0))
    whole = ops.Floor(ops.Add(ops.Mul(weights, one), half))
    return whole, one


def _resize_opencv(ops: Ops, images: str, resized: str) -> str:
    """(B, H, W, 3) uint8 -> (B, h, w, 3) int32, to the last bit; see :mod:`retinanet.ops.opencv_resize`.

    Half as high and half as wide needs no rule of its own: the weights are halves, and nothing is lost on the way.
    """
    sides = ops.Shape(images, start=1, end=3)
    (upper, lower, upper_weight, lower_weight) = _taps(ops, sides, resized, 0)
    (left, right, left_weight, right_weight) = _taps(ops, sides, resized, 1)

    def mixed(pixels: str, axis: int, indices: tuple[str, str], weights: tuple[str, str], drop: int) -> str:
        products = []
        for index, weight in zip(indices, weights):
            taken = ops.cast(ops.Gather(pixels, index, axis=axis), np.int32)
            # A weight for each column, (w, 1), or each row, (h, 1, 1). All is positive: dividing drops the low bits.
            product = ops.Mul(taken, ops.Unsqueeze(weight, ops.ints([1] if axis == 2 else [1, 2])))
            products.append(product if axis == 2 else ops.Div(product, ops.constant(2**drop, np.int32)))
        total: str = ops.Add(*products)
        return ops.Div(total, ops.constant(2**drop, np.int32)) if axis == 2 else total

    rows = mixed(images, 2, (left, right), (left_weight, right_weight), 4)
    total = mixed(rows, 1, (upper, lower), (upper_weight, lower_weight), 16)
    result: str = ops.Div(ops.Add(total, ops.constant(2, np.int32)), ops.constant(4, np.int32))
    return result


def _taps(ops: Ops, sides: str, resized: str, axis: int) -> tuple[str, str, str, str]:
    """As :func:`retinanet.ops.opencv_resize.taps`, along the height (axis 0) or the width (1)."""
    source, target = ops.Gather(sides, ops.ints(axis)), ops.Gather(resized, ops.ints(axis))
    last = ops.Sub(source, ops.ints(1))
    one, half = ops.doubles(1.0), ops.doubles(0.5)
    scale = ops.Div(one, ops.Div(target, ops.cast(source, np.float64)))
    number = ops.cast(ops.Range(ops.ints(0), ops.cast(target, np.int64), ops.ints(1)), np.float64)
    position = ops.cast(ops.Sub(ops.Mul(ops.Add(number, half), scale), half), np.float32)
    below = ops.Floor(position)
    fraction, first = ops.Sub(position, below), ops.cast(below, np.int64)
    if axis == 1:  # beyond the centres of its first and last pixel a row takes their values
        outside = ops.Or(ops.Less(first, ops.ints(0)), ops.GreaterOrEqual(first, last))
        fraction = ops.Where(outside, ops.floats(0), fraction)
    weights = []
    for weight in (ops.Sub(ops.floats(1), fraction), fraction):
        weights.append(ops.cast(ops.Round(ops.Mul(weight, ops.floats(2**BITS))), np.int32))  # halves to even
    indices = [ops.Min(ops.Max(index, ops.ints(0)), last) for index in (first, ops.Add(first, ops.ints(1)))]
    return indices[0], indices[1], weights[0], weights[1]
