"""retinanet evaluate"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, limit_pixels, output_of
from retinanet.cli.shared_options import (
    MORE,
    BatchSize,
    Data,
    Device,
    MaxPixels,
    Model,
    NmsOption,
    Precision,
    Strict,
    Trust,
)
from retinanet.common.arguments import require_data
from retinanet.common.coco_numbers import METRICS
from retinanet.common.errors import RequestError
from retinanet.terminal.console import Output, class_table, number
from retinanet.terminal.progress import Progress

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.evaluation.bootstrap import Interval
    from retinanet.evaluation.coco_metrics import CocoResult
    from retinanet.evaluation.detector_evaluation import DetectorEvaluation
    from retinanet.inference.detector import Detector


def evaluate(
    model: Model,
    data: Data,
    /,
    *,
    split: str = "val",
    compare: Annotated[str | None, Parameter(metavar="MODEL")] = None,
    threshold: float | None = None,
    nms: NmsOption = None,
    resamples: Annotated[int, Parameter(group=MORE)] = 1000,
    strict: Strict = False,
    batch_size: BatchSize = 8,
    workers: Annotated[int, Parameter(group=MORE)] = 0,
    max_pixels: MaxPixels = None,
    device: Device = None,
    precision: Precision = None,
    trust: Trust = False,
    common: Common | None = None,
) -> None:
    """Evaluate a detector on labelled images: COCO's twelve numbers, the confidence interval of AP, and AP per class.

    The classes of the model and of the data set are matched by name.

    Examples
    --------
    retinanet evaluate runs/pets-1 DATA
    retinanet evaluate runs/pets-2 DATA --split test --compare runs/pets-1

    Parameters
    ----------
    split
        Evaluate on this split: val, test, train, ...
    compare
        Also evaluate this model, and show the difference with its confidence interval. It must have the same classes.
    resamples
        Number of bootstrap draws of the images for the 95 % intervals; 0 leaves the intervals out.
    threshold
        Drop detections with this score or a lower one. The model's default is low on purpose: a higher one lowers AP.
        [default: the model's own]
    workers
        Processes that load images; 0 loads them in this process.
    """
    out = output_of(common)
    sources = [model] if compare is None else [model, compare]
    for source in sources:
        require_model(source)
    require_data(data)
    if batch_size < 1 or workers < 0 or resamples < 0:
        raise RequestError("--batch-size must be at least 1, --workers and --resamples at least 0")

    limit_pixels(max_pixels)

    from retinanet.api.evaluation_run import images_of
    from retinanet.evaluation.detector_evaluation import evaluate_detector

    detector = load(model, device, precision, out, trust)
    images = images_of(data, split, detector, out, strict)
    detectors = [detector]
    if compare is not None:
        detectors.append(load(compare, device, precision, out, trust))
        _require_same_classes(detector, detectors[1], compare)

    evaluated = []
    for each in detectors:
        with Progress(out) as progress:
            evaluated.append(
                evaluate_detector(
                    each,
                    images,
                    batch_size=batch_size,
                    workers=workers,
                    threshold=threshold,
                    nms=nms,
                    on_progress=progress.counter("evaluating"),
                )
            )
    out.say(f"{model} on {data}, split {images.split}: {evaluated[0].result.images} images", "")
    content = {"model": model, "precision": detector.precision, "data": data, "split": images.split}
    out.json(content | _report(out, images, evaluated, resamples, compare))


def _report(
    out: Output, images: DetectionData, evaluated: Sequence[DetectorEvaluation], resamples: int, compare: str | None
) -> dict[str, Any]:
    """Print what was measured of one model or of two; return it for the JSON."""
    first, other = evaluated[0], evaluated[1] if len(evaluated) > 1 else None
    intervals, differences = _intervals(out, images, first, other, resamples)
    _print(out, first, intervals)
    content = _json(first, intervals)
    if other is None:
        return content
    out.say("", f"compared with {compare}, on the same images:", "")
    out.table(_comparison(first.result, other.result, differences))
    out.say(f"{1000 * other.seconds:.0f} ms per image")
    return content | {"compared_with": compare} | _json_of_other(other, differences)


def _print(out: Output, first: DetectorEvaluation, intervals: Mapping[str, Interval]) -> None:
    out.table(_table(first.result, intervals))
    out.say("")
    out.table(class_table(first.per_class))
    out.say("", f"best F1 {first.best_f1:.3f} (mean over classes, IoU 0.50), with scores above {first.threshold:.3f}")
    out.say(f"{1000 * first.seconds:.0f} ms per image, with reading (retinanet bench MODEL... times the model alone)")


def _json(first: DetectorEvaluation, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "images": first.result.images,
        "stats": first.metrics,
        "intervals": {name: asdict(value) for name, value in intervals.items()},
        "per_class": first.per_class,
        "seconds_per_image": first.seconds,
        "threshold": first.threshold,
        "best_f1": first.best_f1,
        "thresholds": first.thresholds,
    }


def _json_of_other(other: DetectorEvaluation, differences: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "other_stats": other.metrics,
        "other_seconds_per_image": other.seconds,
        "differences": {name: asdict(value) for name, value in differences.items()},
    }


def _require_same_classes(first: Detector, other: Detector, path: str) -> None:
    if differing := set(first.class_names) ^ set(other.class_names):
        names = ", ".join(sorted(differing))
        raise RequestError(f"--compare {path}: the two models do not have the same classes (only one has {names})")


def _intervals(
    out: Output, data: DetectionData, first: DetectorEvaluation, other: DetectorEvaluation | None, resamples: int
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """The intervals of AP and AP50, and of their differences from the other model."""
    from retinanet.evaluation.bootstrap import confidence_intervals, match_detections

    if not resamples:
        return {}, {}
    with Progress(out) as progress:
        show = progress.counter("bootstrap", "draws")
        matches = match_detections(data, first.detections)
        intervals = confidence_intervals(matches, resamples=resamples, on_progress=show)
        if other is None:
            return intervals, {}
        others = match_detections(data, other.detections)
        return intervals, confidence_intervals(matches, others, resamples=resamples, on_progress=show)


def _table(result: CocoResult, intervals: Mapping[str, Interval]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(intervals))
    table.add_column(style="bold")
    table.add_column(justify="right")
    if intervals:
        table.add_column("95 % interval", no_wrap=True)
    table.add_column(style="dim")
    for name, meaning in METRICS.items():
        interval = [_range(intervals[name]) if name in intervals else ""] if intervals else []
        table.add_row(name, number(result.stats[name]), *interval, meaning)
    return table


def _comparison(result: CocoResult, other: CocoResult, differences: Mapping[str, Interval]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "this", "other", "difference", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("AP", "AP50", "AP75"):
        difference = result.stats[name] - other.stats[name]
        interval = _range(differences[name], "+") if name in differences else ""
        table.add_row(name, number(result.stats[name]), number(other.stats[name]), f"{difference:+.3f}", interval)
    return table


def _range(value: Interval, sign: str = "") -> str:
    return "–" if math.isnan(value.low) else f"{value.low:{sign}.3f} to {value.high:{sign}.3f}"
