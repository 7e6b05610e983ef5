"""retinanet evaluate"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.console import Output, class_table, number
from retinanet.cli.model_argument import Precision, load, require_model
from retinanet.cli.options import Common, limit_pixels
from retinanet.cli.progress import Progress
from retinanet.common.coco_numbers import METRICS
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.evaluation.bootstrap import Interval
    from retinanet.evaluation.coco_metrics import CocoResult
    from retinanet.evaluation.pr_curves import Curves
    from retinanet.inference.detections import Detections
    from retinanet.inference.detector import Detector


@dataclass(frozen=True)
class Evaluated:
    """A model on the data set."""

    model: str
    detections: dict[int, Detections]
    seconds: float
    """Seconds per image, from its file to its boxes."""
    result: CocoResult


def evaluate(
    model: str,
    data: Path,
    /,
    *,
    split: str = "val",
    compare: str | None = None,
    resamples: int = 1000,
    threshold: float | None = None,
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
        A folder in COCO, Pascal VOC, YOLO or another layout, or its YAML, JSON or CSV. Classes are matched by name.
    split
        The split to evaluate on.
    compare
        Another model with the same classes. Shows the difference between the two on the same images, with its
        confidence interval.
    resamples
        Number of bootstrap draws of the images for the 95 % intervals; 0 leaves the intervals out.
    threshold
        Drop detections with this score or a lower one. The model's default is low on purpose: a higher one lowers AP.
    strict
        Refuse a data set with any problem.
    batch_size
        Images of one forward pass.
    workers
        Processes that load images; 0 loads them in this process.
    max_pixels
        Leave out images with more pixels; by default the environment's RETINANET_MAX_PIXELS, else 178956970.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    precision
        "auto" computes in bf16 if the machine supports it natively, else in fp32. The default is "auto" for models of
        this project, and "fp32" for those of other projects, so that their boxes stay the same.
    trust
        Also load an exported PyTorch program (.pt2), which can run any code on this machine. Other files need no trust.
    """
    out = Output(common)
    sources = [model] if compare is None else [model, compare]
    for source in sources:
        require_model(source)
    if not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if batch_size < 1 or workers < 0 or resamples < 0:
        raise RequestError("--batch-size must be at least 1, --workers and --resamples at least 0")

    limit_pixels(max_pixels)

    detector = load(model, device, precision, out, trust)
    images = _open(out, data, split, strict, detector.class_names)
    detectors = [detector]
    if compare is not None:
        detectors.append(load(compare, device, precision, out, trust))
        _require_same_classes(detector, detectors[1], compare)

    evaluated = [
        _evaluate(out, source, each, images, batch_size, workers, threshold)
        for source, each in zip(sources, detectors, strict=True)
    ]
    out.say(f"{model} on {data}, split {images.split}: {evaluated[0].result.images} images", "")
    content = {"model": model, "precision": detector.precision, "data": data, "split": images.split}
    out.json(content | _report(out, images, evaluated, resamples, compare))


def _open(out: Output, data: Path, split: str, strict: bool, class_names: Sequence[str]) -> DetectionData:
    from retinanet.data import open_data

    with Progress(out) as progress:
        checking = progress.counter("checking")
        images = open_data(data, split, strict=strict, class_names=class_names, on_progress=checking)
    out.data(images)
    absent = [name for name, count in zip(images.class_names, images.counts()) if count == 0]
    if absent:
        out.note(f"  no boxes of {', '.join(absent)}: these classes have no AP and are left out of the means")
    return images


def _report(
    out: Output, images: DetectionData, evaluated: Sequence[Evaluated], resamples: int, compare: str | None
) -> dict[str, Any]:
    """Print what was measured of one model or of two; return it for the JSON."""
    from retinanet.evaluation.pr_curves import curves

    first, other = evaluated[0], evaluated[1] if len(evaluated) > 1 else None
    intervals, differences = _intervals(out, images, first, other, resamples)
    best = curves(images, first.detections)
    _print(out, first, intervals, best)
    if other is not None:
        out.say("", f"compared with {compare}, on the same images:", "")
        out.console.print(_comparison(first.result, other.result, differences))
        out.say(f"{1000 * other.seconds:.0f} ms per image")
    return _json(first, intervals, best) | ({} if other is None else _json_of_other(other, differences))


def _print(out: Output, first: Evaluated, intervals: Mapping[str, Interval], best: Curves) -> None:
    out.console.print(_table(first.result, intervals))
    out.say("")
    out.console.print(class_table([c.row() for c in first.result.per_class]))
    out.say("", f"best F1 {best.best_f1:.3f} (mean over classes, IoU 0.50), with scores above {best.threshold:.3f}")
    out.say(f"{1000 * first.seconds:.0f} ms per image, with reading (retinanet bench MODEL... times the model alone)")


def _json(first: Evaluated, intervals: Mapping[str, Interval], best: Curves) -> dict[str, Any]:
    return {
        "images": first.result.images,
        "stats": first.result.stats,
        "intervals": {name: asdict(value) for name, value in intervals.items()},
        "per_class": [c.row() for c in first.result.per_class],
        "seconds_per_image": first.seconds,
        "threshold": best.threshold,
        "best_f1": best.best_f1,
        "thresholds": {curve.name: curve.threshold for curve in best.per_class},
    }


def _json_of_other(other: Evaluated, differences: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "compared_with": other.model,
        "other_stats": other.result.stats,
        "other_seconds_per_image": other.seconds,
        "differences": {name: asdict(value) for name, value in differences.items()},
    }


def _require_same_classes(first: Detector, other: Detector, path: str) -> None:
    if differing := set(first.class_names) ^ set(other.class_names):
        names = ", ".join(sorted(differing))
        raise RequestError(f"--compare {path}: the two models do not have the same classes (only one has {names})")


def _intervals(
    out: Output, data: DetectionData, first: Evaluated, other: Evaluated | None, resamples: int
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


def _evaluate(
    out: Output,
    model: str,
    detector: Detector,
    data: DetectionData,
    batch_size: int,
    workers: int,
    threshold: float | None,
) -> Evaluated:
    """Run a model on the data. Its labels become those of ``data``, which may have the classes in another order."""
    import torch

    from retinanet.evaluation import coco_metrics
    from retinanet.evaluation.runner import detect_all
    from retinanet.inference.detections import Detections

    begin = time.perf_counter()
    with Progress(out) as progress:
        detections = detect_all(
            detector,
            data,
            batch_size=batch_size,
            workers=workers,
            threshold=threshold,
            on_progress=progress.counter("evaluating"),
        )
    seconds = (time.perf_counter() - begin) / max(1, len(data))
    if detector.class_names != data.class_names:
        label_of = torch.tensor([data.class_names.index(name) for name in detector.class_names])
        detections = {
            index: Detections(d.boxes, d.scores, label_of[d.labels], data.class_names)
            for index, d in detections.items()
        }
    return Evaluated(model, detections, seconds, coco_metrics.evaluate(data, detections))


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
