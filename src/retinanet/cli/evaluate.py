"""retinanet evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.console import Output, class_table, number
from retinanet.cli.models import Precision, load, require_model
from retinanet.cli.options import Common
from retinanet.cli.progress import Progress
from retinanet.errors import RequestError

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.detections import Detections
    from retinanet.detector import Detector
    from retinanet.evaluation.coco import CocoResult

WORDS = {
    "AP": "average precision, mean over IoU 0.50 to 0.95",
    "AP50": "average precision at IoU 0.50",
    "AP75": "average precision at IoU 0.75",
    "APs": "average precision, small objects (area below 32 x 32)",
    "APm": "average precision, medium objects",
    "APl": "average precision, large objects (area from 96 x 96)",
    "AR1": "average recall, 1 detection a picture",
    "AR10": "average recall, 10 detections a picture",
    "AR100": "average recall, 100 detections a picture",
    "ARs": "average recall, small objects",
    "ARm": "average recall, medium objects",
    "ARl": "average recall, large objects",
}


def evaluate(
    model: Path,
    data: Path,
    /,
    *,
    split: str = "val",
    threshold: float | None = None,
    strict: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    batch_size: int = 8,
    workers: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    common: Common | None = None,
) -> None:
    """Measure a detector on labelled pictures: COCO's twelve numbers and the AP of each class.

    Parameters
    ----------
    model
        A run folder (its best checkpoint) or a checkpoint file.
    data
        A folder in COCO, Pascal VOC or YOLO layout, or a YOLO YAML. Classes are mapped by name.
    split
        The split to measure on.
    threshold
        Drop scores at or below it; by default the model's own, which is low on purpose: a higher one lowers AP.
    strict
        Refuse a data set with any fault.
    batch_size
        Pictures that go through the network together.
    workers
        Processes that load pictures.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    precision
        "auto" computes in bf16 where the machine does so natively, else in fp32.
    """
    out = Output(common)
    require_model(model)
    if not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if batch_size < 1 or workers < 0:
        raise RequestError("--batch-size must be at least 1, --workers at least 0")

    from retinanet.data import open_data
    from retinanet.evaluation import coco

    detector = load(model, device, precision)
    pictures = open_data(data, split, strict=strict, class_names=detector.class_names)
    out.data(pictures)
    absent = [name for name, count in zip(pictures.class_names, pictures.counts()) if count == 0]
    if absent:
        out.note(f"  no boxes of {', '.join(absent)}: these classes have no AP and are left out of the means")

    found = _detect(out, detector, pictures, batch_size, workers, threshold)
    result = coco.evaluate(pictures, found)
    per_class = [{"name": c.name, "AP": c.ap, "AP50": c.ap50, "boxes": c.boxes} for c in result.per_class]
    out.say(f"{model} on {data}, split {pictures.split}: {result.pictures} pictures", "")
    out.console.print(_table(result))
    out.say("")
    out.console.print(class_table(per_class))
    out.json(
        {
            "model": model,
            "data": data,
            "split": pictures.split,
            "pictures": result.pictures,
            "stats": result.stats,
            "per_class": per_class,
        }
    )


def _detect(
    out: Output, detector: Detector, data: DetectionData, batch_size: int, workers: int, threshold: float | None
) -> dict[int, Detections]:
    """What a model finds, its labels those of ``data`` (a model may have the same classes in another order)."""
    import torch

    from retinanet.detections import Detections
    from retinanet.evaluation.run import detect_all

    with Progress(out) as progress:
        found = detect_all(
            detector,
            data,
            batch_size=batch_size,
            workers=workers,
            threshold=threshold,
            on_progress=progress.counter("measuring"),
        )
    if detector.class_names == data.class_names:
        return found
    label_of = torch.tensor([data.class_names.index(name) for name in detector.class_names])
    return {i: Detections(d.boxes, d.scores, label_of[d.labels], data.class_names) for i, d in found.items()}


def _table(result: CocoResult) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, words in WORDS.items():
        table.add_row(name, number(result.stats[name]), words)
    return table
