"""The report page at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from retinanet.analysis.coverage import cover
from retinanet.config.settings import Settings
from retinanet.data import DetectionData
from retinanet.data.dataset import spread
from retinanet.evaluation.confusion import confusion_matrix, image_results
from retinanet.evaluation.loss_distribution import LossCurves, count_logits
from retinanet.evaluation.tide import error_costs
from retinanet.inference.detector import Detector
from retinanet.report.run_facts import RunFacts
from retinanet.report.run_page import write_run_page
from retinanet.training.run_folder import RunFolder, read_metrics
from retinanet.training.validation import Evaluation

LOSS_IMAGES = 32
"""Images whose loss distribution is measured; each has some ten million examples."""
PHASES = ("data", "forward", "backward", "optimiser", "evaluation")


@dataclass(frozen=True)
class FinishedRun:
    """What a run hands over to its report.

    Attributes:
        data, val: the training set and the validation set.
        evaluation: the last one.
        step, seconds: the length of the whole run. seconds_in: seconds by phase, see ``PHASES``.
        brief: leave out the loss distribution, which takes longest.
    """

    folder: RunFolder
    settings: Settings
    data: DetectionData
    val: DetectionData
    detector: Detector
    evaluation: Evaluation
    step: int
    seconds: float
    seconds_in: Mapping[str, float]
    brief: bool = False


def write_report(run: FinishedRun) -> None:
    """Write report.html."""
    evaluation, settings = run.evaluation, run.settings
    assert evaluation.curves is not None, "only the first process, which has the curves, writes the report"
    detections, indices, threshold = evaluation.detections, sorted(evaluation.detections), evaluation.curves.threshold
    about = json.loads((run.folder.path / "run.json").read_text(encoding="utf-8"))
    seconds_in = {phase: run.seconds_in.get(phase, 0.0) for phase in PHASES}
    facts = RunFacts(
        folder=run.folder.path,
        source=run.data.root,
        steps=run.step,
        seconds=run.seconds,
        seconds_in=seconds_in | {"other": max(0.0, run.seconds - sum(seconds_in.values()))},
        settings=settings,
        choices=about.get("choices", []),
        metrics=read_metrics(run.folder.path),
        stats=evaluation.stats,
        per_class=evaluation.per_class,
        data=run.val,
        detections=detections,
        curves=evaluation.curves,
        errors=error_costs(run.val, detections, indices),
        confusion=confusion_matrix(run.val, detections, threshold, indices=indices),
        images=image_results(run.val, detections, threshold, indices=indices),
        loss_curves=None if run.brief else _loss_curves(run.detector, settings, run.val),
        coverage=cover(run.data, settings.model, settings.matching),
        start=about.get("start", ""),
    )
    write_run_page(run.folder.report, facts)


def _loss_curves(detector: Detector, settings: Settings, val: DetectionData) -> LossCurves | None:
    if settings.loss.kind != "focal":
        return None
    indices = spread(len(val), LOSS_IMAGES).tolist()
    return count_logits(detector, val, settings.matching, indices=indices).curves(settings.loss.gamma)
