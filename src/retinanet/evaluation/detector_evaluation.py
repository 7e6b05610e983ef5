"""A detector on a labelled data set: its detections, COCO's twelve numbers, and the threshold with the best F1."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from retinanet.common.arguments import Nms
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.bootstrap import Interval
from retinanet.evaluation.coco_metrics import CocoResult
from retinanet.evaluation.metrics_table import metrics_html
from retinanet.evaluation.pr_curves import Curves, curves
from retinanet.evaluation.runner import detect_all
from retinanet.inference.detections import Detections

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detector import Detector


@dataclass(frozen=True)
class DetectorEvaluation:
    """What an evaluation measured; :func:`retinanet.evaluate` returns it.

    Attributes:
        data: the images that were evaluated.
        detections: index of an image in ``data`` -> its detections, with the labels of ``data``.
        seconds: per image, from its file to its boxes.
        result: of COCO's evaluation.
        curves: precision, recall and F1 of every threshold.
        intervals: 95 % intervals of "AP" and "AP50", if they were asked for.
    """

    data: DetectionData = field(repr=False)
    detections: dict[int, Detections] = field(repr=False)
    seconds: float
    result: CocoResult = field(repr=False)
    curves: Curves = field(repr=False)
    intervals: dict[str, Interval] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """COCO's twelve numbers by name: "AP", "AP50", ...; -1 if there is no box of that size."""
        return self.result.stats

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """For each class a dict with "name", "AP", "AP50" (None without boxes) and "boxes"."""
        return [each.row() for each in self.result.per_class]

    @property
    def threshold(self) -> float:
        """The score threshold with the highest F1, as a mean over the classes at IoU 0.5."""
        return self.curves.threshold

    @property
    def best_f1(self) -> float:
        """The F1 at :attr:`threshold`."""
        return self.curves.best_f1

    @property
    def thresholds(self) -> dict[str, float]:
        """The score threshold with the highest F1 of each class."""
        return {curve.name: curve.threshold for curve in self.curves.per_class}

    def __repr__(self) -> str:
        ap, ap50 = self.metrics["AP"], self.metrics["AP50"]
        return f"<evaluation: AP {ap:.3f}, AP50 {ap50:.3f} on {self.result.images} images of {self.data.root}>"

    def _repr_html_(self) -> str:
        return metrics_html(self.metrics)


def evaluate_detector(
    detector: Detector,
    data: DetectionData,
    *,
    batch_size: int = 8,
    workers: int = 0,
    threshold: float | None = None,
    nms: Nms | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DetectorEvaluation:
    """Run a detector on ``data`` and evaluate it.

    Args:
        data: with the classes of the detector; their order may be another one.
        batch_size, workers, threshold, nms, on_progress: see :func:`retinanet.evaluation.runner.detect_all`.
    """
    begin = time.perf_counter()
    detections = detect_all(
        detector, data, batch_size=batch_size, workers=workers, threshold=threshold, nms=nms, on_progress=on_progress
    )
    seconds = (time.perf_counter() - begin) / max(1, len(data))
    if detector.class_names != data.class_names:
        label_of = torch.tensor([data.class_names.index(name) for name in detector.class_names])
        detections = {
            index: Detections(d.boxes, d.scores, label_of[d.labels], data.class_names)
            for index, d in detections.items()
        }
    result = coco_metrics.evaluate(data, detections)
    return DetectorEvaluation(data, detections, seconds, result, curves(data, detections))
