"""OpenVINO folders of ours as detectors.

A folder holds the network (``model.xml``, ``model.bin``) and ``retinanet.json``, with all that a checkpoint holds but
its weights. Resizing, sigmoid, decoding and suppression are our own code, in float32: other detectors lost most of
their AP by quantising these.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown
from retinanet.config.model_settings import ModelSettings
from retinanet.weight_files import metadata

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.inference.detector import Detector

FORMAT = "retinanet-openvino-1"
NETWORK, WEIGHTS, ABOUT = "model.xml", "model.bin", "retinanet.json"
DEVICE = "CPU"
MOST_OPERATORS, LARGEST = 50_000, 2**28
PRECISIONS = ("fp32", "bf16", "int8")
TELEMETRY = "openvino_telemetry"
LIMIT = "ONEDNN_MAX_CPU_ISA"


def recognises(path: Path) -> bool:
    """Whether this is a folder with files of an OpenVINO model, or the ``model.xml`` in it."""
    if path.is_dir():
        return (path / NETWORK).is_file() or (path / ABOUT).is_file()
    return path.name == NETWORK and path.is_file()


def folder_of(path: Path) -> Path:
    """The model's folder, given it or its ``model.xml``."""
    return path if path.is_dir() else path.parent


@contextmanager
def without_telemetry() -> Iterator[None]:
    """A context in which OpenVINO and NNCF are imported without the package that sends usage data.

    Importing ``openvino`` alone already writes files to the home directory and calls a web service, converting a model
    sends more, and so does NNCF. All of them work without the package, which they look for when they are imported.
    """
    ours = [name for name in sys.modules if name.split(".")[0] == TELEMETRY]
    before = {name: sys.modules.pop(name) for name in ours}
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        sys.modules.update(before)


def runtime(what: str | Path) -> Any:
    """The module ``openvino``, its telemetry off.

    If other code imported it before, its telemetry stays as it was.

    Args:
        what: names in the message what needs the module.

    Raises:
        RequestError: it is not installed.
    """
    try:
        with without_telemetry():
            import openvino
            import openvino.tools.ovc.convert_impl  # This module looks for the package at the first conversion.
    except ImportError as error:
        raise RequestError(f"{what} needs {error.name or 'openvino'}: pip install 'retinanet[openvino]'") from None
    return openvino


@lru_cache
def core(openvino: Any) -> Any:
    """The ``openvino.Core`` of this process, which stays until it ends.

    Each core gives the thread that makes it a stack for signal handlers, and takes it back when it ends. Of two cores
    that do not end in the reverse order, the last leaves a stack that is gone. The next signal with a handler of
    Python's would end this process, such as the signal that a worker of a data loader has ended.

    A variable that limits PyTorch's oneDNN is not for OpenVINO, whose own oneDNN reads it too: a network compiled for
    two instruction sets ends the process. It is read once, here.
    """
    limit = os.environ.pop(LIMIT, None)
    try:
        made = openvino.Core()
        made.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    finally:
        if limit is not None:
            os.environ[LIMIT] = limit
    return made


def load(path: str | Path) -> Detector:
    """The detector in a folder that ``retinanet export --format openvino`` made.

    It runs on the CPU with as many threads as PyTorch has (OMP_NUM_THREADS).

    Args:
        path: the folder, or its ``model.xml``.

    Raises:
        RequestError: a file of it is missing, damaged or of something else; or OpenVINO is not installed.
    """
    folder = folder_of(Path(path))
    settings, names, about, precision = read_about(folder)
    runtime(folder)  # A missing package is reported before PyTorch is imported.
    from retinanet.exporting.exported_network import ExportedNetwork
    from retinanet.inference.detector import Detector

    run = Network(folder, precision)
    levels = len(settings.anchors.levels)
    sides = [shape[2] for shape in run.shapes]
    if sides != [len(names)] * levels + [4] * levels:
        raise RequestError(f"{folder / NETWORK} is not the network that {folder / ABOUT} describes: export it again")
    network = ExportedNetwork(settings, len(names), run)
    return Detector(network, names, about=about, computes=f"{precision} by OpenVINO")  # type: ignore[arg-type]


