"""COCO's twelve box numbers by faster-coco-eval, equal to pycocotools'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retinanet.common.coco_numbers import METRICS

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections

NAMES = tuple(METRICS)


class ClassResult(NamedTuple):
    """AP and AP50 of one class in 0..1, None for a class without boxes; its number of boxes, without crowds."""

    name: str
    ap: float | None
    ap50: float | None
    boxes: int

    def row(self) -> dict[str, Any]:
        """The keys and values that result files and tables use."""
        return {"name": self.name, "AP": self.ap, "AP50": self.ap50, "boxes": self.boxes}


@dataclass(frozen=True)
class CocoResult:
    """The result of COCO's evaluation.

    Attributes:
        stats: COCO's twelve numbers by name, see :data:`retinanet.common.coco_numbers.METRICS`.
        per_class: one entry a class, in the order of the labels.
        images: how many images were evaluated.
    """

    stats: dict[str, float]
    per_class: list[ClassResult]
    images: int


def evaluate(
    data: DetectionData, detections: Mapping[int, Detections], indices: Iterable[int] | None = None
) -> CocoResult:
    """Compare detections with the ground truth of a data set.

    A detection inside a region of ``data.crowd`` (COCO's crowds, Pascal VOC's difficult boxes) is neither right nor
    wrong, and such a region is never counted as missed.

    Args:
        detections: image index in ``data`` -> its detections, labels as in ``data``. An image that is missing here
            counts as an image without detections.
        indices: evaluate only these images.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    images = sorted(set(range(len(data)) if indices is None else indices))
    if not images:
        per_class = [ClassResult(name, None, None, 0) for name in data.class_names]
        return CocoResult(dict.fromkeys(NAMES, -1.0), per_class, 0)

    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    boxes_of_class = np.zeros(len(data.class_names), np.int64)
    # All ids count from 1, because an id of 0 means "unmatched" inside the evaluation.
    category_ids = range(1, len(data.class_names) + 1)
    for image_id, index in enumerate(images, 1):
        labels, crowd = data.labels(index), data.crowd(index)
        boxes_of_class += np.bincount(labels[~crowd], minlength=len(data.class_names))
        boxes = data.boxes(index).astype(np.float64)
        columns = (boxes.tolist(), labels.tolist(), crowd.tolist(), data.areas(index).tolist())
        for (x1, y1, x2, y2), label, is_crowd, area in zip(*columns, strict=True):
            record = {"image_id": image_id, "category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            truth.append(record | {"id": len(truth) + 1, "area": area, "iscrowd": int(is_crowd)})
        for record in detections[index].to_coco(image_id, category_ids) if index in detections else ():
            width, height = record["bbox"][2:]
            results.append(record | {"id": len(results) + 1, "area": width * height, "iscrowd": 0})

    def silent(*_: object) -> None: ...

    header = {
        "images": [{"id": image_id} for image_id in range(1, len(images) + 1)],
        "categories": [{"id": category_ids[label], "name": name} for label, name in enumerate(data.class_names)],
    }
    evaluation = COCOeval_faster(
        COCO(header | {"annotations": truth}),
        COCO(header | {"annotations": results}),
        "bbox",
        print_function=silent,
    )
    evaluation.run()
    # (10 IoU thresholds, 101 recalls, classes), boxes of all sizes, 100 detections; -1 for a class without truth.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [
        ClassResult(name, _mean(precision[:, :, label]), _mean(precision[0, :, label]), int(boxes_of_class[label]))
        for label, name in enumerate(data.class_names)
    ]
    return CocoResult(dict(zip(NAMES, map(float, evaluation.stats), strict=True)), per_class, len(images))


def _mean(precision: np.ndarray) -> float | None:
    return float(precision.mean()) if (precision > -1).all() else None
