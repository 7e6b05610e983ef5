"""Precision, recall and F1 against the score threshold, and the threshold with the best F1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.bootstrap import precision_of_hits
from retinanet.evaluation.detection_matching import LIMIT, pair

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections

UNKNOWN = 0.3
"""The threshold where no detection is right at any threshold."""
SAME = 1e-9
"""Values of F1 that differ by less are equal: they are the same sums in different orders."""


@dataclass(frozen=True)
class ClassCurve:
    """One class.

    Attributes:
        boxes: number of ground-truth boxes, without crowds.
        scores: (n,) the different scores of its detections, descending, without detections in crowds.
        precision, recall: (n,) in 0..1, of the detections with score >= scores[i]; the recall is 0 without boxes.
        ap50: AP as COCO computes it, at the curves' IoU (0.5 by default); None without boxes.
    """

    name: str
    boxes: int
    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    ap50: float | None

    @property
    def f1(self) -> NDArray[np.float64]:
        """(n,) the harmonic mean of precision and recall; 0 where both are 0."""
        both = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, both, out=np.zeros_like(both), where=both > 0)

    @property
    def threshold(self) -> float:
        """Detections with a score above it have the best F1; 0.3 if every F1 is 0."""
        return _best(self.scores, self.f1)[0]

    @property
    def best_f1(self) -> float:
        return _best(self.scores, self.f1)[1]


@dataclass(frozen=True)
class Curves:
    """All classes, and means over those that have boxes.

    Attributes:
        thresholds: (T,) from 0 to 1.
        f1, recall: (T,) means, of detections with score > thresholds[i]. All 0 where no class has boxes.
        precision: (T,) the mean over the classes that have a detection above the threshold; 1 where no class has one.
        threshold: has the best mean F1 of all thresholds, not only of those in ``thresholds``. It is the middle of the
            widest gap between two scores that has this F1. 0.3 if every F1 is 0.
        best_f1: the mean F1 at this threshold.
    """

    per_class: list[ClassCurve]
    thresholds: NDArray[np.float64]
    f1: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: float
    best_f1: float


def curves(
    data: DetectionData, detections: Mapping[int, Detections], indices: Iterable[int] | None = None, iou: float = 0.5
) -> Curves:
    """Precision and recall of every class at every threshold.

    Detections inside crowds are neither right nor wrong. COCO's limit of 100 detections of a class in an image applies
    only to AP.

    Args:
        detections: image index -> its detections, labels as in ``data``; an image without an entry has none.
        indices: evaluate only these images.
        iou: the smallest overlap of a match.
    """
    names = data.class_names
    totals = np.zeros(len(names), np.int64)
    columns = []
    for index in sorted(set(range(len(data)) if indices is None else indices)):
        pairs = pair(data, detections, index, iou)
        totals += np.bincount(pairs.box_labels[~pairs.crowd], minlength=len(names))
        counted = ~pairs.ignored
        columns.append([a[counted] for a in (pairs.scores, pairs.labels, pairs.correct, pairs.ranks < LIMIT)])
    empty = [np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool)]
    scores, labels, correct, within = (np.concatenate(a) for a in zip(empty, *columns))
    order = np.lexsort((-scores, labels))  # by class and score; stable, so that equal scores stand as in COCO's code
    ends = np.searchsorted(labels[order], np.arange(len(names) + 1))
    per_class = []
    for label, name in enumerate(names):
        rows = order[ends[label] : ends[label + 1]]
        per_class.append(_class_curve(name, int(totals[label]), scores[rows], correct[rows], within[rows]))
    return _means(per_class)


def _class_curve(
    name: str, boxes: int, scores: NDArray[np.float64], correct: NDArray[np.bool_], within: NDArray[np.bool_]
) -> ClassCurve:
    """One class from (n,) detections: descending scores, whether right, and whether within COCO's limit."""
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # (d,) the last detection of each different score
    hits = np.cumsum(correct, dtype=np.float64)[last]
    ap = precision_of_hits(correct[within], boxes) if boxes else None
    return ClassCurve(name, boxes, scores[last], hits / (last + 1), hits / max(boxes, 1), ap)


def _means(per_class: list[ClassCurve]) -> Curves:
    thresholds = np.linspace(0, 1, 1001)
    with_boxes = [curve for curve in per_class if curve.boxes]
    f1, precision, recall, classes = np.zeros((4, len(thresholds)))
    for curve in with_boxes:
        # (T,) how many scores are above each threshold, compared in float32 as Detections.above does
        kept = np.searchsorted(-curve.scores, -thresholds.astype(np.float32).astype(np.float64))
        any_kept = kept > 0
        at = kept[any_kept] - 1
        classes += any_kept
        f1[any_kept] += curve.f1[at]
        precision[any_kept] += curve.precision[at]
        recall[any_kept] += curve.recall[at]
    if not with_boxes:
        return Curves(per_class, thresholds, f1, precision, recall, UNKNOWN, 0.0)
    precision = np.divide(precision, classes, out=np.ones_like(precision), where=classes > 0)

    # The mean F1 as it changes at every score of every class, from the highest down.
    scores = np.concatenate([curve.scores for curve in with_boxes])
    steps = np.concatenate([np.diff(curve.f1, prepend=0) for curve in with_boxes])
    order = np.argsort(-scores, kind="stable")
    scores, running = scores[order], np.cumsum(steps[order]) / len(with_boxes)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    threshold, best = _best(scores[last], running[last])
    return Curves(per_class, thresholds, f1 / len(with_boxes), precision, recall / len(with_boxes), threshold, best)


def _best(scores: NDArray[np.float64], f1: NDArray[np.float64]) -> tuple[float, float]:
    """The threshold of the best F1 and that F1, from the F1 of all detections with score >= scores[i] (descending)."""
    best = float(f1.max(initial=0))
    if best <= SAME:
        return UNKNOWN, 0.0
    # A threshold has the F1 f1[i] from the next score (0 after the last) up to, but not including, scores[i].
    best_rows = np.flatnonzero(f1 >= best - SAME)
    high, low = scores[best_rows], np.append(scores, 0.0)[best_rows + 1]
    widest = int(np.argmax(high - low))
    return float(high[widest] + low[widest]) / 2, best
