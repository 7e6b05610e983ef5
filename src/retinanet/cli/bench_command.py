"""retinanet bench"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, output_of
from retinanet.cli.shared_options import MORE, Device, Precision, Trust
from retinanet.common.errors import RequestError
from retinanet.terminal.console import Output
from retinanet.terminal.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from retinanet.bench.model_comparison import Row
    from retinanet.bench.torchvision_bench import Work


def bench(
    *models: str,
    images: Path | None = None,
    device: Device = None,
    precision: Precision = None,
    rounds: Annotated[int, Parameter(group=MORE)] = 5,
    training: Annotated[bool, Parameter(negative="--no-training")] = True,
    trust: Trust = False,
    common: Common | None = None,
) -> None:
    """Compare models on this machine. Without models, compare its speed with torchvision's RetinaNet, on the same work.

    Takes a few minutes on two cores. Do not use the machine for anything else meanwhile.

    Examples
    --------
    retinanet bench
    retinanet bench runs/pets-1 runs/pets-1.onnx --images holiday/

    Parameters
    ----------
    models
        Run folders, checkpoints, exported files and folders, as for retinanet predict. All models run on the same
        images in turn. The detections of each model are compared with those of the first.
    images
        A folder of images for the models; at most twelve of them are used. [default: two synthetic images]
    rounds
        How often each side repeats each task. The medians are shown.
    training
        Without models: also measure a training step, which takes longest.
    """
    out = output_of(common)
    if rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {rounds}")
    if models:
        return _compare(out, models, images, device, precision, rounds, trust)
    for name, value in (("--images", images), ("--device", device), ("--precision", precision)):
        if value is not None:
            raise RequestError(f"{name} is for comparing models: retinanet bench MODEL... {name} {value}")
    out.note("importing PyTorch and torchvision")

    from retinanet.bench import torchvision_bench as tasks
    from retinanet.common.precision import choose

    training_precision = choose("auto", "cpu")
    machine = tasks.machine()
    out.say(machine, "")
    makers: list[Callable[[], Work]] = [tasks.focal_loss, tasks.box_matching, tasks.post_processing, tasks.inference]
    if training:
        makers.append(lambda: tasks.training_step(precision=training_precision))
    rows = []
    out.say(f"{'':62} {'ours':>9} {'torchvision':>12}  times faster (range)")
    for number, make in enumerate(makers, 1):
        with out.progress.status(f"measuring {number} of {len(makers)}"):
            row = make().compare(rounds).row()
        rows.append(row)
        out.say(
            f"{row['name']:62} {_time(row['ours_seconds']):>9} {_time(row['torchvision_seconds']):>12}  "
            f"{row['ratio']:.1f} ({row['ratio_low']:.1f} to {row['ratio_high']:.1f})"
        )
    out.json({"machine": machine, "comparisons": rows})


def _compare(
    out: Output,
    models: tuple[str, ...],
    folder: Path | None,
    device: str | None,
    precision: Precision,
    rounds: int,
    trust: bool,
) -> None:
    for model in models:
        require_model(model)
    files = _images(folder)
    out.note("importing PyTorch")

    from retinanet.bench import model_comparison
    from retinanet.bench.torchvision_bench import machine
    from retinanet.exporting import box_recall

    about = machine()
    out.say(about, "")
    pixels = _read(files)
    with Progress(out) as progress:
        counter = progress.counter("measuring", "rounds")
        rows = model_comparison.compare(
            models, pixels, lambda model: load(model, device, precision, out, trust), rounds, counter
        )
    out.say(*_lines(rows))
    sizes = ", ".join(sorted({f"{p.shape[2]} x {p.shape[1]}" for p in pixels})[:4])
    out.say(
        "",
        f"median and range over {rounds} rounds of {len(pixels)} images ({sizes}), from pixels to boxes, one at a time",
        f"same boxes: the share of the {rows[0].wanted} boxes of {models[0]} with a score above {box_recall.SCORE} for "
        f"which the model has a box with the same label and an IoU of {box_recall.IOU} or more",
    )
    if not rows[0].wanted:
        out.say("the first model has no such box: choose images with objects, with --images FOLDER")
    out.json({"machine": about, "images": files, "rounds": rounds, "models": [row.row() for row in rows]})


def _images(folder: Path | None) -> list[Path]:
    """The image files to use; an empty list stands for synthetic images."""
    if folder is None:
        return []
    from retinanet.bench.model_comparison import MOST
    from retinanet.data.dataset import evenly
    from retinanet.data.formats.listing import image_files

    if not folder.is_dir():
        raise RequestError(f"--images {folder}: there is no such folder")
    files = list(image_files(folder))
    if not files:
        raise RequestError(f"--images {folder}: there is no image in it")
    return evenly(files, MOST)


def _read(files: list[Path]) -> list[Tensor]:
    from retinanet.bench.torchvision_bench import make_image
    from retinanet.data.image_io import read

    if files:
        return [read(path) for path in files]
    with tempfile.TemporaryDirectory() as folder:
        image = read(make_image(Path(folder) / "image.jpg"))
    return [image, image.transpose(1, 2).contiguous()]


def _lines(rows: list[Row]) -> list[str]:
    """A table as lines of text, which a narrow terminal wraps and does not cut."""
    cells = [("model", "by", "size", "to load", "an image", "(range)", "images/s", "same boxes")]
    for row in rows:
        numbers = row.row()
        cells.append(
            (
                row.model,
                row.kind,
                f"{row.bytes / 1e6:.1f} MB",
                _time(row.load_seconds),
                _time(numbers["seconds"]),
                f"{_time(numbers['seconds_low'])} to {_time(numbers['seconds_high'])}",
                f"{numbers['images_per_second']:.2f}",
                "–" if row.agreement is None else f"{100 * row.agreement:.1f} %",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells)]
    aligned = [str.ljust] * 2 + [str.rjust] * (len(widths) - 2)
    return ["  ".join(align(cell, width) for align, cell, width in zip(aligned, line, widths)) for line in cells]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
