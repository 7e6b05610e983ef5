"""What is taken for what at a threshold, and the images in which most goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.detection_matching import nearest_free, pair, reaches

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections


@dataclass(frozen=True)
class Confusion:
    """How often boxes of each class were taken for each class.

    Attributes:
        names: (K,) the classes.
        matrix: (K + 1, K + 1) rows are the truth, columns what was found. The last row counts detections where nothing
            is, the last column boxes that were not found; their corner is 0.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """One image at a threshold.

    Attributes:
        index: the image's place in the data.
        right: (n,) whether each detection kept found a box of its class.
        kept: (n,) places of these detections in ``found[index]``, the surest first. Those that lie in crowds, and are
            neither right nor wrong, are left out.
        missed: (m,) the boxes of the image that were not found; never a crowd.
        score: how bad it is, see :func:`worst`.
    """

    index: int
    right: NDArray[np.bool_]
    kept: NDArray[np.int64]
    missed: NDArray[np.bool_]
    score: float

    @property
    def faults(self) -> int:
        """Wrong detections and missed boxes."""
        return int((~self.right).sum() + self.missed.sum())


def confusion(
    data: DetectionData,
    found: Mapping[int, Detections],
    threshold: float,
    iou: float = 0.5,
    indices: Iterable[int] | None = None,
) -> Confusion:
    """Pair detections and boxes across classes.

    In each image the detections with a score above ``threshold``, the surest first, take the box with the highest IoU
    that is left, whatever its class. A detection inside a crowd of its class takes boxes of its class alone, and counts
    nowhere if there is none.

    Args:
        found: place of an image in ``data`` -> its detections, labels as in ``data``; a missing one counts as empty.
        iou: the least overlap of a pair.
        indices: judge these images alone.
    """
    nothing, limit = (
        len(data.class_names),
        float(np.float32(threshold)),
    )  # as scores are, and as Detections.above compares them
    matrix = np.zeros((nothing + 1, nothing + 1), np.int64)
    for index in sorted(set(range(len(data)) if indices is None else indices)):
        pairs = pair(data, found, index, iou)
        kept = pairs.scores > limit
        labels, overlap = pairs.labels[kept], pairs.overlap[kept]
        own = labels[:, None] == pairs.truths  # (n, m)
        near = reaches(overlap, iou)
        inside = (near & own & pairs.crowd).any(axis=1)
        boxes = nearest_free(overlap, near & ~pairs.crowd & (own | ~inside[:, None]))
        took = boxes >= 0
        np.add.at(matrix, (pairs.truths[boxes[took]], labels[took]), 1)
        np.add.at(matrix[nothing], labels[~took & ~inside], 1)
        left = ~pairs.crowd
        left[boxes[took]] = False
        np.add.at(matrix[:, nothing], pairs.truths[left], 1)
    return Confusion(tuple(data.class_names), matrix)


def judge(
    data: DetectionData,
    found: Mapping[int, Detections],
    threshold: float,
    iou: float = 0.5,
    indices: Iterable[int] | None = None,
) -> list[Judged]:
    """What is right, wrong and missed in each image, of detections with a score above ``threshold``.

    Classes are kept apart, as in COCO's AP: a detection is right if it finds a box of its class.

    Args:
        found: place of an image in ``data`` -> its detections, labels as in ``data``; a missing one counts as empty.
        iou: from which overlap on a box counts as found.
        indices: judge these images alone.

    Returns:
        One entry an image, in the order of the data.
    """
    judged, limit = [], float(np.float32(threshold))  # as scores are, and as Detections.above compares them
    for index in sorted(set(range(len(data)) if indices is None else indices)):
        pairs = pair(data, found, index, iou)
        kept = (pairs.scores > limit) & ~pairs.ignored
        right = pairs.right[kept]
        missed = ~pairs.crowd
        missed[pairs.boxes[kept][right]] = False
        score = float(pairs.scores[kept][~right].sum() + missed.sum())
        judged.append(Judged(index, right, pairs.places[kept], missed, score))
    return judged


def worst(judged: Sequence[Judged], count: int) -> list[Judged]:
    """The images in which most goes wrong, the worst first.

    A missed box weighs 1 and a wrong detection its score, so that a sure one weighs more; of images as bad, the one
    with more faults comes first, then the one that comes first in ``judged``. Images without a fault are left out.
    """
    faulty = [one for one in judged if one.faults]
    return sorted(faulty, key=lambda one: (-one.score, -one.faults))[:count]
