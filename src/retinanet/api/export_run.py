"""``retinanet.export``: a detector for another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet.api.loading import load
from retinanet.common.arguments import Nms, path_of
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.exporting import exporter
from retinanet.exporting.exporter import ExportPrecision, Format
from retinanet.inference.detector import Detector
from retinanet.terminal.console import Output

UNNAMED = "detector"
"""The name of an export of a detector whose source is not known."""


def export(
    model: str | Path | Detector,
    format: Format = "onnx",
    output: str | Path | None = None,
    *,
    precision: ExportPrecision = "fp32",
    calibrate: str | Path | None = None,
    check: Sequence[Tensor] | None = None,
    nms: Nms | None = None,
    network_only: bool = False,
    progress: bool = True,
) -> Path:
    """Write a detector for another runtime, and compare the result with the model.

    Examples:
        >>> retinanet.export("runs/mine")  # doctest: +SKIP
        PosixPath('runs/mine.onnx')

    Args:
        model: a detector, or what :func:`retinanet.load` opens, but no exported model.
        format: "onnx": one file, from image to boxes. "openvino": a folder, the fastest on CPUs. "torch": a program of
            torch.export.
        output: a new file (.onnx, .pt2), or a new folder for OpenVINO. By default it is beside the model and named
            after it. For a detector it is "detector" in the current folder.
        precision: of "openvino": "bf16", or "int8" with ``calibrate``.
        calibrate: a folder of images like those of the deployment, from which int8 takes the range of values.
        check: (3, H, W) uint8 images on which model and export are compared. By default some of ``calibrate``, or
            synthetic ones.
        nms: "class" or "agnostic", written into the export; the model's own setting by default.
        network_only: for ONNX, leave out resizing, decoding and non-maximum suppression.
        progress: show what is being done.

    Returns:
        The path of the file or folder.

    Raises:
        RequestError: the arguments do not go together, the model is an export itself, or a package is missing.
        WorkError: the network cannot be exported, or the export disagrees with the model.
    """
    if format not in exporter.ENDINGS:
        raise RequestError(f"format must be one of {', '.join(exporter.ENDINGS)}, not {shown(format)}")
    named = UNNAMED if isinstance(model, Detector) else model
    path = path_of("output", output) if output is not None else exporter.default_output(named, format, precision)
    images = None if calibrate is None else path_of("calibrate", calibrate)
    _require_check(check)
    exporter.require_request(format, path, network_only, precision, images)
    detector = model if isinstance(model, Detector) else load(model, "cpu", "fp32")
    out = Output(quiet=not progress)
    exporter.export(
        detector,
        format,
        path,
        network_only=network_only,
        check=check,
        calibrate=images,
        precision=precision,
        nms=nms,
        on_progress=out.note,
    )
    return path


def _require_check(check: Any) -> None:
    """Refuse images that no export can be compared on before the work of exporting begins.

    Raises:
        RequestError: they are no list of (3, H, W) uint8 tensors.
    """
    if check is None:
        return
    if not isinstance(check, list | tuple):
        raise RequestError(f"check must be a list of images (3, H, W) of uint8, not {shown(check)}")
    for index, image in enumerate(check):
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else shown(image)
            raise RequestError(f"image {index} of check must be a tensor (3, H, W) of uint8, not {what}")
