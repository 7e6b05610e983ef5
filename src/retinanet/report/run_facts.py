"""All facts that the page of a run shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config.settings import Settings

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.data import DetectionData
    from retinanet.evaluation.confusion import Confusion, ImageResult
    from retinanet.evaluation.loss_distribution import LossCurves
    from retinanet.evaluation.pr_curves import Curves
    from retinanet.evaluation.tide import ErrorCosts
    from retinanet.inference.detections import Detections


@dataclass(frozen=True)
class RunFacts:
    """A run and its last evaluation.

    Attributes:
        folder: the run folder. source: the DATA argument.
        steps, seconds: the length of the whole run.
        seconds_in: seconds by phase: data, forward, backward, optimiser, evaluation, other.
        settings: the run's settings. choices: rows of setting, value and reason, of the settings fitted to the data.
        metrics: rows of metrics.csv, texts or numbers.
        stats: COCO's twelve numbers by name, -1 or None where there is no truth.
        per_class: rows of name, AP, AP50 and boxes.
        data: the validation set. detections: by image index in it.
        curves, errors, confusion: of these detections; the confusion and the counts of errors are at the threshold
            with the best F1.
        images: the mistakes in each image at that threshold.
        loss_curves: how the class loss is distributed over examples; None if it was not measured.
        steps_needed: with fewer steps a detector of these classes has learnt little; None if unknown.
        start: what the run started from, and why; empty for runs of older versions.
        coverage: how the anchors cover the boxes of the training set; None if it was not measured.
    """

    folder: Path
    source: Path
    steps: int
    seconds: float
    seconds_in: Mapping[str, float]
    settings: Settings
    choices: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    stats: Mapping[str, float | None]
    per_class: Sequence[Mapping[str, Any]]
    data: DetectionData
    detections: Mapping[int, Detections]
    curves: Curves
    errors: ErrorCosts
    confusion: Confusion
    images: Sequence[ImageResult] = ()
    loss_curves: LossCurves | None = None
    coverage: Coverage | None = None
    steps_needed: int | None = None
    start: str = ""

    @property
    def threshold(self) -> float:
        """The score threshold with the best F1."""
        return self.curves.threshold
