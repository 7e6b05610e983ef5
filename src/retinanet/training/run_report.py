"""The report page at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from retinanet.analysis.coverage import cover
from retinanet.common.errors import first_line
from retinanet.config.settings import Settings
from retinanet.data import DetectionData
from retinanet.data.dataset import spread
from retinanet.evaluation.confusion import confusion_matrix, image_results
from retinanet.evaluation.loss_distribution import LossCurves, count_logits
from retinanet.evaluation.tide import error_costs
from retinanet.inference.detector import Detector
from retinanet.report.run_facts import RunFacts
from retinanet.report.run_page import write_run_page
from retinanet.training.callbacks import Run
from retinanet.training.events import Problem
from retinanet.training.fitted_defaults import steps_needed
from retinanet.training.run_folder import read_metrics

LOSS_IMAGES = 32
"""Images whose loss distribution is measured; each has some ten million examples."""
PHASES = ("data", "forward", "backward", "optimiser", "evaluation")


def write_report(run: Run, seconds_in: Mapping[str, float], brief: bool = False) -> None:
    """Write report.html of a run that has ended. If that fails, a :class:`retinanet.training.events.Problem` says why.

    Args:
        seconds_in: seconds by phase, see ``PHASES``.
        brief: leave out the distribution of the focal loss, which takes longest.
    """
    try:
        write_run_page(run.folder.report, _facts(run, seconds_in, brief))
    except Exception as error:  # a run of hours must not fail because of its report
        run.notify(Problem(f"{run.folder.report} could not be written: {first_line(error)}"))


def _facts(run: Run, seconds_in: Mapping[str, float], brief: bool) -> RunFacts:
    evaluation, settings = run.evaluation, run.settings
    assert evaluation is not None, "a run ends with an evaluation"
    assert evaluation.curves is not None, "only the first process, which has the curves, writes the report"
    detections, indices, threshold = evaluation.detections, sorted(evaluation.detections), evaluation.curves.threshold
    about = json.loads((run.folder.path / "run.json").read_text(encoding="utf-8"))
    in_phase = {phase: seconds_in.get(phase, 0.0) for phase in PHASES}
    return RunFacts(
        folder=run.folder.path,
        source=run.data.root,
        steps=run.progress.step,
        seconds=run.progress.elapsed,
        seconds_in=in_phase | {"other": max(0.0, run.progress.elapsed - sum(in_phase.values()))},
        settings=settings,
        choices=about.get("choices", []),
        metrics=read_metrics(run.folder.path),
        stats=evaluation.stats,
        per_class=evaluation.per_class,
        data=run.val,
        detections=detections,
        curves=evaluation.curves,
        errors=error_costs(run.val, detections, indices, threshold),
        confusion=confusion_matrix(run.val, detections, threshold, indices=indices),
        images=image_results(run.val, detections, threshold, indices=indices),
        loss_curves=None if brief else _loss_curves(run.detector, settings, run.val),
        steps_needed=steps_needed(settings, len(run.val.class_names)),
        coverage=cover(run.data, settings.model, settings.matching),
        start=about.get("start", ""),
    )


def _loss_curves(detector: Detector, settings: Settings, val: DetectionData) -> LossCurves | None:
    if settings.loss.kind != "focal":
        return None
    indices = spread(len(val), LOSS_IMAGES).tolist()
    return count_logits(detector, val, settings.matching, indices=indices).curves(settings.loss.gamma)
