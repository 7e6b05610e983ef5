"""What kinds of errors a detector makes, and how much AP50 each kind costs.

After Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors" (ECCV 2020). A detection that is
not right is an error of the first kind that fits, in the order of their code:

- location: 0.1 <= IoU < 0.5 with the nearest box of its class
- class: IoU >= 0.5 with a box of another class
- duplicate: IoU >= 0.5 with a box of its class, which a surer detection has found
- both: IoU >= 0.1 with a box of another class
- background: IoU < 0.1 with all boxes

A box is missed where no detection found it and none is a class or location error about it.

The cost of a kind is the AP50 that repairing this kind alone would add. A class or location error becomes right: the
surest one of its kind about a box, if no detection has found that box; the others are removed. Errors of the kinds
both, duplicate and background are removed. A missed box is taken out of the truth; a class of which no box is left so
is taken out of the mean.

Four choices differ from the authors' code, so that AP50 is COCO's and kinds are repaired without regard to each other,
as the paper has it. In the code, of all class *and* location errors about a box the surest alone repairs it, whichever
of the two kinds is looked at; detections inside crowds are errors too; a class that is found, but of which there is no
box, counts as AP50 0; and 100 detections of an image count, not of each class.
"""

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

KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND = range(5)
RIGHT = -1
FOREGROUND, NEAR = 0.5, 0.1  # the IoUs from which a box is found, and from which a detection is about it


@dataclass(frozen=True)
class Errors:
    """Errors by kind.

    Attributes:
        ap50: COCO's AP50 in 0..1; 0 where there is no truth.
        counts: kind -> how many, in the order of ``KINDS``; missed counts boxes, the others detections.
        cost: kind -> AP50 gained if this kind alone were repaired, 0 or more.
        false_positives: AP50 gained if all wrong detections were removed.
        false_negatives: AP50 gained if all boxes that were not found were taken out of the truth.
    """

    ap50: float
    counts: dict[str, int]
    cost: dict[str, float]
    false_positives: float
    false_negatives: float


@dataclass(frozen=True)
class _Judged:
    """All detections that count, image by image, the surest of each first; and all boxes to be found."""

    scores: NDArray[np.float64]  # (n,)
    labels: NDArray[np.int64]  # (n,)
    kinds: NDArray[np.int64]  # (n,) RIGHT or a place in KINDS
    about: NDArray[np.int64]  # (n,) the box that a class or location error is about, -1 for the others
    truths: NDArray[np.int64]  # (m,) labels
    found: NDArray[np.bool_]  # (m,)
    missed: NDArray[np.bool_]  # (m,)


def errors(data: DetectionData, found: Mapping[int, Detections], indices: Iterable[int] | None = None) -> Errors:
    """Sort what is wrong by kind, and price the kinds.

    Of each class the 100 surest detections of an image count, as in COCO's AP. Where no box at all is left after a
    repair, AP50 counts as 1.

    Args:
        found: place of an image in ``data`` -> its detections, labels as in ``data``; a missing one counts as empty.
        indices: judge these images alone.
    """
    judged = _judge(data, found, sorted(set(range(len(data)) if indices is None else indices)))
    counts = [int((judged.kinds == kind).sum()) for kind in range(BACKGROUND + 1)] + [int(judged.missed.sum())]
    if not len(judged.truths):
        return Errors(0.0, dict(zip(KINDS, counts)), dict.fromkeys(KINDS, 0.0), 0.0, 0.0)
    classes = len(data.class_names)
    everything, right = np.ones(len(judged.kinds), bool), judged.kinds == RIGHT
    totals, found_ones, missed = (
        np.bincount(judged.truths[some], minlength=classes)
        for some in (judged.truths >= 0, judged.found, judged.missed)
    )

    def ap50(keep: NDArray[np.bool_], right: NDArray[np.bool_], labels: NDArray[np.int64], boxes: NDArray) -> float:
        return _ap50(judged.scores[keep], labels[keep], right[keep], boxes)

    now = ap50(everything, right, judged.labels, totals)
    cost = []
    for kind in range(BACKGROUND + 1):
        repaired = _repairable(judged, kind) if kind in (CLASS, LOCATION) else np.zeros_like(right)
        labels = judged.labels.copy()
        labels[repaired] = judged.truths[judged.about[repaired]]
        cost.append(ap50((judged.kinds != kind) | repaired, right | repaired, labels, totals) - now)
    cost.append(ap50(everything, right, judged.labels, totals - missed) - now)
    return Errors(
        now,
        dict(zip(KINDS, counts)),
        dict(zip(KINDS, cost)),
        ap50(right, right, judged.labels, totals) - now,
        ap50(everything, right, judged.labels, found_ones) - now,
    )


