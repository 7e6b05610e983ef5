"""retinanet export"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, output_of
from retinanet.cli.shared_options import MORE, Model, NmsOption
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


def export(
    model: Model,
    /,
    *,
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    output: Path | None = None,
    precision: Literal["fp32", "bf16", "int8"] = "fp32",
    nms: NmsOption = None,
    calibrate: Path | None = None,
    network_only: Annotated[bool, Parameter(negative=(), show_default=False, group=MORE)] = False,
    check: Annotated[Path | None, Parameter(group=MORE)] = None,
    triton: Annotated[Path | None, Parameter(group=MORE)] = None,
    common: Common | None = None,
) -> None:
    """Export a model for another runtime, and check that it gives the same detections there.

    Examples
    --------
    retinanet export runs/pets-1
    retinanet export runs/pets-1 --format openvino --precision int8 --calibrate holiday/

    Parameters
    ----------
    format
        onnx: one file, from image to boxes; openvino: a folder, the fastest on CPUs; torch: a program of torch.export.
    output
        The new file or folder to write. [default: beside the model and named after it, such as runs/pets-1.onnx]
    precision
        Number format of --format openvino; int8 needs --calibrate.
    calibrate
        A folder of images like those of the deployment, or a data set. int8 takes the range of values from them.
    network_only
        With --format onnx: leave out resizing, decoding of boxes and NMS, for programs that have their own.
    check
        A folder of images to compare on; the first 8 are used. [default: some of --calibrate, else synthetic ones]
    triton
        With --format onnx: also write a model repository for the Triton inference server into this folder.
    """
    out = output_of(common)
    require_model(model, weights=True)
    if triton is not None and (format != "onnx" or network_only):
        raise RequestError("--triton is for --format onnx, and for the whole model")

    from retinanet.exporting import exporter as exporting

    output = output or exporting.default_output(model, format, precision)
    if triton is not None and (triton / output.stem).exists():
        raise RequestError(f"{triton / output.stem} exists: name another folder for --triton, or remove it first")
    exporting.require_request(format, output, network_only, precision, calibrate)
    images = None if check is None else _images(check, exporting.CHECKED)
    detector = load(model, "cpu", "fp32")
    made = exporting.export(
        detector,
        format,
        output,
        network_only=network_only,
        check=images,
        calibrate=calibrate,
        precision=precision,
        nms=nms,
        on_progress=out.note,
    )
    differences = made.differences
    out.say(f"compared with the model on {differences['images']:.0f} images; the largest differences:")
    out.say(*(f"  {line}" for line in lines(differences)))
    size = sum(file.stat().st_size for file in made.files) / 1e6
    out.say(f"written: {output}, {size:.1f} MB ({format})")
    repository = None
    if triton is not None:
        from retinanet.exporting import triton as server

        repository = server.write(output, triton, output.stem, detector.settings, detector.class_names)
        out.say(f"for Triton: {repository}", f"next: tritonserver --model-repository {triton.absolute()}")
    elif precision == "int8":
        out.say(f"next: retinanet evaluate {output} DATA --compare {model}, for what it cost in AP")
    elif not network_only:
        out.say(f"next: retinanet predict {output} IMAGE...")
    content = {"model": model, "format": format, "files": made.files, "triton": repository, "precision": precision}
    out.json(content | {"differences": differences})


def _images(folder: Path, count: int) -> list[Tensor]:
    """The first images of a folder."""
    from retinanet.data.formats.listing import image_files
    from retinanet.data.image_io import read

    chosen = list(islice(image_files(folder), count)) if folder.is_dir() else []
    if not chosen:
        raise RequestError(f"--check {folder}: there is no image in such a folder")
    return [read(path) for path in chosen]


def lines(differences: dict[str, float]) -> list[str]:
    """What :func:`retinanet.exporting.verify.verify_export` found, in words."""
    from retinanet.exporting.box_recall import IOU, SCORE

    d = differences
    if "boxes" in d:
        found = [
            f"{d['found again']:.0f} of its {d['boxes']:.0f} boxes with a score above {SCORE} are found again, label "
            f"the same and IoU {IOU} or more"
            if d["boxes"]
            else f"it finds nothing with a score above {SCORE} in them: give images that show something, with --check"
        ]
    else:
        found = [f"boxes {d['pixels']:.3g} pixels, scores {d['score']:.2g}, over {d['detections']:.0f} detections"]
    if d.get("at limits"):
        found.append(f"{d['at limits']:.0f} detections differ, their score or overlap being right at a limit")
    found.append(
        f"the network's outputs {d['outputs']:.2g} of their standard deviation, correlation {d['correlation']:.6f}"
    )
    if "grey levels" in d:
        found.append(f"resized images {d['grey levels']:.3g} of 255 grey levels")
    return found
