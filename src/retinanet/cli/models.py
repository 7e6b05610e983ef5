"""A trained model for a command, or a line that says why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from retinanet.checkpoints import sources
from retinanet.errors import RequestError, first_line

if TYPE_CHECKING:
    from retinanet.cli.console import Output
    from retinanet.detector import Detector

Precision = Literal["auto", "fp32", "bf16", "fp16"] | None
"""As ``retinanet.load`` takes it, which is not imported for ``--help``."""


def require_model(source: str) -> None:
    """Before anything heavy is imported."""
    sources.recognise(source)


def load(source: str, device: str | None, precision: Precision, out: Output | None = None) -> Detector:
    """The model; ``out`` says what it computes in, and what had to be assumed of another project's file.

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
    detector = retinanet.load(source, device=device, precision=precision)
    if out is not None:
        out.note(f"{source} computes in {detector.computes}", *(f"  assumed: {line}" for line in detector.assumed))
    return detector
