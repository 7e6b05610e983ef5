"""Boxes around shapes that are not upright boxes: outlines and rotated rectangles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

ROTATED = "rotated box, the upright box around it is read"
NO_BOX = "shape without a box"
"""Points, lines and masks: they are left out."""

Box = tuple[float, float, float, float]


def around(points: Iterable[Sequence[float]]) -> Box:
    """The box x1 y1 x2 y2 around points.

    Raises:
        ValueError: there is no point, or one that does not have two numbers.
    """
    xs, ys = [], []
    for x, y in points:
        xs.append(x)
        ys.append(y)
    if not all(map(math.isfinite, (*xs, *ys))):
        return math.nan, math.nan, math.nan, math.nan
    return min(xs), min(ys), max(xs), max(ys)


def rotated(box: Box, degrees: float, pivot: tuple[float, float]) -> Box:
    """The upright box around a box in pixels that is rotated clockwise about a point."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    corners = ((x - pivot[0], y - pivot[1]) for x in (box[0], box[2]) for y in (box[1], box[3]))
    return around((pivot[0] + x * cosine - y * sine, pivot[1] + x * sine + y * cosine) for x, y in corners)
