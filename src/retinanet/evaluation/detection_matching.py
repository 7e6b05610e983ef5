"""Which detection matches which ground-truth box: one image at one IoU, by COCO's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections

LIMIT = 100
"""COCO's AP uses this many detections of one class in one image, those with the highest scores."""


@dataclass(frozen=True)
class Pairs:
    """The n detections of one image, by descending score, matched to its m ground-truth boxes.

    The match of a detection depends only on those with higher scores. Dropping the detections below a score
    changes no other match.
    """

    indices: NDArray[np.int64]
    """(n,) index of each detection in the image's ``Detections``."""
    scores: NDArray[np.float64]
    """(n,)"""
    labels: NDArray[np.int64]
    """(n,)"""
    ranks: NDArray[np.int64]
    """(n,) how many detections of the same class come before it."""
    overlap: NDArray[np.float64]
    """(n, m) IoU; with a crowd the share of the detection that lies in it."""
    boxes: NDArray[np.int64]
    """(n,) index of the matched box, which has the same class; -1 for none."""
    ignored: NDArray[np.bool_]
    """(n,) whether it lies in a crowd of its class, and is neither right nor wrong."""
    box_labels: NDArray[np.int64]
    """(m,)"""
    crowd: NDArray[np.bool_]
    """(m,)"""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the detection matches a box."""
        return self.boxes >= 0


def pair(data: DetectionData, detections: Mapping[int, Detections], index: int, iou: float) -> Pairs:
    """Match the detections of one image to its boxes, class by class; an image without an entry has no detections."""
    box_labels, crowd = data.labels(index), data.crowd(index)
    corners, scores, labels = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    if index in detections:
        image = detections[index]
        corners, scores = image.boxes.double().numpy(), image.scores.double().numpy()
        labels = image.labels.numpy().astype(np.int64)
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]

    overlap = overlaps(corners[order], data.boxes(index).astype(np.float64), crowd)
    possible = (labels[:, None] == box_labels[None]) & reaches(overlap, iou)  # (n, m)
    boxes = nearest_free(overlap, possible & ~crowd)
    ignored = (boxes < 0) & (possible & crowd).any(axis=1)  # any number of detections may lie in one crowd

    by_label = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[by_label] = np.arange(len(labels)) - np.searchsorted(labels[by_label], labels[by_label])
    return Pairs(order, scores, labels, ranks, overlap, boxes, ignored, box_labels, crowd)


def overlaps(boxes: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU (n, m) of (n, 4) detections and (m, 4) truth; with a crowd the share of the detection that lies in it."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    inner = sides[..., 0] * sides[..., 1]
    area, area_truth = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, truth))
    outer = np.where(crowd[None], area[:, None], area[:, None] + area_truth[None] - inner)
    return np.divide(inner, outer, out=np.zeros_like(inner), where=outer > 0)


def reaches(overlap: NDArray[np.float64], iou: float) -> NDArray[np.bool_]:
    """Whether overlaps reach ``iou``; an IoU of 1 has COCO's allowance for rounding."""
    return overlap >= min(iou, 1 - 1e-10)


def nearest_free(overlap: NDArray[np.float64], possible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The box that each detection takes: the possible one with the highest overlap that no earlier detection took.

    Args:
        overlap: (n, m).
        possible: (n, m) which pairs are allowed.

    Returns:
        (n,) indices of boxes, -1 for none. Among equal overlaps the last box wins, as in COCO's code.
    """
    taken = np.full(len(overlap), -1, np.int64)
    rows, columns = np.nonzero(possible)
    nearest = np.lexsort((-columns, -overlap[rows, columns], rows))
    used: set[int] = set()
    for row, column in zip(rows[nearest].tolist(), columns[nearest].tolist()):
        if taken[row] < 0 and column not in used:
            taken[row] = column
            used.add(column)
    return taken
