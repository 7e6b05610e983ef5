"""The network as an OpenVINO model: a folder that :mod:`retinanet.exporting.openvino.openvino_runtime` reads."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.version import __version__
from retinanet.config.convert import to_plain
from retinanet.exporting.onnx.onnx_export import EXAMPLE, Flat, output_names
from retinanet.exporting.openvino import openvino_int8
from retinanet.exporting.openvino.openvino_runtime import ABOUT, DEVICE, FORMAT, NETWORK, core, runtime
from retinanet.inference.detector import Detector

Precision = Literal["fp32", "bf16", "int8"]
CHECKED = ((1, 3, 32, 32), (2, 3, 96, 160), (1, 3, 256, 64))
TOLERANCE = 1e-3
"""The largest difference of a converted network, relative to the largest output."""


def write(
    detector: Detector,
    folder: Path,
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Write ``detector`` as a folder. ``retinanet.json`` comes last, so that an unfinished folder is not loaded.

    Args:
        folder: a folder, created if necessary.
        precision: "bf16" stores weights in 16 bits, half as large, and computes in bf16 where the CPU has it,
            else in float32. "int8" computes most of the network in 8 bits.
        calibrate: for int8, images like those of the deployment: a folder, or a data set with a train split.
        on_progress: called with what is being done.

    Raises:
        RequestError: a package or the images are missing.
        WorkError: the network does something that cannot be exported; the disk is full.
    """
    openvino = runtime("an OpenVINO export")
    say = on_progress or (lambda text: None)
    images = []
    if precision == "int8":
        openvino_int8.nncf()
        if calibrate is None:
            raise RequestError("int8 needs images like those of the deployment: --calibrate FOLDER")
        images = openvino_int8.calibration_images(calibrate)
    say("tracing the network")
    model = convert(detector, openvino)
    if images:
        model = openvino_int8.quantise(model, detector.settings, images, say)
    say("writing")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, folder / NETWORK, compress_to_fp16=precision != "fp32")
        text = json.dumps(about(detector, precision), indent=2) + "\n"
        (folder / ABOUT).write_text(text, encoding="utf-8")
    except (OSError, RuntimeError) as error:  # OpenVINO raises RuntimeError where the disk is full.
        raise WorkError(f"cannot write {folder}: {first_line(error)}") from error


def convert(detector: Detector, openvino: Any) -> Any:
    """The network as an ``openvino.Model``: input "images" (B, 3, H, W) float32, outputs as in our ONNX files.

    Raises:
        WorkError: it cannot be converted, or computes something else after that.
    """
    name = f"{detector.settings.backbone.name} cannot be exported to OpenVINO"
    network = Flat(detector.model if detector.device.type == "cpu" else copy.deepcopy(detector.model).cpu())
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = trace(network, openvino)
            same = agrees(model, network, openvino)
    except Exception as error:  # a backbone may do anything
        raise WorkError(f"{name}: {first_line(error)}") from error
    if not same:
        raise WorkError(f"{name}: it computes with an image's size, which conversion loses; choose another backbone")
    model.inputs[0].get_tensor().set_names({"images"})
    for output, title in zip(model.outputs, output_names(detector.settings), strict=True):
        output.get_tensor().set_names({title})
    return model


def trace(network: nn.Module, openvino: Any) -> Any:
    """Convert by tracing one run of the network; by ``torch.export`` it would take eight times as long."""
    shape = openvino.PartialShape([-1, 3, -1, -1])
    # If NNCF is installed, the conversion calls it, and it warns of a CUDA compiler without a GPU.
    with openvino_int8.errors_only("torch.utils.cpp_extension"):
        return openvino.convert_model(network, example_input=torch.zeros(EXAMPLE), input=[shape])


def agrees(model: Any, network: nn.Module, openvino: Any) -> bool:
    """Whether both compute the same at several sizes: tracing one run loses what depends on an image's size."""
    compiled = core(openvino).compile_model(model, DEVICE, {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in CHECKED:
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        outputs = compiled([images.numpy()])
        for i, expected in enumerate(network(images)):
            limit = TOLERANCE * float(expected.abs().max())
            if outputs[i].shape != expected.shape or abs(outputs[i] - expected.numpy()).max() > limit:
                return False
    return True


def about(detector: Detector, precision: Precision) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": __version__,
        "precision": precision,
        "threshold": detector.threshold,
        "class_names": list(detector.class_names),
        "settings": to_plain(detector.settings),
        "about": detector.about,
    }
