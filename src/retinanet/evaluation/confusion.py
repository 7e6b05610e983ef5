"""The confusion matrix at a score threshold, and the images with the most mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.detection_matching import Pairs, nearest_free, pair, reaches

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections


@dataclass(frozen=True)
class Confusion:
    """How often objects of each class were detected as each class.

    Attributes:
        names: (K,) the classes.
        matrix: (K + 1, K + 1) rows are the truth, columns the detected class. The last row counts detections on the
            background, the last column missed objects; their corner is 0.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]


@dataclass(frozen=True)
class ImageResult:
    """The mistakes in one image at a threshold.

    Attributes:
        index: the image's index in the data.
        kept: (n,) indices into the image's detections of those above the threshold, by descending score. Detections
            in crowds are left out, because they are neither right nor wrong.
        correct: (n,) whether each of them matches a box of its class.
        missed: (m,) which boxes of the image were missed; never a crowd.
        severity: the sum of the scores of wrong detections, plus 1 for each missed box.
    """

    index: int
    kept: NDArray[np.int64]
    correct: NDArray[np.bool_]
    missed: NDArray[np.bool_]
    severity: float

    @property
    def mistakes(self) -> int:
        """Wrong detections and missed boxes."""
        return int((~self.correct).sum() + self.missed.sum())


def confusion_matrix(
    data: DetectionData,
    detections: Mapping[int, Detections],
    threshold: float,
    iou: float = 0.5,
    indices: Iterable[int] | None = None,
) -> Confusion:
    """Match detections and boxes across classes.

    In each image the detections with a score above ``threshold`` take, by descending score, the box with the highest
    IoU that is left, of any class. A detection inside a crowd of its class takes only boxes of its class, and is not
    counted if there is none.

    Args:
        detections: image index -> its detections, labels as in ``data``; an image without an entry has none.
        iou: the smallest overlap of a match.
        indices: evaluate only these images.
    """
    background = len(data.class_names)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    for _, pairs, above in _images(data, detections, threshold, iou, indices):
        labels, overlap = pairs.labels[above], pairs.overlap[above]
        same_class = labels[:, None] == pairs.box_labels  # (n, m)
        near = reaches(overlap, iou)
        in_crowd = (near & same_class & pairs.crowd).any(axis=1)
        boxes = nearest_free(overlap, near & ~pairs.crowd & (same_class | ~in_crowd[:, None]))
        matched = boxes >= 0
        missed = ~pairs.crowd
        missed[boxes[matched]] = False
        np.add.at(matrix, (pairs.box_labels[boxes[matched]], labels[matched]), 1)
        np.add.at(matrix[background], labels[~matched & ~in_crowd], 1)
        np.add.at(matrix[:, background], pairs.box_labels[missed], 1)
    return Confusion(tuple(data.class_names), matrix)


def image_results(
    data: DetectionData,
    detections: Mapping[int, Detections],
    threshold: float,
    iou: float = 0.5,
    indices: Iterable[int] | None = None,
) -> list[ImageResult]:
    """The mistakes in each image, of detections with a score above ``threshold``.

    As in COCO's AP, a detection is right only if it matches a box of its own class.

    Args:
        detections, iou, indices: as in :func:`confusion_matrix`.

    Returns:
        One entry an image, in the order of the data.
    """
    results = []
    for index, pairs, above in _images(data, detections, threshold, iou, indices):
        kept = above & ~pairs.ignored
        correct = pairs.correct[kept]
        missed = ~pairs.crowd
        missed[pairs.boxes[kept][correct]] = False
        severity = float(pairs.scores[kept][~correct].sum() + missed.sum())
        results.append(ImageResult(index, pairs.indices[kept], correct, missed, severity))
    return results


def _images(
    data: DetectionData,
    detections: Mapping[int, Detections],
    threshold: float,
    iou: float,
    indices: Iterable[int] | None,
) -> Iterator[tuple[int, Pairs, NDArray[np.bool_]]]:
    """Each image's index, its matches, and which of its detections are above the threshold."""
    limit = float(np.float32(threshold))  # scores are float32, and Detections.above compares in float32
    for index in sorted(set(range(len(data)) if indices is None else indices)):
        pairs = pair(data, detections, index, iou)
        yield index, pairs, pairs.scores > limit


def worst(results: Sequence[ImageResult], count: int) -> list[ImageResult]:
    """The images with the highest severity first; images without a mistake are left out.

    Of two images with the same severity, the one with more mistakes comes first, then the one earlier in ``results``.
    """
    faulty = [result for result in results if result.mistakes]
    return sorted(faulty, key=lambda result: (-result.severity, -result.mistakes))[:count]
