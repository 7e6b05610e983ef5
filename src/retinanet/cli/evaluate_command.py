"""retinanet evaluate"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.console import Output, class_table, number
from retinanet.cli.model_argument import Precision, load, require_model
from retinanet.cli.options import Common, limit_pixels
from retinanet.cli.progress import Progress
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.evaluation.bootstrap import Interval
    from retinanet.evaluation.coco_metrics import CocoResult
    from retinanet.inference.detections import Detections
    from retinanet.inference.detector import Detector

WORDS = {
    "AP": "average precision, IoU 0.50 to 0.95",
    "AP50": "average precision at IoU 0.50",
    "AP75": "average precision at IoU 0.75",
    "APs": "average precision, small (area below 32 x 32)",
    "APm": "average precision, medium",
    "APl": "average precision, large (area from 96 x 96)",
    "AR1": "average recall, 1 detection an image",
    "AR10": "average recall, 10 detections an image",
    "AR100": "average recall, 100 detections an image",
    "ARs": "average recall, small",
    "ARm": "average recall, medium",
    "ARl": "average recall, large",
}


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
    """Measure a detector on labelled images: COCO's twelve numbers, how sure AP is, and the AP of each class.

    Parameters
    ----------
    model
        A run folder (its best checkpoint), a checkpoint file of this or another project, an https address, user/name
        on the Hugging Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's.
    data
        A folder in COCO, Pascal VOC or YOLO layout, or a YOLO YAML. Classes are mapped by name.
    split
        The split to measure on.
    compare
        Another model of the same classes: also tells by how much the first is better, with an interval, on the same
        images.
    resamples
        Bootstrap draws of the images that the 95 % intervals rest on; 0 leaves the intervals out.
    threshold
        Drop scores at or below it; by default the model's own, which is low on purpose: a higher one lowers AP.
    strict
        Refuse a data set with any fault.
    batch_size
        Images that go through the network together.
    workers
        Processes that load images.
    max_pixels
        Leave out images of more pixels; by default RETINANET_MAX_PIXELS of the environment, else 178956970.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    precision
        "auto" computes in bf16 where the machine does so natively, else in fp32; by default "auto" for models trained
        here, and "fp32" for those of other projects, so that their boxes are the same as there.
    trust
        Load an exported PyTorch program (.pt2) too, which can run anything on this machine; other files need no trust.
    """
    out = Output(common)
    require_model(model)
    if compare is not None:
        require_model(compare)
    if not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if batch_size < 1 or workers < 0 or resamples < 0:
        raise RequestError("--batch-size must be at least 1, --workers and --resamples at least 0")

    limit_pixels(max_pixels)

    from retinanet.data import open_data
    from retinanet.evaluation import coco_metrics
    from retinanet.evaluation.pr_curves import curves

    detector = load(model, device, precision, out, trust)
    with Progress(out) as progress:
        checking = progress.counter("checking")
        images = open_data(data, split, strict=strict, class_names=detector.class_names, on_progress=checking)
    out.data(images)
    absent = [name for name, count in zip(images.class_names, images.counts()) if count == 0]
    if absent:
        out.note(f"  no boxes of {', '.join(absent)}: these classes have no AP and are left out of the means")
    other = None
    if compare is not None:
        other = load(compare, device, precision, out, trust)
        _require_same_classes(detector, other, compare)

    found, seconds = _detect(out, detector, images, batch_size, workers, threshold)
    found_by_other, other_seconds = None, 0.0
    if other is not None:
        found_by_other, other_seconds = _detect(out, other, images, batch_size, workers, threshold)
    result = coco_metrics.evaluate(images, found)
    per_class = [c.row() for c in result.per_class]
    intervals, differences = _intervals(out, images, found, found_by_other, resamples)
    out.say(f"{model} on {data}, split {images.split}: {result.images} images", "")
    out.console.print(_table(result, intervals))
    out.say("")
    out.console.print(class_table(per_class))
    best = curves(images, found)
    out.say("", f"best F1 {best.best_f1:.3f} (mean over classes, IoU 0.50), with scores above {best.threshold:.3f}")
    out.say(f"{1000 * seconds:.0f} ms an image, reading included (retinanet bench MODEL... measures the model alone)")
    if compare is not None and found_by_other is not None:
        theirs = coco_metrics.evaluate(images, found_by_other)
        out.say("", f"compared with {compare}, on the same images:", "")
        out.console.print(_comparison(result, theirs, differences))
        out.say(f"{1000 * other_seconds:.0f} ms an image")
    out.json(
        {
            "model": model,
            "precision": detector.precision,
            "data": data,
            "split": images.split,
            "images": result.images,
            "stats": result.stats,
            "intervals": {name: asdict(value) for name, value in intervals.items()},
            "per_class": per_class,
            "seconds_per_image": seconds,
            "threshold": best.threshold,
            "best_f1": best.best_f1,
            "thresholds": {curve.name: curve.threshold for curve in best.per_class},
            **(
                {}
                if compare is None
                else {
                    "compared_with": compare,
                    "other_stats": theirs.stats,
                    "other_seconds_per_image": other_seconds,
                    "differences": {name: asdict(value) for name, value in differences.items()},
                }
            ),
        }
    )


def _require_same_classes(one: Detector, other: Detector, path: str) -> None:
    if set(one.class_names) != set(other.class_names):
        differing = ", ".join(sorted(set(one.class_names) ^ set(other.class_names)))
        raise RequestError(f"--compare {path}: the two models do not have the same classes (only one has {differing})")


def _intervals(
    out: Output,
    data: DetectionData,
    found: dict[int, Detections],
    found_by_other: dict[int, Detections] | None,
    resamples: int,
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Of AP and AP50, and of their differences from the other model."""
    from retinanet.evaluation.bootstrap import confidence_intervals, match_detections

    if not resamples:
        return {}, {}
    with Progress(out) as progress:
        show = progress.counter("bootstrap", "draws")
        matches = match_detections(data, found)
        intervals = confidence_intervals(matches, resamples=resamples, on_progress=show)
        if found_by_other is None:
            return intervals, {}
        other = match_detections(data, found_by_other)
        return intervals, confidence_intervals(matches, other, resamples=resamples, on_progress=show)


