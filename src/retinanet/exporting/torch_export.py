"""The network as a program of PyTorch's own export format (.pt2), with settings and classes in the archive.

Such a file is a program, and loading it can run any code: PyTorch unpickles tensors where the archive says so,
evaluates text as formulas, and calls whatever function a node names. No inspection of the archive makes that safe. So
it is loaded only where the caller states that the file is trusted.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.version import __version__
from retinanet.config.convert import to_plain
from retinanet.exporting.exported_network import ExportedNetwork
from retinanet.exporting.onnx.onnx_export import EXAMPLE, Flat, dynamic_shapes
from retinanet.inference.detector import Detector
from retinanet.weight_files import metadata

FORMAT = "retinanet-torch-1"
ABOUT = "retinanet.json"
"""Name of the extra file in the archive."""


def write(detector: Detector, path: Path, on_progress: Callable[[str], None] | None = None) -> None:
    """Write the network of ``detector`` for images of any number and any size that is a multiple of 32.

    Raises:
        WorkError: the network does something that cannot be exported.
    """
    say = on_progress or (lambda text: None)
    about = {
        "format": FORMAT,
        "version": __version__,
        "settings": to_plain(detector.settings),
        "classes": list(detector.class_names),
        "extra": detector.about,
    }
    say("tracing the network")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                Flat(detector.model), (torch.zeros(EXAMPLE),), dynamic_shapes=dynamic_shapes()
            )
    except Exception as error:  # a backbone may do anything
        name, reason = detector.settings.backbone.name, first_line(error)
        raise WorkError(f"{name} cannot be exported by torch.export: {reason}") from error
    program.example_inputs = None  # They would be stored as a pickle.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # It names source files of this machine.
    say("writing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Weights that are views of each other cause warnings.
        torch.export.save(program, path, extra_files={ABOUT: json.dumps(about)})


def recognises(path: Path) -> bool:
    """Whether a file is such an archive, by its name."""
    return path.suffix.lower() == ".pt2" and path.is_file()


def load_torch(path: str | Path, device: str | torch.device | None = None, trust: bool = False) -> Detector:
    """The detector in a file that ``retinanet export --format torch`` made; it runs on the CPU.

    Args:
        trust: run the file's program, which can do anything that this user can do.

    Raises:
        RequestError: the file is not trusted, is missing, or is no such file.
    """
    path = Path(path)
    if device is not None and torch.device(device).type != "cpu":
        raise RequestError(f"{path} runs on the CPU: leave out --device {device}, or use the checkpoint")
    if not path.is_file():
        raise RequestError(f"there is no file {path}")
    if not trust:
        raise RequestError(
            f"{path} is a program, which can do anything once it is loaded: if you trust its source, add --trust "
            "(in Python trust=True); a checkpoint, an ONNX file or an OpenVINO folder needs no trust"
        )
    extra_files = {ABOUT: ""}
    try:
        network = torch.export.load(path, extra_files=extra_files).module()
        known = metadata.parse(extra_files[ABOUT] or "null")
    except Exception as error:  # for example a file of another version of PyTorch
        raise RequestError(f"{path} cannot be read by PyTorch {torch.__version__}: {first_line(error)}") from error
    settings, names, extra = metadata.of_export(path, known, FORMAT)

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = network(images)
        return outputs

    exported = ExportedNetwork(settings, len(names), run)
    about = "fp32, as it was exported"
    return Detector(exported, names, about=extra, computes=about)  # type: ignore[arg-type]
