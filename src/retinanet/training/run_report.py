"""The page that a run ends with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from retinanet.analysis.coverage import cover
from retinanet.config.settings import Settings
from retinanet.data import DetectionData
from retinanet.data.dataset import spread
from retinanet.evaluation.confusion import confusion, judge, worst
from retinanet.evaluation.loss_distribution import Difficulty, margins
from retinanet.evaluation.tide import errors
from retinanet.training.run_folder import RunFolder, read_metrics
from retinanet.training.validation import Evaluation

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector

LOOKED_AT = 32  # images whose loss is taken apart: some ten million examples an image
PARTS = ("data", "forward", "backward", "optimiser", "evaluation")


def write_report(
    folder: RunFolder,
    settings: Settings,
    data: DetectionData,
    val: DetectionData,
    detector: Detector,
    measured: Evaluation,
    step: int,
    seconds: float,
    seconds_in: Mapping[str, float],
    brief: bool = False,
) -> None:
    """Write report.html.

    Args:
        data, val: what was learnt from, what was measured on. measured: the last evaluation.
        step, seconds: of the whole run. seconds_in: what data, forward, backward, ... took.
        brief: leave out what takes longest, how difficult the examples are.
    """
    from retinanet.report.advice import RunFacts
    from retinanet.report.run_page import write_run_page

    assert measured.curves is not None, "the first process writes"
    found, looked_at = measured.detections, sorted(measured.detections)
    threshold = measured.curves.threshold
    judged = judge(val, found, threshold, indices=looked_at)
    metrics = read_metrics(folder.path)
    parts = {name: seconds_in.get(name, 0.0) for name in PARTS}
    facts = RunFacts(
        folder=folder.path,
        data=data.root,
        split=val.split,
        steps=step,
        seconds=seconds,
        stats=measured.stats,
        per_class=measured.per_class,
        metrics=metrics,
        choices=json.loads((folder.path / "run.json").read_text(encoding="utf-8")).get("choices", []),
        threshold=threshold,
        seconds_in=parts | {"other": max(0.0, seconds - sum(parts.values()))},
        settings=settings,
    )
    write_run_page(
        folder.report,
        facts,
        val,
        found,
        measured.curves,
        errors(val, found, looked_at),
        confusion(val, found, threshold, indices=looked_at),
        worst(judged, 8),
        None if brief else _difficulty(detector, settings, val),
        judged,
        cover(data, settings.model, settings.matching),
    )


def _difficulty(detector: Detector, settings: Settings, val: DetectionData) -> Difficulty | None:
    if settings.loss.kind != "focal":
        return None
    chosen = spread(len(val), LOOKED_AT).tolist()
    return margins(detector, val, settings.matching, indices=chosen).under(settings.loss.gamma)
