"""Measuring a model while it is trained, and showing what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.fabric import Fabric

from retinanet.common.atomic_files import replacing
from retinanet.data import DetectionData
from retinanet.data.dataset import spread
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.pr_curves import Curves, curves
from retinanet.evaluation.runner import detect_all, gather
from retinanet.inference.detections import Detections
from retinanet.inference.drawing import Row, sheet
from retinanet.training.collectives import any_process, every_process
from retinanet.training.run_folder import RunFolder

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector

SHEET = 6
"""Images on the sheet of validation images."""
SHOWN = 0.3
"""Score above which detections are drawn on it."""


class _Stop(Exception):
    """Ends an evaluation before its time."""


@dataclass(frozen=True)
class Measured:
    """What came of an evaluation."""

    stats: dict[str, float]
    """The twelve numbers over all images looked at."""
    comparable: float
    """AP over the images of every evaluation, by which models of one run are compared."""
    found: Mapping[int, Detections]
    per_class: list[dict[str, Any]]
    """Name, AP, AP50 and number of boxes of each class."""
    curves: Curves | None
    """In the first process alone."""

    @property
    def threshold(self) -> float | None:
        """Detections above it have the best F1."""
        return None if self.curves is None else self.curves.threshold


class Validation:
    """Evaluations of one run, each over ``count`` images of ``data`` and the last one over all."""

    def __init__(self, fabric: Fabric, data: DetectionData, count: int | None, batch_size: int, workers: int) -> None:
        self.fabric, self.data = fabric, data
        self.some = spread(len(data), count).tolist()
        self.batch_size, self.workers = batch_size, workers

    def measure(
        self,
        detector: Detector,
        final: bool,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Measured | None:
        """Detect in the images, shared out over the processes, and evaluate.

        Args:
            stop: called after each batch; where it is true in some process, nothing comes of the evaluation.
        """
        fabric, world = self.fabric, self.fabric.world_size
        looked_at = list(range(len(self.data))) if final else self.some

        def advance(done: int, total: int) -> None:
            if stop():
                raise _Stop
            on_progress(done, total)

        def own_share() -> dict[int, Detections] | None:
            try:
                return self.detect(detector, looked_at[fabric.global_rank :: world], self.workers, advance)
            except _Stop:
                return None

        found = every_process(fabric, own_share)
        if any_process(fabric, found is None) or found is None:
            return None
        if world > 1:
            found = gather(found, world, detector.class_names)
            found = {index: found[index] for index in looked_at}
        stats: dict[str, float] = {}
        comparable = -1.0
        per_class: list[dict[str, Any]] = []
        quality = None
        if fabric.is_global_zero:
            quality = curves(self.data, found, looked_at)
            result = coco_metrics.evaluate(self.data, found, indices=looked_at)
            stats = {name: float(result.stats[name]) for name in coco_metrics.NAMES}
            per_class = [c.row() for c in result.per_class]
            same = len(looked_at) == len(self.some)
            comparable = stats["AP"] if same else coco_metrics.evaluate(self.data, found, indices=self.some).stats["AP"]
        if world > 1:  # all processes have to agree on what is best
            stats, comparable = fabric.broadcast((stats, comparable))
        return Measured(stats, comparable, found, per_class, quality)

    def detect(
        self,
        detector: Detector,
        indices: list[int],
        workers: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, Detections]:
        """Detections in these images, in this process alone."""
        return detect_all(
            detector,
            self.data,
            batch_size=self.batch_size,
            indices=indices,
            workers=workers,
            on_progress=on_progress,
        )

    def write(self, folder: RunFolder, step: int, measured: Measured) -> None:
        """evaluation.json and the sheet of images."""
        found = measured.found
        facts = {
            "step": step,
            "split": self.data.split,
            "images": len(found),
            **measured.stats,
            "threshold": measured.threshold,
            "per_class": measured.per_class,
        }
        folder.write("evaluation.json", json.dumps(facts, indent=1) + "\n")
        looked_at = sorted(found)
        rows = [self._row(looked_at[i], found) for i in spread(len(looked_at), SHEET)]
        with replacing(folder.path / "validation.png") as place:
            sheet(rows, class_names=self.data.class_names).save(place)

    def _row(self, index: int, found: Mapping[int, Detections]) -> Row:
        data, detections = self.data, found[index]
        sure = detections.scores > SHOWN
        names = [data.class_names[label] for label in data.labels(index)]
        names_found = [data.class_names[label] for label in detections.labels[sure].tolist()]
        return Row(
            data.read(index),
            (data.boxes(index), names),
            (detections.boxes[sure], names_found, detections.scores[sure]),
            data.path(index).name,
        )