def _detect(
    out: Output, detector: Detector, data: DetectionData, batch_size: int, workers: int, threshold: float | None
) -> tuple[dict[int, Detections], float]:
    """What a model finds, its labels those of ``data`` (a model may have the same classes in another order).

    Also the seconds that an image took, from its file to its boxes.
    """
    import torch

    from retinanet.evaluation.runner import detect_all
    from retinanet.inference.detections import Detections

    begin = time.perf_counter()
    with Progress(out) as progress:
        found = detect_all(
            detector,
            data,
            batch_size=batch_size,
            workers=workers,
            threshold=threshold,
            on_progress=progress.counter("measuring"),
        )
    seconds = (time.perf_counter() - begin) / max(1, len(data))
    if detector.class_names == data.class_names:
        return found, seconds
    label_of = torch.tensor([data.class_names.index(name) for name in detector.class_names])
    renamed = {i: Detections(d.boxes, d.scores, label_of[d.labels], data.class_names) for i, d in found.items()}
    return renamed, seconds


def _table(result: CocoResult, intervals: dict[str, Interval]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(intervals))
    table.add_column(style="bold")
    table.add_column(justify="right")
    if intervals:
        table.add_column("95 % interval", no_wrap=True)
    table.add_column(style="dim")
    for name, words in WORDS.items():
        sure = [_range(intervals[name]) if name in intervals else ""] if intervals else []
        table.add_row(name, number(result.stats[name]), *sure, words)
    return table


def _comparison(result: CocoResult, other: CocoResult, differences: dict[str, Interval]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "this", "other", "difference", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("AP", "AP50", "AP75"):
        difference = result.stats[name] - other.stats[name]
        sure = _range(differences[name], "+") if name in differences else ""
        table.add_row(name, number(result.stats[name]), number(other.stats[name]), f"{difference:+.3f}", sure)
    return table


def _range(value: Interval, sign: str = "") -> str:
    return "–" if math.isnan(value.low) else f"{value.low:{sign}.3f} to {value.high:{sign}.3f}"
