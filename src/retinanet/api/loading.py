"""Loads a detector from any source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet import checkpoints
from retinanet.common.devices import choose_device
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.precision import Request, require_known
from retinanet.exporting.runtimes import open_exported
from retinanet.inference.detector import Detector

if TYPE_CHECKING:
    import torch


def load(
    source: str | Path,
    device: str | int | torch.device | None = None,
    precision: Request | None = None,
    trust: bool = False,
    class_names: Sequence[str] | None = None,
) -> Detector:
    """Load a detector from a checkpoint of this project or another one, or from an exported model.

    The detector is optimized for the device (:meth:`Detector.fuse`). ``print(detector)`` shows its precision and the
    reason. ``detector.assumed`` lists the assumptions about another project's file.

    Args:
        source: a run folder (its best checkpoint), a checkpoint, an exported file, an https URL, a model on the
            Hugging Face hub ("user/name"), or a model of torchvision ("retinanet_resnet50_fpn_v2"). The project of a
            file is recognized by its contents; docs/checkpoints.md lists the projects.
        device: "cpu", "cuda", "cuda:1", "mps", ...; a number is that GPU. By default ("auto") the first of CUDA,
            MPS (Apple's GPUs) and CPU that there is.
        precision: "fp32" is plain float32. "auto" is the fastest precision that keeps boxes visually the same:
            bfloat16 if the device multiplies in it, else float32 with fast algorithms. The environment variable
            RETINANET_PRECISION changes the meaning of "auto". The default is "auto" for our own models. For models of
            other projects, converted ones too, it is "fp32", so that they give the same boxes as there.
        class_names: replace those of a checkpoint. A model that was fine-tuned with torchvision has one output more
            than classes, the background's: give the names without it.
        trust: allow an exported PyTorch program (.pt2). Loading one can run any code; no other file can.

    Raises:
        RequestError: there is no such source, it needs ``trust``, or it holds no known RetinaNet.
        WorkError: it cannot be downloaded.

    Example:
        >>> import retinanet
        >>> detector = retinanet.load("runs/mine", device="cpu", precision="fp32")
        >>> detector.device, detector.precision
        (device(type='cpu'), 'fp32')
        >>> retinanet.load("runs/yours")
        Traceback (most recent call last):
        retinanet.common.errors.RequestError: there is no model runs/yours...
    """
    if not isinstance(trust, bool):
        raise RequestError(f"trust must be True or False, not {shown(trust)}")
    if device == "auto":
        device = None
    if device is not None:
        device = choose_device(device)
    if precision is not None:
        require_known(precision)
    path = checkpoints.find(source)
    if exported := open_exported(path, device, trust):
        if class_names is not None:
            raise RequestError(f"{source} is an exported model, whose class names are fixed: leave out class_names")
        return exported
    return Detector.from_checkpoint(checkpoints.load(path, class_names=class_names), source, device, precision)
