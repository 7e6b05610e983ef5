"""OpenVINO folders of ours as detectors.

A folder holds the network (``model.xml``, ``model.bin``) and ``retinanet.json``, which says all that a checkpoint says
besides its weights. Resizing, sigmoid, decoding and suppression are our own code, in float32: elsewhere detectors lost
most of their AP where these were quantised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config import ModelSettings, SettingsError, from_plain
from retinanet.errors import RequestError, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.detector import Detector

FORMAT = "retinanet-openvino-1"
NETWORK, WEIGHTS, ABOUT = "model.xml", "model.bin", "retinanet.json"
DEVICE = "CPU"


def recognises(path: Path) -> bool:
    """Whether this is a folder with an OpenVINO model or what belongs to one, or the ``model.xml`` in it."""
    if path.is_dir():
        return (path / NETWORK).is_file() or (path / ABOUT).is_file()
    return path.name == NETWORK and path.is_file()


def folder_of(path: Path) -> Path:
    """The folder, where its ``model.xml`` is given."""
    return path if path.is_dir() else path.parent


def runtime(what: str | Path) -> Any:
    """The module ``openvino``, its telemetry off.

    Importing ``openvino`` alone already makes files in the home directory and tells a web service of it, converting a
    model tells more, and so does NNCF. For this process the package by which they do so is taken for missing, which
    both of them provide for; the user's own choice, which is a file, stays what it is.

    Args:
        what: needs it, for the message.

    Raises:
        RequestError: it is not installed.
    """
    telemetry = sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if telemetry is not None:  # somebody imported it before: it can only be kept from sending
        from openvino_telemetry.utils.sender import TelemetrySender

        TelemetrySender.send = lambda *_, **__: None
    try:
        import openvino
    except ImportError as error:
        raise RequestError(f"{what} needs {error.name or 'openvino'}: pip install 'retinanet[openvino]'") from None
    return openvino


def load(path: str | Path) -> Detector:
    """The detector in a folder that ``retinanet export --format openvino`` made.

    It runs on the processor with as many threads as PyTorch has (OMP_NUM_THREADS).

    Args:
        path: the folder, or its ``model.xml``.

    Raises:
        RequestError: a file of it is missing, damaged or of something else; or OpenVINO is not installed.
    """
    folder = folder_of(Path(path))
    settings, names, about, precision = read_about(folder)
    runtime(folder)  # whether it is there is said before PyTorch is imported
    from retinanet.deploy.network import ExportedNetwork
    from retinanet.detector import Detector

    run = Network(folder, precision)
    levels = len(settings.anchors.levels)
    sides = [shape[2] for shape in run.shapes]
    if sides != [len(names)] * levels + [4] * levels:
        raise RequestError(f"{folder / NETWORK} is not the network that {folder / ABOUT} tells of: export it again")
    network = ExportedNetwork(settings, len(names), run)
    return Detector(network, names, about=about, computes=f"{precision} by OpenVINO")  # type: ignore[arg-type]


def read_about(folder: Path) -> tuple[ModelSettings, tuple[str, ...], dict[str, Any], str]:
    """Settings, class names, what else is known, and the precision: "fp32", "bf16" or "int8".

    Raises:
        RequestError: one of the three files is not there, or ``retinanet.json`` cannot be used.
    """
    missing = [name for name in (ABOUT, NETWORK, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise RequestError(
            f"{folder} lacks {' and '.join(missing)}: an OpenVINO model is the whole folder that retinanet export makes"
        )
    place = folder / ABOUT
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["format"] != FORMAT:
            raise RequestError(f"{place} names the format {known['format']!r}, not {FORMAT!r}")
        settings = from_plain(ModelSettings, known["settings"])
        names, about, precision = tuple(known["class_names"]), dict(known["about"]), str(known["precision"])
        if settings.preprocessing.mean is None or settings.preprocessing.std is None:
            raise KeyError("settings.preprocessing.mean or std")
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError("class_names is no list of names")
    # json's own error and that of text in no known encoding are both ValueErrors.
    except (OSError, KeyError, TypeError, ValueError, SettingsError) as error:
        if isinstance(error, RequestError) and not isinstance(error, SettingsError):
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise RequestError(f"{place} cannot be read: it is damaged ({reason}); export the model again") from error
    return settings, names, about, precision


class Network:
    """A compiled network: (B, 3, H, W) float32 in, both sides multiples of 32, its outputs as tensors out.

    One compiled network takes pictures of every size. Several threads may call it.

    Attributes:
        inference: in which the network computes here, "bf16" or "f32", apart from what is int8.
        shapes: of the outputs, -1 where it depends on the picture.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        import torch

        openvino = runtime(folder)
        core = openvino.Core()
        # Without the hint OpenVINO takes bf16 for an fp32 model too, where the processor has it.
        has_bf16 = "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        self.inference = "bf16" if precision != "fp32" and has_bf16 else "f32"
        self.tensor = openvino.Tensor
        options = {
            "INFERENCE_PRECISION_HINT": self.inference,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = core.read_model(folder / NETWORK)
            # Our pictures are channels-last in memory; so nobody has to rearrange them.
            layout = openvino.preprocess.PrePostProcessor(model)
            layout.input().tensor().set_layout(openvino.Layout("NHWC"))
            layout.input().model().set_layout(openvino.Layout("NCHW"))
            self.compiled = core.compile_model(layout.build(), DEVICE, options)
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
