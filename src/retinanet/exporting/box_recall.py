"""How many of one detector's boxes another one has too."""

from __future__ import annotations

from retinanet.inference.detections import Detections
from retinanet.ops import boxes as geometry

SCORE = 0.3
"""Boxes of the first model with a higher score than this count..."""
IOU = 0.9
"""...as recalled by a box of the same class name that overlaps by at least this."""


def recall_counts(first: Detections, other: Detections, score: float = SCORE, overlap: float = IOU) -> tuple[int, int]:
    """Numbers of boxes of ``first`` with a score above ``score``, and of those that ``other`` has as well."""
    wanted = first.above(score)
    sides = wanted.boxes[:, 2:] - wanted.boxes[:, :2]
    solid = sides.amin(dim=1) > 0  # an empty box overlaps nothing, not even itself
    wanted = Detections(wanted.boxes[solid], wanted.scores[solid], wanted.labels[solid], wanted.class_names)
    if not len(wanted) or not len(other):
        return len(wanted), 0
    near = geometry.iou(wanted.boxes, other.boxes) >= overlap  # (n, m)
    names = other.names
    recalled = 0
    for row, name in zip(near.tolist(), wanted.names):  # by name: two models may order their classes differently
        recalled += any(is_near and label == name for is_near, label in zip(row, names))
    return len(wanted), recalled
