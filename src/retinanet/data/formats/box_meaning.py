"""Tells boxes written as two corners from boxes written as a corner and sides, where a layout has both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SURE = 0.05  # share of boxes that leave their image: a few do by mistake
TOLERANCE = 1.01  # image sides


def are_corners(numbers: NDArray[np.float64], limits: NDArray[np.float64]) -> bool:
    """Whether boxes can only be corners: as x y w h several leave their image, as x1 y1 x2 y2 all fit.

    Args:
        numbers: (n, 4) the boxes as written.
        limits: (n, 2) width and height of their images.
    """
    known = np.isfinite(numbers).all(1) & (limits > 0).all(1)
    numbers, limits = numbers[known], limits[known] * TOLERANCE
    if not len(numbers):
        return False
    first, second = numbers[:, :2], numbers[:, 2:]
    leaving = (first + second > limits).any(1).mean()
    return bool(leaving >= SURE and ((first < second) & (second <= limits)).all())