def read_about(folder: Path) -> tuple[ModelSettings, tuple[str, ...], dict[str, Any], str]:
    """Settings, class names, other metadata, and the precision: "fp32", "bf16" or "int8".

    Raises:
        RequestError: one of the three files is not there, or ``retinanet.json`` cannot be used.
    """
    missing = [name for name in (ABOUT, NETWORK, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise RequestError(
            f"{folder} lacks {' and '.join(missing)}: an OpenVINO model is the whole folder that retinanet export makes"
        )
    path = folder / ABOUT
    try:
        known = metadata.read(path)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise RequestError(f"{path} cannot be read: it is damaged ({reason}); export the model again") from error
    settings, names, about = metadata.of_export(path, known, FORMAT, "class_names", "about")
    precision = known.get("precision")
    if precision not in PRECISIONS:
        raise RequestError(f"{path} cannot be read: its precision is {shown(precision)}, not one of {PRECISIONS}")
    return settings, names, about, precision


def _require_harmless(model: Any) -> None:
    """Refuse loops and tensors of a huge constant size, as in ONNX files.

    Raises:
        RuntimeError: the model breaks a limit that all our exports keep.
    """
    operators = model.get_ops()
    if len(operators) > MOST_OPERATORS:
        raise RuntimeError(f"it has more than {MOST_OPERATORS} operators")
    for operator in operators:
        if operator.get_type_name() in ("Loop", "TensorIterator", "If"):
            raise RuntimeError(f"it has a network inside the network ({operator.get_type_name()})")
        for output in operator.outputs():
            shape = output.get_partial_shape()
            if shape.is_static and math.prod(side.get_length() for side in shape) > LARGEST:
                raise RuntimeError(f"it has a tensor of a huge constant size ({operator.get_type_name()})")


class Network:
    """A compiled network: a function of (B, 3, H, W) float32, both sides multiples of 32, to its output tensors.

    It takes images of every size. Several threads may call it.

    Attributes:
        inference: the precision of computing here, "bf16" or "f32", apart from int8 operators.
        shapes: of the outputs, -1 where a side depends on the image.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        import torch

        openvino = runtime(folder)
        cpu = core(openvino)
        # Without this hint OpenVINO would compute fp32 models in bf16 too, where the CPU has it.
        has_bf16 = "BF16" in cpu.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        self.inference = "bf16" if precision != "fp32" and has_bf16 else "f32"
        self.tensor = openvino.Tensor
        options = {
            "INFERENCE_PRECISION_HINT": self.inference,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = cpu.read_model(folder / NETWORK)
            _require_harmless(model)
            # Our images are channels-last in memory: this way they need not be rearranged.
            layout = openvino.preprocess.PrePostProcessor(model)
            layout.input().tensor().set_layout(openvino.Layout("NHWC"))
            layout.input().model().set_layout(openvino.Layout("NCHW"))
            self.compiled = cpu.compile_model(layout.build(), DEVICE, options)
            self.shapes = [
                tuple(side.get_length() if side.is_static else -1 for side in output.partial_shape)
                for output in self.compiled.outputs
            ]
            if any(len(shape) != 3 for shape in self.shapes):
                raise RuntimeError("its outputs are not a detector's")
        except Exception as error:  # of several kinds, none of them documented
            reason = " ".join(str(error).split())[-200:]
            raise RequestError(f"{folder / NETWORK} cannot be read as an OpenVINO model: {reason}") from error

    def __call__(self, images: Tensor) -> list[Tensor]:
        import torch

        # A request of its own for each call owns the memory of what it returns: nothing is copied or overwritten.
        request = self.compiled.create_infer_request()
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        request.set_input_tensor(self.tensor(pixels, shared_memory=True))
        request.infer()
        return [torch.from_numpy(request.get_output_tensor(i).data) for i in range(len(self.shapes))]
