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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.bootstrap import precision_of_hits
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
        counts: kind -> how many, in the order of ``KINDS``; missed counts boxes, the others detections. Where a
            threshold was given, detections with a score above it alone.
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
class _Sorted:
    """The n detections that count with their kinds of error, and the m boxes without crowds: of one image or of all."""

    scores: NDArray[np.float64]  # (n,)
    labels: NDArray[np.int64]  # (n,)
    kinds: NDArray[np.int64]  # (n,) RIGHT or an index into KINDS
    about: NDArray[np.int64]  # (n,) the box that a class or location error is about, -1 for the others
    box_labels: NDArray[np.int64]  # (m,)
    matched: NDArray[np.bool_]  # (m,)
    missed: NDArray[np.bool_]  # (m,)

    @classmethod
    def of_image(cls, pairs: Pairs) -> _Sorted:
        counted = (pairs.ranks < LIMIT) & ~pairs.ignored
        boxes = np.flatnonzero(~pairs.crowd)
        labels, matches = pairs.labels[counted], pairs.boxes[counted]
        overlap = pairs.overlap[counted][:, boxes]  # (n, m)
        same_class = labels[:, None] == pairs.box_labels[boxes]
        same, other = np.where(same_class, overlap, 0), np.where(same_class, 0, overlap)
        same_iou, other_iou = same.max(axis=1, initial=0), other.max(axis=1, initial=0)
        tests = {
            RIGHT: matches >= 0,
            LOCATION: (same_iou >= NEAR) & (same_iou < FOREGROUND),
            CLASS: other_iou >= FOREGROUND,
            DUPLICATE: same_iou >= FOREGROUND,
            BOTH: other_iou >= NEAR,
        }
        kinds = np.select(list(tests.values()), list(tests), BACKGROUND)
        about = np.full(len(kinds), -1)
        if len(boxes):
            about = np.select([kinds == LOCATION, kinds == CLASS], [same.argmax(axis=1), other.argmax(axis=1)], -1)
        matched = np.isin(boxes, matches)
        missed = ~matched & ~np.isin(np.arange(len(boxes)), about)
        return cls(pairs.scores[counted], labels, kinds, about, pairs.box_labels[boxes], matched, missed)

    @classmethod
    def of_images(cls, images: Sequence[_Sorted]) -> _Sorted:
        """The rows of all images, one image after the other; boxes are numbered through all images."""
        names = [field.name for field in fields(cls)]
        columns = {name: np.concatenate([getattr(image, name) for image in images]) for name in names}
        offsets = np.cumsum([0, *(len(image.box_labels) for image in images)])[:-1]
        shift = np.repeat(offsets, [len(image.about) for image in images])
        return cls(**columns | {"about": np.where(columns["about"] < 0, -1, columns["about"] + shift)})


def error_costs(
    data: DetectionData,
    detections: Mapping[int, Detections],
    indices: Iterable[int] | None = None,
    threshold: float | None = None,
) -> ErrorCosts:
    """Sort the errors by kind, and compute what each kind costs.

    As in COCO's AP, 100 detections of each class in one image count, those with the highest scores. Where no box at
    all is left after a repair, AP50 counts as 1.

    Args:
        detections: image index -> its detections, labels as in ``data``; an image without an entry has none.
        indices: evaluate only these images.
        threshold: count only the errors that detections with a score above it make. What a kind costs is a matter of
            AP50, which takes detections of all scores.
    """
    images = sorted(set(range(len(data)) if indices is None else indices))
    if not images:
        return ErrorCosts(0.0, dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0.0), 0.0, 0.0)

    def of_all(detections: Mapping[int, Detections]) -> _Sorted:
        return _Sorted.of_images([_Sorted.of_image(pair(data, detections, index, FOREGROUND)) for index in images])

    found = of_all(detections)
    shown = found if threshold is None else of_all({i: found.above(threshold) for i, found in detections.items()})
    counts = [int((shown.kinds == kind).sum()) for kind in range(BACKGROUND + 1)] + [int(shown.missed.sum())]
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
        values.append(precision_of_hits(right[order[ends[label] : ends[label + 1]]], boxes[label]))
    return float(np.mean(values)) if values else 1.0
