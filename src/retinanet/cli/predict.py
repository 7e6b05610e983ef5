"""retinanet predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from retinanet.cli.console import Output
from retinanet.cli.models import Precision, load, require_model
from retinanet.cli.options import Common
from retinanet.cli.progress import Progress
from retinanet.cli.train import next_folder
from retinanet.errors import RequestError

USUAL = 0.3  # the threshold of a model that says nothing of its own
SHOWN = 5  # unreadable pictures that are named on the terminal; all of them are in the JSON

Format = Literal["json", "csv", "yolo"]


def predict(
    model: str,
    /,
    *sources: str,
    output: Path | None = None,
    threshold: float | None = None,
    max_detections: int | None = None,
    size: int | None = None,
    formats: Annotated[tuple[Format, ...], Parameter(name="--format", consume_multiple=True, negative=())] = ("json",),
    draw: bool = True,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision = "auto",
    common: Common | None = None,
) -> None:
    """Find objects in pictures: draws them and writes what was found.

    Example: retinanet predict runs/mine holiday/ 'more/*.jpg' --output found --format json csv

    Parameters
    ----------
    model
        A run folder (its best checkpoint), a checkpoint file of this or another project, an https address, user/name
        on the Hugging Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's.
    sources
        Pictures, folders (with their subfolders) and patterns.
    output
        A new folder for drawn pictures and result files; by default the next free runs/predict-1, ...
    threshold
        Drop detections with a score at or below it; by default the one with the best F1 when the model was measured in
        training, and 0.3 for a model that was not.
    max_detections
        The most in one picture; by default the model's own setting.
    size
        Resize pictures to this many pixels (as the model does: the shorter side in general) instead of the model's
        size.
    formats
        json: detections.json in COCO's form; csv: detections.csv; yolo: labels/, a text file a picture.
    draw
        Write the pictures with their detections drawn.
    batch_size
        Pictures that go through the network together.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    precision
        "auto" computes in bf16 where the machine does so natively, else in fp32.
    """
    out = Output(common)
    require_model(model)
    if not sources:
        raise RequestError("which pictures? retinanet predict MODEL SOURCE..., files, folders or patterns")
    if threshold is not None and not 0 <= threshold < 1:
        raise RequestError(f"--threshold must be in [0, 1), not {threshold}")
    for name, value in (("--max-detections", max_detections), ("--size", size), ("--batch-size", batch_size)):
        if value is not None and value < 1:
            raise RequestError(f"{name} must be at least 1, not {value}")

    from retinanet.prediction import find_pictures, predict_files

    find_pictures(sources)  # what is wrong with them is said before a model is loaded
    detector = load(model, device, precision)
    folder = output or next_folder(Path("predict"))
    why = ""
    if threshold is None:
        threshold = USUAL if detector.threshold is None else detector.threshold
        why = "" if detector.threshold is None else " (the model's best F1)"
    problems = 0

    def problem(path: str, reason: str) -> None:
        nonlocal problems
        problems += 1
        if problems <= SHOWN:
            out.note(f"cannot read {path}: {reason}")

    with Progress(out) as progress:
        made = predict_files(
            detector,
            sources,
            folder,
            threshold=threshold,
            max_detections=max_detections,
            size=size,
            batch_size=batch_size,
            draw=draw,
            formats=formats,
            on_progress=progress.counter("looking at"),
            on_problem=problem,
        )
    total = made.detections.total()
    classes = ", ".join(f"{name} {count}" for name, count in made.detections.most_common())
    classes = f": {classes}" if classes else ""
    out.say(f"{total} found in {made.pictures} pictures, score above {threshold:.3g}{why}{classes}")
    if made.unreadable:
        out.say(f"{len(made.unreadable)} that could not be read are left out")
    files = ", ".join(str(file.relative_to(folder)) for file in made.files)
    out.say(f"in {folder}: " + " and ".join(filter(None, ["the drawn pictures" if draw else "", files])))
    out.json(
        {
            "model": model,
            "output": folder,
            "pictures": made.pictures,
            "threshold": threshold,
            "detections": dict(made.detections),
            "unreadable": [{"file": path, "reason": reason} for path, reason in made.unreadable],
            "files": made.files,
        }
    )
