"""The kinds of errors a detector makes, and how much AP50 each kind costs.

After Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors" (ECCV 2020). A detection that is
not right is an error of the first kind that fits, in the order of their code:

- location: 0.1 <= IoU < 0.5 with the nearest box of its class
- class: IoU >= 0.5 with a box of another class
- duplicate: IoU >= 0.5 with a box of its class, which a detection with a higher score matches
- both: IoU >= 0.1 with a box of another class
- background: IoU < 0.1 with all boxes

A box is missed where no detection matches it and no class or location error is about it.

The cost of a kind is the AP50 that repairing this kind alone would add. Of the class or location errors about a box
that no detection matches, the one with the highest score becomes right; the others are removed. Errors of the kinds
both, duplicate and background are removed. A missed box is taken out of the truth; a class that has no box left is
taken out of the mean.

Four choices differ from the authors' code. They make AP50 equal to COCO's, and repair each kind without regard to the
others, as the paper describes. In the authors' code:

- of all class *and* location errors about a box, only the one with the highest score repairs it, whichever of the two
  kinds is repaired;
- detections inside crowds are errors too;
- a class with detections but without boxes counts as AP50 0;
- 100 detections of an image count, not of each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.bootstrap import interpolated
from retinanet.evaluation.detection_matching import LIMIT, Pairs, pair

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections

KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND = range(5)
RIGHT = -1
FOREGROUND = 0.5
"""From this IoU on a detection matches a box."""
NEAR = 0.1
"""From this IoU on a detection is about a box."""


@dataclass(frozen=True)
class ErrorCosts:
    """Errors by kind.

    Attributes:
        ap50: COCO's AP50 in 0..1; 0 where there is no truth.
        counts: kind -> how many, in the order of ``KINDS``; missed counts boxes, the others detections.
        cost: kind -> AP50 gained if this kind alone were repaired, 0 or more.
        false_positives: AP50 gained if all wrong detections were removed.
        false_negatives: AP50 gained if all boxes without a match were taken out of the truth.
    """

    ap50: float
    counts: dict[str, int]
    cost: dict[str, float]
    false_positives: float
    false_negatives: float


@dataclass(frozen=True)
class _Columns:
    """Columns with a row for each detection that counts, of one image or of all; boxes are numbered through all."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    matched: NDArray[np.int64]
    """The box that the detection matches, -1 for none."""
    same_box: NDArray[np.int64]
    """The nearest box of the same class."""
    same_iou: NDArray[np.float64]
    other_box: NDArray[np.int64]
    """The nearest box of another class."""
    other_iou: NDArray[np.float64]

    @classmethod
    def of_image(cls, pairs: Pairs, first_box: int) -> _Columns:
        """The rows of one image, whose boxes are numbered from ``first_box``."""
        counted = (pairs.ranks < LIMIT) & ~pairs.ignored
        real = ~pairs.crowd
        numbers = first_box + np.cumsum(real) - 1  # (m,), without meaning for crowds
        overlap = pairs.overlap[counted]
        same_class = pairs.labels[counted, None] == pairs.box_labels  # (n, m)

        def nearest(allowed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            iou = np.where(allowed & real, overlap, 0)
            box = numbers[iou.argmax(axis=1)] if len(numbers) else np.full(len(iou), -1)
            return box, iou.max(axis=1, initial=0)

        matched = np.append(numbers, -1)[pairs.boxes[counted]]  # index -1, no match, picks the appended -1
        return cls(pairs.scores[counted], pairs.labels[counted], matched, *nearest(same_class), *nearest(~same_class))

    @classmethod
    def joined(cls, images: list[_Columns]) -> _Columns:
        """The rows of all images, one image after the other."""
        return cls(*(np.concatenate([getattr(image, field.name) for image in images]) for field in fields(cls)))


@dataclass(frozen=True)
class _Sorted:
    """All n detections that count with their kinds of error, and all m boxes without the crowds."""

    scores: NDArray[np.float64]  # (n,)
    labels: NDArray[np.int64]  # (n,)
    kinds: NDArray[np.int64]  # (n,) RIGHT or an index into KINDS
    about: NDArray[np.int64]  # (n,) the box that a class or location error is about, -1 for the others
    box_labels: NDArray[np.int64]  # (m,)
    matched: NDArray[np.bool_]  # (m,)
    missed: NDArray[np.bool_]  # (m,)


def error_costs(
    data: DetectionData, detections: Mapping[int, Detections], indices: Iterable[int] | None = None
) -> ErrorCosts:
    """Sort the errors by kind, and compute what each kind costs.

    As in COCO's AP, 100 detections of each class in one image count, those with the highest scores. Where no box at
    all is left after a repair, AP50 counts as 1.

    Args:
        detections: image index -> its detections, labels as in ``data``; an image without an entry has none.
        indices: evaluate only these images.
    """
    found = _sort(data, detections, sorted(set(range(len(data)) if indices is None else indices)))
    counts = [int((found.kinds == kind).sum()) for kind in range(BACKGROUND + 1)] + [int(found.missed.sum())]
    if not len(found.box_labels):
        return ErrorCosts(0.0, dict(zip(KINDS, counts)), dict.fromkeys(KINDS, 0.0), 0.0, 0.0)
    everything, right = np.ones(len(found.kinds), bool), found.kinds == RIGHT
    boxes, matched, missed = (
        np.bincount(found.box_labels[chosen], minlength=len(data.class_names))
        for chosen in (np.ones(len(found.box_labels), bool), found.matched, found.missed)
    )

    def ap50(keep: NDArray[np.bool_], right: NDArray[np.bool_], labels: NDArray[np.int64], boxes: NDArray) -> float:
        return _ap50(found.scores[keep], labels[keep], right[keep], boxes)

    now = ap50(everything, right, found.labels, boxes)
    cost = []
    for kind in range(BACKGROUND + 1):
        repaired = _repairable(found, kind) if kind in (CLASS, LOCATION) else np.zeros_like(right)
        labels = found.labels.copy()
        labels[repaired] = found.box_labels[found.about[repaired]]
        cost.append(ap50((found.kinds != kind) | repaired, right | repaired, labels, boxes) - now)
    cost.append(ap50(everything, right, found.labels, boxes - missed) - now)
    return ErrorCosts(
        now,
        dict(zip(KINDS, counts)),
        dict(zip(KINDS, cost)),
        ap50(right, right, found.labels, boxes) - now,
        ap50(everything, right, found.labels, matched) - now,
    )


def _sort(data: DetectionData, detections: Mapping[int, Detections], indices: list[int]) -> _Sorted:
    none, no_score = np.zeros(0, np.int64), np.zeros(0)
    images = [_Columns(no_score, none, none, none, no_score, none, no_score)]
    box_labels, boxes = [none], 0
    for index in indices:
        pairs = pair(data, detections, index, FOREGROUND)
        images.append(_Columns.of_image(pairs, boxes))
        box_labels.append(pairs.box_labels[~pairs.crowd])
        boxes += len(box_labels[-1])

    rows = _Columns.joined(images)
    tests = {
        RIGHT: rows.matched >= 0,
        LOCATION: (rows.same_iou >= NEAR) & (rows.same_iou < FOREGROUND),
        CLASS: rows.other_iou >= FOREGROUND,
        DUPLICATE: rows.same_iou >= FOREGROUND,
        BOTH: rows.other_iou >= NEAR,
    }
    kinds = np.select(list(tests.values()), list(tests), BACKGROUND)
    about = np.select([kinds == LOCATION, kinds == CLASS], [rows.same_box, rows.other_box], -1)
    matched, covered = np.zeros((2, boxes), bool)
    matched[rows.matched[rows.matched >= 0]] = True
    covered[about[about >= 0]] = True
    missed = ~(matched | covered)
    return _Sorted(rows.scores, rows.labels, kinds, about, np.concatenate(box_labels), matched, missed)


def _repairable(found: _Sorted, kind: int) -> NDArray[np.bool_]:
    """(n,) for each box without a match the error of a kind about it that has the highest score."""
    rows = np.flatnonzero(found.kinds == kind)
    rows = rows[~found.matched[found.about[rows]]]
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    repaired = np.zeros(len(found.kinds), bool)
    repaired[rows[np.unique(found.about[rows], return_index=True)[1]]] = True
    return repaired


def _ap50(
    scores: NDArray[np.float64], labels: NDArray[np.int64], right: NDArray[np.bool_], boxes: NDArray[np.int64]
) -> float:
    """The mean over the classes that have boxes, of (n,) detections in the order of the images and (classes,) boxes."""
    order = np.lexsort((-scores, labels))  # by class and score; stable, so that equal scores stand as in COCO's code
    ends = np.searchsorted(labels[order], np.arange(len(boxes) + 1))
    values = []
    for label in np.flatnonzero(boxes):
        hits = right[order[ends[label] : ends[label + 1]]]
        counted = np.arange(1, len(hits) + 1, dtype=np.float64)
        values.append(interpolated(np.cumsum(hits, dtype=np.float64)[None], counted[None], boxes[label])[0])
    return float(np.mean(values)) if values else 1.0
