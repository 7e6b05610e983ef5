"""The runtimes of exported detectors, chosen by what a file is."""

from __future__ import annotations

from pathlib import Path

import torch

from retinanet.exporting import torch_export
from retinanet.exporting.onnx import onnx_runtime
from retinanet.exporting.openvino import openvino_runtime
from retinanet.inference.detector import Detector


def open_exported(path: Path, device: str | torch.device | None = None, trust: bool = False) -> Detector | None:
    """The detector in an exported file; None if ``path`` is not one.

    Args:
        trust: load a PyTorch program (.pt2) too, which can run any code.

    Raises:
        RequestError: the file is damaged or not trusted, or its runtime is not installed.
    """
    if onnx_runtime.recognises(path):
        return onnx_runtime.load_onnx(path, device)
    if torch_export.recognises(path):
        return torch_export.load_torch(path, device, trust)
    return openvino_runtime.load(path) if openvino_runtime.recognises(path) else None
