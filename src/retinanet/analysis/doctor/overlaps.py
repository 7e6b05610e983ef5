"""Finds overlapping boxes, in all images at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def overlapping(
    boxes: NDArray[np.float32], owner: NDArray[np.int32], least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of boxes of one image with an IoU above ``least``.

    The boxes are sorted by image and left edge. Each is compared with the next one, the one after that and so on, while
    these can overlap enough: with an IoU above t, the other's x1 is at most (1 - t) of the width away. So only a few of
    all pairs are compared; a million boxes take about a second.

    Args:
        boxes: (M, 4).
        owner: (M,) index of each box's image.
        least: above 0.

    Returns:
        Indices of the first boxes, of the second boxes, and the IoU, (P,) each.
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
        enough = iou > least
        first.append(order[i[enough]])
        second.append(order[j[enough]])
        overlap.append(iou[enough])
    if not first:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    return np.concatenate(first), np.concatenate(second), np.concatenate(overlap)
