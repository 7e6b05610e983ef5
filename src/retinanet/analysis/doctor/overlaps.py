"""Boxes of one image that overlap, in all images at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def overlapping(
    boxes: NDArray[np.float32], owner: NDArray[np.int32], least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of boxes (M, 4) of one image, ``owner`` (M,), with an IoU above ``least`` > 0: places and IoU, (P,) each.

    The boxes are sorted by image and left edge, and each is compared with the next, the one after that and so on
    while that one can still overlap enough: an IoU above t leaves x1 no further than (1 - t) of the width. That looks
    at few of all pairs, and at a million boxes takes about a second.
    """
    order = np.lexsort((boxes[:, 0], owner))
    x1, y1, x2, y2 = boxes[order].T.copy()
    image = owner[order]
    bound = x1 + (1 - least) * (x2 - x1)
    area = (x2 - x1) * (y2 - y1)
    first, second, overlap = [], [], []
    active, lag = np.arange(len(order) - 1), 0
    while len(active):
        lag += 1
        active = active[active + lag < len(order)]
        i, j = active, active + lag
        near = (image[i] == image[j]) & (x1[j] <= bound[i])
        active = i = i[near]
        j = j[near]
        width = np.minimum(x2[i], x2[j]) - x1[j]
        height = np.minimum(y2[i], y2[j]) - np.maximum(y1[i], y1[j])
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        iou = inter / (area[i] + area[j] - inter)
        found = iou > least
        first.append(order[i[found]])
        second.append(order[j[found]])
        overlap.append(iou[found])
    if not first:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    return np.concatenate(first), np.concatenate(second), np.concatenate(overlap)
