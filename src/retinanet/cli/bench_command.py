"""retinanet bench"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.cli.console import Output
from retinanet.cli.model_argument import Precision, load, require_model
from retinanet.cli.options import Common
from retinanet.cli.progress import Progress
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from retinanet.bench.model_comparison import Row
    from retinanet.bench.torchvision_bench import Work


def bench(
    *models: str,
    images: Path | None = None,
    device: str | None = None,
    precision: Precision = None,
    rounds: int = 5,
    training: Annotated[bool, Parameter(negative="--no-training")] = True,
    trust: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    common: Common | None = None,
) -> None:
    """Compare models on this machine; without any, its speed with torchvision's RetinaNet: same weights, same work.

    Takes a few minutes on two cores. Leave the machine alone meanwhile.

    Example: retinanet bench runs/mine mine.onnx mine-int8 --images holiday

    Parameters
    ----------
    models
        Run folders, checkpoints, exported files and folders: whatever retinanet predict takes. All look at the same
        images in turn; the boxes of the first are looked for in what the others find.
    images
        A folder of images for the models to look at, at most twelve of them; by default two that are made.
    device
        Where checkpoints run: cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    precision
        What checkpoints compute in, as retinanet predict takes it.
    rounds
        How often each side does each piece of work; medians are shown.
    training
        Without models: measure a training step too, which takes longest.
    trust
        Load an exported PyTorch program (.pt2) too, which can run anything on this machine; other files need no trust.
    """
    out = Output(common)
    if rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {rounds}")
    if models:
        return _compare(out, models, images, device, precision, rounds, trust)
    for name, value in (("--images", images), ("--device", device), ("--precision", precision)):
        if value is not None:
            raise RequestError(f"{name} is for comparing models: retinanet bench MODEL... {name} {value}")
    out.note("importing PyTorch and torchvision")

    from retinanet.bench import torchvision_bench as work
    from retinanet.common.precision import choose

    training_precision = choose("auto", "cpu")
    machine = work.machine()
    out.say(machine, "")
    works: list[Callable[[], Work]] = [
        work.focal_loss,
        work.box_matching,
        work.post_processing,
        work.inference,
    ]
    if training:
        works.append(lambda: work.training_step(precision=training_precision))
    made = []
    out.say(f"{'':62} {'ours':>9} {'torchvision':>12}  times faster (range)")
    for number, each in enumerate(works, 1):
        with out.progress.status(f"measuring {number} of {len(works)}"):
            made.append(each().compare(rounds).row())
        r = made[-1]
        out.say(
            f"{r['name']:62} {_time(r['ours_seconds']):>9} {_time(r['torchvision_seconds']):>12}  "
            f"{r['ratio']:.1f} ({r['ratio_low']:.1f} to {r['ratio_high']:.1f})"
        )
    out.json({"machine": machine, "comparisons": made})


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
    from retinanet.export import box_recall

    about = machine()
    out.say(about, "")
    looked_at = _read(files)
    with Progress(out) as progress:
        counter = progress.counter("measuring", "rounds")
        rows = model_comparison.compare(
            models, looked_at, lambda model: load(model, device, precision, out, trust), rounds, counter
        )
    out.say(*_lines(rows))
    sizes = ", ".join(sorted({f"{p.shape[2]} x {p.shape[1]}" for p in looked_at})[:4])
    out.say(
        "",
        f"median and range over {rounds} rounds of {len(looked_at)} images ({sizes}), from pixels to boxes, one at a "
        "time",
        f"same boxes: of the {rows[0].wanted} boxes of {models[0]} with a score above {box_recall.SCORE}, "
        f"how many are found again with the same label at an IoU of {box_recall.IOU} or more",
    )
    if not rows[0].wanted:
        out.say("there are none here: give images that show something, with --images FOLDER")
    out.json({"machine": about, "images": files, "rounds": rounds, "models": [row.row() for row in rows]})


def _images(folder: Path | None) -> list[Path]:
    """None of them means images that are made."""
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
    import tempfile

    from retinanet.bench.torchvision_bench import make_image
    from retinanet.data.image_io import read

    if files:
        return [read(path) for path in files]
    with tempfile.TemporaryDirectory() as place:
        made = read(make_image(Path(place) / "image.jpg"))
    return [made, made.transpose(1, 2).contiguous()]


def _lines(rows: list[Row]) -> list[str]:
    """A table; lines of text, which a narrow terminal wraps but does not cut."""
    cells = [("model", "by", "size", "to load", "an image", "(range)", "images/s", "same boxes")]
    for row in rows:
        r = row.row()
        cells.append(
            (
                row.model,
                row.kind,
                f"{row.bytes / 1e6:.1f} MB",
                _time(row.load_seconds),
                _time(r["seconds"]),
                f"{_time(r['seconds_low'])} to {_time(r['seconds_high'])}",
                f"{r['images_per_second']:.2f}",
                "–" if row.agreement is None else f"{100 * row.agreement:.1f} %",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths)) for line in cells)
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
