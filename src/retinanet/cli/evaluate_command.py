"""retinanet evaluate"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.model_argument import Precision, load, require_model
from retinanet.cli.options import Common, limit_pixels, output_of
from retinanet.common.arguments import Nms
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
    model: str,
    data: Path,
    /,
    *,
    split: str = "val",
    compare: str | None = None,
    resamples: int = 1000,
    threshold: float | None = None,
    nms: Nms | None = None,
    strict: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    batch_size: int = 8,
    workers: int = 0,
    max_pixels: int | None = None,
    device: str | None = None,
    precision: Precision = None,
    trust: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    common: Common | None = None,
) -> None:
    """Evaluate a detector on labelled images: COCO's twelve numbers, the confidence interval of AP, and AP per class.

    Parameters
    ----------
    model
        A run folder (its best checkpoint), a checkpoint file of this or another project, an https URL, user/name on
        the Hugging Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's.
    data
        A folder in COCO, Pascal VOC or YOLO layout, or a YOLO YAML. Classes are matched by name.
    split
        The split to evaluate on.
    compare
        Another model with the same classes. Shows the difference between the two on the same images, with its
        confidence interval.
    resamples
        Number of bootstrap draws of the images for the 95 % intervals; 0 leaves the intervals out.
    threshold
        Drop detections with this score or a lower one. The model's default is low on purpose: a higher one lowers AP.
    nms
        "agnostic" lets boxes of all classes suppress each other; "class" only boxes of one class. By default the
        model's own setting.
    strict
        Refuse a data set with any problem.
    batch_size
        Images of one forward pass.
    workers
        Processes that load images; 0 loads them in this process.
    max_pixels
        Leave out images with more pixels; by default the environment's RETINANET_MAX_PIXELS, else 178956970.
    device
        auto, cpu, cuda, cuda:1, mps, ...; a number is that GPU. auto: CUDA, else MPS, else the CPU.
    precision
        "auto" computes in bf16 if the machine supports it natively, else in fp32. The default is "auto" for models of
        this project, and "fp32" for those of other projects, so that their boxes stay the same.
    trust
        Also load an exported PyTorch program (.pt2), which can run any code on this machine. Other files need no trust.
    """
    out = output_of(common)
    sources = [model] if compare is None else [model, compare]
    for source in sources:
        require_model(source)
    if not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
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
