"""Export of a detector. The result is compared with the model first: an export that disagrees leaves no file."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from retinanet.common.arguments import Nms, PredictOptions
from retinanet.common.atomic_files import beside, rename, what_is_wrong
from retinanet.common.errors import RequestError, WorkError
from retinanet.data.dataset import evenly
from retinanet.data.image_io import read
from retinanet.exporting import torch_export
from retinanet.exporting.onnx import onnx_export, onnx_runtime
from retinanet.exporting.openvino import openvino_export, openvino_int8, openvino_runtime
from retinanet.exporting.verify import verify_export
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

Format = Literal["onnx", "openvino", "torch"]
ExportPrecision = Literal["fp32", "bf16", "int8"]
ENDINGS: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2", "openvino": ""}
"""File suffixes; OpenVINO's models are folders."""
LOADERS: dict[str, Callable[[Path], Detector]] = {
    "onnx": onnx_runtime.load_onnx,
    "torch": partial(torch_export.load_torch, trust=True),  # This process has just written the file.
    "openvino": openvino_runtime.load,
}
CHECKED = 8
"""How many images of a folder the model and its export are compared on."""


@dataclass
class Exported:
    files: tuple[Path, ...]
    differences: dict[str, float] = field(default_factory=dict)
    """The largest differences to the model, by name; see :mod:`retinanet.exporting.verify`."""


def default_output(model: str | Path, format: Format, precision: ExportPrecision = "fp32") -> Path:
    """Where an export goes if no output is given: beside the model, or into this folder, and named after the model.

    >>> default_output("runs/pets-1", "onnx")
    PosixPath('runs/pets-1.onnx')

    Args:
        model: a run folder, a file, a URL or a name, as :func:`retinanet.load` takes it.
    """
    text = str(model)
    if os.path.exists(text):
        path = Path(model).resolve() if Path(model).name in ("", "..") else Path(model)
        folder, name = path.parent, path.name if path.is_dir() else path.stem
    else:
        last = text.partition("?")[0].rstrip("/").rpartition("/")[2]
        folder, name = Path(), Path(last.partition("@")[0]).name.removesuffix(Path(last).suffix)
    if format == "openvino":
        name += "-openvino" if precision == "fp32" else f"-openvino-{precision}"
    return folder / f"{name}{ENDINGS[format]}"


def require_request(
    format: Format, output: Path, network_only: bool, precision: ExportPrecision, calibrate: Path | None
) -> None:
    """Check the options, which needs no model.

    Raises:
        RequestError: the options do not go together, or the output cannot be written there.
    """
    if precision != "fp32" and format != "openvino":
        raise RequestError(f"--precision {precision} is for --format openvino; {format} files are fp32")
    if (calibrate is not None) != (precision == "int8"):
        raise RequestError(
            "--precision int8 needs --calibrate FOLDER with images like those of the deployment"
            if calibrate is None
            else "--calibrate is for --format openvino --precision int8"
        )
    if network_only and format != "onnx":
        raise RequestError(f"--network-only is for --format onnx; {format} files hold the network alone anyway")
    ending = ENDINGS[format]
    if ending and output.suffix.lower() != ending:
        raise RequestError(f"{output}: give the output a name that ends in {ending}")
    if output.exists():
        raise RequestError(f"{output} exists: name a new output with --output, or remove it first")
    if not output.absolute().parent.is_dir():
        raise RequestError(f"there is no folder {output.absolute().parent} to write {output.name} into")


def export(
    detector: Detector,
    format: Format,
    output: Path,
    *,
    network_only: bool = False,
    check: Sequence[Tensor] | None = None,
    calibrate: Path | None = None,
    precision: ExportPrecision = "fp32",
    nms: Nms | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Exported:
    """Write ``detector`` for another runtime, compare it with the model, and only then move it to ``output``.

    Args:
        output: a new file, or for "openvino" a new folder.
        network_only: ONNX without pre- and post-processing.
        check: (3, H, W) uint8 images on which both are compared; by default some of ``calibrate``, or synthetic ones.
        calibrate: a folder of images on which int8 is calibrated.
        precision: of "openvino"; the others are fp32.
        nms: "class" or "agnostic", written into the export; the detector's own setting by default.
        on_progress: called with what is being done.

    Raises:
        RequestError: the options are wrong (see :func:`require_request`); the detector is an export itself; a
            package is missing.
        WorkError: the network cannot be exported, or what was written disagrees with the model.
    """
    say = on_progress or (lambda text: None)
    output = Path(output)
    require_request(format, output, network_only, precision, calibrate)
    reference = _reference(detector, PredictOptions(nms=nms).nms)
    if check is None and calibrate is not None:
        check = _images_to_compare(calibrate)
    temporary = beside(output)
    try:
        if format == "onnx":
            onnx_export.write(reference, temporary, network_only, say)
        elif format == "torch":
            torch_export.write(reference, temporary, say)
        else:
            openvino_export.write(reference, temporary, precision, calibrate, say)
        differences = verify_export(temporary, reference, LOADERS[format], check, precision, say)
        rename(temporary, output)
    except OSError as error:
        raise WorkError(f"cannot write {output}: {what_is_wrong(error)}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
    files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
    return Exported(tuple(files), differences)


def _reference(detector: Detector, nms: Nms | None) -> Detector:
    """The detector as it was trained: float32, on the CPU, without faster algorithms; with ``nms`` as its setting."""
    model = getattr(detector, "model", None)
    if not isinstance(model, RetinaNet):
        raise RequestError("this model is an exported one: export the checkpoint that it was made from")
    model = copy.copy(model) if detector.device.type == "cpu" else copy.deepcopy(model).cpu()
    if nms is not None:
        after = replace(model.settings.postprocessing, nms=nms)
        model.settings = replace(model.settings, postprocessing=after)
    return Detector(model.float(), detector.class_names, "fp32", detector.about)


def _images_to_compare(calibrate: Path) -> list[Tensor]:
    """Real images to compare on, which tell more about a coarser network than synthetic ones."""
    return [read(path) for path in evenly(openvino_int8.calibration_images(calibrate), CHECKED)]
