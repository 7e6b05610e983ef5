"""Precision, recall and F1 against the threshold on scores, and the threshold that suits best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.bootstrap import LIMIT, interpolated
from retinanet.evaluation.detection_matching import pair

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections

UNKNOWN = 0.3  # the threshold where no threshold finds anything right
SAME = 1e-9  # values of F1 nearer than this are equal: they are sums in different orders


@dataclass(frozen=True)
class ClassCurve:
    """One class.

    Attributes:
        boxes: to be found, crowds left out.
        scores: (n,) the different scores of its detections, descending; those in crowds are left out.
        precision, recall: (n,) in 0..1, of the detections with score >= scores[i]; the recall is 0 without boxes.
        ap50: AP as COCO reads it, at the curves' IoU (0.5 unless asked otherwise); None without boxes.
    """

    name: str
    boxes: int
    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    ap50: float | None

    @property
    def f1(self) -> NDArray[np.float64]:
        """(n,) the harmonic mean of precision and recall, 0 where both are."""
        both = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, both, out=np.zeros_like(both), where=both > 0)

    @property
    def threshold(self) -> float:
        """Detections with a score above it have the best F1; 0.3 where every F1 is 0."""
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
        precision: (T,) likewise, over the classes of which something is kept; 1 where nothing is kept at all, since
            nothing kept is wrong.
        threshold: gives the best mean F1 of all thresholds, not of those in ``thresholds`` alone. It lies midway
            between two scores, the farthest apart that have this F1 between them. 0.3 where every F1 is 0.
        best_f1: the mean F1 there.
    """

    per_class: list[ClassCurve]
    thresholds: NDArray[np.float64]
    f1: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: float
    best_f1: float


def curves(
    data: DetectionData, found: Mapping[int, Detections], indices: Iterable[int] | None = None, iou: float = 0.5
) -> Curves:
    """Precision and recall of every class at every threshold.

    Detections inside crowds count neither way. COCO's limit of 100 detections of a class in an image holds for AP
    alone.

    Args:
        found: place of an image in ``data`` -> its detections, labels as in ``data``; a missing one counts as empty.
        indices: judge these images alone.
        iou: from which overlap on a box counts as found.
    """
    names = data.class_names
    totals = np.zeros(len(names), np.int64)
    parts = []
    for index in sorted(set(range(len(data)) if indices is None else indices)):
        pairs = pair(data, found, index, iou)
        totals += np.bincount(pairs.truths[~pairs.crowd], minlength=len(names))
        counted = ~pairs.ignored
        parts.append([a[counted] for a in (pairs.scores, pairs.labels, pairs.right, pairs.ranks < LIMIT)])
    empty = [np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool)]
    scores, labels, right, within = (np.concatenate(a) for a in zip(empty, *parts))
    order = np.lexsort((-scores, labels))  # by class, the surest first; stable, so that equals stand as in COCO's code
    ends = np.searchsorted(labels[order], np.arange(len(names) + 1))
    per_class = []
    for label, name in enumerate(names):
        mine = order[ends[label] : ends[label + 1]]
        per_class.append(_of_class(name, int(totals[label]), scores[mine], right[mine], within[mine]))
    return _means(per_class)


def _of_class(
    name: str, boxes: int, scores: NDArray[np.float64], right: NDArray[np.bool_], within: NDArray[np.bool_]
) -> ClassCurve:
    """(n,) scores descending, whether right, and whether within COCO's limit."""
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # (d,) of each score the last detection that has it
    hits = np.cumsum(right, dtype=np.float64)[last]
    ap = None
    if boxes:
        first = right[within]
        judged = np.arange(1, len(first) + 1, dtype=np.float64)
        ap = float(interpolated(np.cumsum(first, dtype=np.float64)[None], judged[None], boxes)[0])
    return ClassCurve(name, boxes, scores[last], hits / (last + 1), hits / max(boxes, 1), ap)


def _means(per_class: list[ClassCurve]) -> Curves:
    thresholds = np.linspace(0, 1, 1001)
    with_boxes = [curve for curve in per_class if curve.boxes]
    f1, precision, recall, keeping = np.zeros((4, len(thresholds)))
    for curve in with_boxes:
        # (T,) how many of the scores are above, in the float32 of scores, as Detections.above compares them
        kept = np.searchsorted(-curve.scores, -thresholds.astype(np.float32).astype(np.float64))
        some = kept > 0
        at = kept[some] - 1
        keeping += some
        f1[some] += curve.f1[at]
        precision[some] += curve.precision[at]
        recall[some] += curve.recall[at]
    if not with_boxes:
        return Curves(per_class, thresholds, f1, precision, recall, UNKNOWN, 0.0)
    precision = np.divide(precision, keeping, out=np.ones_like(precision), where=keeping > 0)

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
    # f1[i] holds for thresholds from the next score (0 after the last) up to, and without, scores[i].
    places = np.flatnonzero(f1 >= best - SAME)
    high, low = scores[places], np.append(scores, 0.0)[places + 1]
    widest = int(np.argmax(high - low))
    return float(high[widest] + low[widest]) / 2, best
