"""A trained model for a command, or a line that says why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from retinanet.checkpoints import sources
from retinanet.errors import RequestError, first_line

if TYPE_CHECKING:
    from retinanet.detector import Detector

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def require_model(source: str) -> None:
    """Before anything heavy is imported."""
    sources.recognise(source)


def load(source: str, device: str | None, precision: Precision) -> Detector:
    """
    Raises:
        RequestError: ``source`` is no model, or the device is not to be had.
    """
    import torch

    import retinanet

    if device is not None:
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = first_line(error).rstrip(".")
            raise RequestError(f"--device {device} cannot be used here: {reason}") from error
    return retinanet.load(source, device=device, precision=precision)
