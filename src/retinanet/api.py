"""The functions of the public interface, which :mod:`retinanet` offers as its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retinanet import checkpoints
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.precision import Request, require_known
from retinanet.export.runtimes import open_exported
from retinanet.inference.detector import Detector, usable_device

if TYPE_CHECKING:
    import torch


def load(
    source: str | Path,
    device: str | torch.device | None = None,
    precision: Request | None = None,
    trust: bool = False,
) -> Detector:
    """Load a detector from a checkpoint, our own or another project's, or from an exported model.

    It computes in the fastest way that the device offers (:meth:`Detector.fuse`). ``print(detector)`` names the
    precision and the reason for it; ``detector.assumed`` lists what another project's file left open.

    Args:
        source: a run folder (its best checkpoint), a checkpoint or exported file, an https URL, a model on the
            Hugging Face hub ("user/name") or one of torchvision's ("retinanet_resnet50_fpn_v2"). The project that a
            file is from is recognised by its contents; docs/checkpoints.md lists the projects.
        device: "cpu", "cuda", ...; by default a GPU where there is one.
        precision: "auto" is the fastest that keeps the boxes of a trained model visually the same: bfloat16
            where the device multiplies in it, else float32 with fast algorithms; the environment variable
            RETINANET_PRECISION overrides what it means. "fp32" is plain float32. By default "auto" for our own models
            and "fp32" for those of other projects, converted ones too, so that their boxes are those that the other
            project computes.
        trust: load an exported PyTorch program (.pt2) too. Loading one can run any code; no other file can.

    Raises:
        RequestError: there is no such source, it is not trusted, or it holds no known RetinaNet.
        WorkError: it has to be downloaded, and cannot be.
    """
    if not isinstance(trust, bool):
        raise RequestError(f"trust must be True or False, not {shown(trust)}")
    if device is not None:
        device = usable_device(device)
    if precision is not None:
        require_known(precision)
    path = checkpoints.find(source)
    if exported := open_exported(path, device, trust):
        return exported
    return Detector.from_checkpoint(checkpoints.load(path), source, device, precision)
