"""How many of one detector's boxes another one has too."""

from __future__ import annotations

from retinanet.inference.detections import Detections
from retinanet.ops import boxes as geometry

SCORE = 0.3
"""Boxes of the first model with a higher score are looked for in what the others find..."""
IOU = 0.9
"""...overlapping by at least this, with the same class name."""


def found_again(first: Detections, other: Detections, score: float = SCORE, overlap: float = IOU) -> tuple[int, int]:
    """How many boxes of ``first`` have a higher score than ``score``, and how many of them ``other`` has as well."""
    wanted = first.above(score)
    sides = wanted.boxes[:, 2:] - wanted.boxes[:, :2]
    solid = sides.amin(dim=1) > 0  # an empty box overlaps nothing, not even itself
    wanted = Detections(wanted.boxes[solid], wanted.scores[solid], wanted.labels[solid], wanted.class_names)
    if not len(wanted) or not len(other):
        return len(wanted), 0
    near = geometry.iou(wanted.boxes, other.boxes) >= overlap  # (n, m)
    names = other.names
    again = 0
    for row, name in zip(near.tolist(), wanted.names):  # by name: two models may number their classes otherwise
        again += any(is_near and label == name for is_near, label in zip(row, names))
    return len(wanted), again