def _judge(data: DetectionData, found: Mapping[int, Detections], indices: list[int]) -> _Judged:
    # Seven columns of detections: scores, labels, the box found, and the nearest box of the same and of another class,
    # IoU and number; boxes are numbered through all images.
    none = np.zeros(0, np.int64)
    detections: list[tuple[NDArray, ...]] = [(np.zeros(0), none, none, np.zeros(0), np.zeros(0), none, none)]
    labels: list[NDArray[np.int64]] = [none]
    before = 0
    for index in indices:
        pairs = pair(data, found, index, FOREGROUND)
        counted = (pairs.ranks < LIMIT) & ~pairs.ignored
        real = ~pairs.crowd
        number = before + np.cumsum(real) - 1  # (m,), of no meaning for crowds
        before += int(real.sum())
        box = np.append(number, -1)[pairs.boxes[counted]]  # the box -1, none, stays -1
        overlap = pairs.overlap[counted]
        own = pairs.labels[counted, None] == pairs.truths
        same, other = np.where(own & real, overlap, 0), np.where(~own & real, overlap, 0)  # (n, m)
        nearest = [number[side.argmax(axis=1)] if len(number) else np.full(len(box), -1) for side in (same, other)]
        ious = [side.max(axis=1, initial=0) for side in (same, other)]
        detections.append((pairs.scores[counted], pairs.labels[counted], box, *ious, *nearest))
        labels.append(pairs.truths[real])

    scores, own_labels, box, same, other, nearest_same, nearest_other = map(np.concatenate, zip(*detections))
    tests = {
        RIGHT: box >= 0,
        LOCATION: (same >= NEAR) & (same < FOREGROUND),
        CLASS: other >= FOREGROUND,
        DUPLICATE: same >= FOREGROUND,
        BOTH: other >= NEAR,
    }
    kinds = np.select(list(tests.values()), list(tests), BACKGROUND)
    about = np.select([kinds == LOCATION, kinds == CLASS], [nearest_same, nearest_other], -1)
    taken, covered = np.zeros((2, before), bool)
    taken[box[box >= 0]] = True
    covered[about[about >= 0]] = True
    return _Judged(scores, own_labels, kinds, about, np.concatenate(labels), taken, ~(taken | covered))


def _repairable(judged: _Judged, kind: int) -> NDArray[np.bool_]:
    """(n,) the surest error of a kind about each box that no detection has found."""
    mine = np.flatnonzero(judged.kinds == kind)
    mine = mine[~judged.found[judged.about[mine]]]
    mine = mine[np.argsort(-judged.scores[mine], kind="stable")]
    surest = mine[np.unique(judged.about[mine], return_index=True)[1]]
    repaired = np.zeros(len(judged.kinds), bool)
    repaired[surest] = True
    return repaired


def _ap50(
    scores: NDArray[np.float64], labels: NDArray[np.int64], right: NDArray[np.bool_], boxes: NDArray[np.int64]
) -> float:
    """The mean over the classes that have boxes; (n,) detections in the order of the images, (classes,) boxes."""
    order = np.lexsort((-scores, labels))  # by class, the surest first; stable, so that equals stand as in COCO's code
    ends = np.searchsorted(labels[order], np.arange(len(boxes) + 1))
    of_classes = []
    for label in np.flatnonzero(boxes):
        mine = right[order[ends[label] : ends[label + 1]]]
        hits, judged = np.cumsum(mine, dtype=np.float64), np.arange(1, len(mine) + 1, dtype=np.float64)
        of_classes.append(interpolated(hits[None], judged[None], boxes[label])[0])
    return float(np.mean(of_classes)) if of_classes else 1.0
