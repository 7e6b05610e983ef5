"""retinanet export"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, output_of
from retinanet.common.arguments import Nms
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


def export(
    model: str,
    /,
    *,
    format: Literal["onnx", "openvino", "torch"],
    output: Path,
    network_only: bool = False,
    precision: Literal["fp32", "bf16", "int8"] = "fp32",
    nms: Nms | None = None,
    calibrate: Path | None = None,
    check: Path | None = None,
    triton: Path | None = None,
    common: Common | None = None,
) -> None:
    """Write a model for another runtime, and check that it finds there what it finds here.

    Example: retinanet export runs/mine --format onnx --output mine.onnx

    Parameters
    ----------
    model
        As for retinanet predict: a run folder, a checkpoint of this or another project, a name on the hub.
    format
        onnx: one file that takes images and gives boxes; openvino: a folder; torch: a program of torch.export.
    output
        The file (.onnx, .pt2) or folder to write, a new one.
    network_only
        Of onnx: without resizing, decoding and suppression, for those who bring their own.
    precision
        Of openvino: bf16, or int8 with --calibrate.
    nms
        Write into the export: "agnostic" lets boxes of all classes suppress each other; "class" only boxes of one
        class. By default the model's own setting.
    calibrate
        A folder of images like those to come, or a data set, from which int8 learns the range of values.
    check
        A folder of images to compare on, of which the first 8 are taken; by default some of --calibrate, or made
        ones.
    triton
        Of onnx: also write a model repository for the Triton inference server into this folder.
    """
    out = output_of(common)
    require_model(model, weights=True)
    if triton is not None and (format != "onnx" or network_only):
        raise RequestError("--triton is for --format onnx, and for the whole model")
    if triton is not None and (triton / output.stem).exists():
        raise RequestError(f"{triton / output.stem} exists: name another folder for --triton, or remove it first")

    from retinanet.export import exporter as exporting

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
    out.say(f"written: {output}, {size:.1f} MB")
    repository = None
    if triton is not None:
        from retinanet.export import triton as server

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
    """What :func:`retinanet.export.verify.verify` found, in words."""
    from retinanet.export.box_recall import IOU, SCORE

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
