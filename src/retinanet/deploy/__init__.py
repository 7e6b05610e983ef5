"""Where a trained detector goes: exported files and the runtimes that take them, video, a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from retinanet.detector import Detector


def load(path: Path, device: str | torch.device | None = None, trust: bool = False) -> Detector | None:
    """The detector in an exported file; None if ``path`` is none of those.

    Args:
        trust: load a program of PyTorch (.pt2), which can run anything.

    Raises:
        RequestError: it is one, but damaged or not trusted, or its runtime is not installed.
    """
    from retinanet.deploy import onnx_runtime, openvino_runtime, torch_export

    if onnx_runtime.recognises(path):
        return onnx_runtime.load_onnx(path, device)
    if torch_export.recognises(path):
        return torch_export.load_torch(path, device, trust)
    return openvino_runtime.load(path) if openvino_runtime.recognises(path) else None
