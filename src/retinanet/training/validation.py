"""Evaluates a model during training, and draws its detections."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.fabric import Fabric

from retinanet.checkpoints import native
from retinanet.common.atomic_files import replacing
from retinanet.data import DetectionData
from retinanet.data.dataset import evenly, spread
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.pr_curves import Curves, curves
from retinanet.evaluation.runner import detect_all, gather
from retinanet.inference.detections import Detections
from retinanet.inference.image_sheet import Row, sheet
from retinanet.training.collectives import any_process, run_in_all
from retinanet.training.run_folder import RunFolder

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector

BATCH_SIZE = 8
DRAWN_IMAGES = 6
DRAWN_SCORE = 0.3
"""Detections above this score are drawn where the threshold with the best F1 is not known."""
TIMED_IMAGES = 4
"""Images that are timed to estimate the time of an evaluation."""


class _Stop(Exception):
    """Ends an evaluation before its time."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    stats: dict[str, float]
    """COCO's twelve numbers over all images of the evaluation."""
    comparable: float
    """AP over the images that every evaluation uses. It decides which model of a run is best."""
    detections: Mapping[int, Detections]
    """Detections by the index of their image."""
    per_class: list[dict[str, Any]]
    """Name, AP, AP50 and number of boxes of each class."""
    curves: Curves | None
    """None in all processes but the first."""

    @property
    def threshold(self) -> float | None:
        """The score threshold with the highest F1."""
        return None if self.curves is None else self.curves.threshold


class Validation:
    """Evaluates the models of one run on ``data``: on ``count`` images during training, on all at the end."""

    def __init__(self, fabric: Fabric, data: DetectionData, count: int | None, workers: int) -> None:
        self.fabric, self.data, self.workers = fabric, data, workers
        self.subset = spread(len(data), count).tolist()

    def evaluate(
        self,
        detector: Detector,
        final: bool,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Evaluation | None:
        """Detect in the images, distributed over the processes, and evaluate the detections.

        Args:
            final: use all images.
            stop: called after each batch. If it returns True in any process, the evaluation ends and None is returned.
        """
        fabric, world = self.fabric, self.fabric.world_size
        indices = list(range(len(self.data))) if final else self.subset

        def advance(done: int, total: int) -> None:
            if stop():
                raise _Stop
            on_progress(done, total)

        def detect_share() -> dict[int, Detections] | None:
            try:
                return self.detect(detector, indices[fabric.global_rank :: world], self.workers, advance)
            except _Stop:
                return None

        detections = run_in_all(fabric, detect_share)
        if any_process(fabric, detections is None) or detections is None:
            return None
        if world > 1:
            gathered = gather(detections, world, detector.class_names)
            detections = {index: gathered[index] for index in indices}
        stats: dict[str, float] = {}
        comparable, per_class, pr_curves = -1.0, [], None
        if fabric.is_global_zero:
            pr_curves = curves(self.data, detections, indices)
            result = coco_metrics.evaluate(self.data, detections, indices=indices)
            stats = {name: float(result.stats[name]) for name in coco_metrics.NAMES}
            per_class = [c.row() for c in result.per_class]
            comparable = stats["AP"]
            if len(indices) != len(self.subset):
                comparable = coco_metrics.evaluate(self.data, detections, indices=self.subset).stats["AP"]
        if world > 1:  # all processes have to agree on what is best
            stats, comparable = fabric.broadcast((stats, comparable))
        return Evaluation(stats, comparable, detections, per_class, pr_curves)

    def detect(
        self,
        detector: Detector,
        indices: list[int],
        workers: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, Detections]:
        """Detections in these images, in this process alone."""
        return detect_all(
            detector, self.data, batch_size=BATCH_SIZE, indices=indices, workers=workers, on_progress=on_progress
        )

    def time_image(self, detector: Detector) -> float:
        """Seconds that an evaluation takes for one image in this process."""
        first, *timed = spread(len(self.data), TIMED_IMAGES + 1).tolist()
        self.detect(detector, [first])  # the first image takes longer
        start = time.monotonic()
        self.detect(detector, timed or [first])
        return (time.monotonic() - start) / max(1, len(timed))

    def write(self, folder: RunFolder, step: int, evaluation: Evaluation, detector: Detector, best: bool) -> None:
        """Write the checkpoints, evaluation.json and validation.png."""
        common = {"step": step, "split": self.data.split, "threshold": evaluation.threshold}
        state, extra = detector.model.state_dict(), {**common, "metrics": evaluation.stats}
        if self.data.held_out is not None:
            extra["held_out"] = self.data.held_out
        for path in [folder.best, folder.last] if best else [folder.last]:
            native.save(path, state, detector.model.settings, self.data.class_names, extra)
        facts = {
            **common,
            "images": len(evaluation.detections),
            **evaluation.stats,
            "per_class": evaluation.per_class,
        }
        folder.write("evaluation.json", json.dumps(facts, indent=1) + "\n")
        drawn = evenly(sorted(evaluation.detections), DRAWN_IMAGES)
        score = DRAWN_SCORE if evaluation.threshold is None else evaluation.threshold
        rows = [self._row(index, evaluation.detections[index].above(score)) for index in drawn]
        with replacing(folder.path / "validation.png") as path:
            sheet(rows, class_names=self.data.class_names).save(path)

    def _row(self, index: int, detections: Detections) -> Row:
        data = self.data
        names = [data.class_names[label] for label in data.labels(index)]
        return Row(
            data.read(index),
            (data.boxes(index), names),
            (detections.boxes, detections.names, detections.scores),
            data.path(index).name,
        )
