"""Which detection found which box: one image at one IoU, by COCO's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.bootstrap import overlaps

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections


@dataclass(frozen=True)
class Pairs:
    """The n detections of one image, the surest first, held against its m boxes.

    Whether a detection is right depends on surer ones alone: to drop those at or below some score changes no other.
    """

    places: NDArray[np.int64]
    """(n,) where each stands among the image's detections."""
    scores: NDArray[np.float64]
    """(n,)"""
    labels: NDArray[np.int64]
    """(n,)"""
    ranks: NDArray[np.int64]
    """(n,) how many surer detections of its class the image has; COCO's AP counts those below 100."""
    overlap: NDArray[np.float64]
    """(n, m) IoU; with a crowd the share of the detection that lies in it."""
    boxes: NDArray[np.int64]
    """(n,) the box of its class that it found, -1 for none."""
    ignored: NDArray[np.bool_]
    """(n,) whether it lies in a crowd of its class, and is neither right nor wrong."""
    truths: NDArray[np.int64]
    """(m,) labels of the boxes."""
    crowd: NDArray[np.bool_]
    """(m,)"""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether it found a box."""
        return self.boxes >= 0


def pair(data: DetectionData, found: Mapping[int, Detections], index: int, iou: float) -> Pairs:
    """Hold one image's detections against its boxes, class by class; an image not in ``found`` counts as empty."""
    truths, crowd = data.labels(index), data.crowd(index)
    corners, scores, labels = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    if index in found:
        detections = found[index]
        corners, scores = detections.boxes.double().numpy(), detections.scores.double().numpy()
        labels = detections.labels.numpy().astype(np.int64)
    places = np.argsort(-scores, kind="stable")
    scores, labels = scores[places], labels[places]

    overlap = overlaps(corners[places], data.boxes(index).astype(np.float64), crowd)
    possible = (labels[:, None] == truths[None]) & reaches(overlap, iou)  # (n, m)
    boxes = nearest_free(overlap, possible & ~crowd)
    ignored = (boxes < 0) & (possible & crowd).any(axis=1)  # crowds are never used up

    by_label = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[by_label] = np.arange(len(labels)) - np.searchsorted(labels[by_label], labels[by_label])
    return Pairs(places, scores, labels, ranks, overlap, boxes, ignored, truths, crowd)


def reaches(overlap: NDArray[np.float64], iou: float) -> NDArray[np.bool_]:
    """Whether overlaps are enough; at an IoU of 1 with COCO's allowance for rounding."""
    return overlap >= min(iou, 1 - 1e-10)


def nearest_free(overlap: NDArray[np.float64], possible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Each detection in turn takes the nearest possible box that is left.

    Args:
        overlap: (n, m).
        possible: (n, m) which pairs are allowed.

    Returns:
        (n,) boxes, -1 for none. Of boxes as near the last one is taken, as in COCO's code.
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
