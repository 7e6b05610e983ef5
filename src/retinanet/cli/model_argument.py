"""Load the model that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.checkpoints import locate
from retinanet.cli.shared_options import Precision
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector
    from retinanet.terminal.console import Output


def require_model(source: str, weights: bool = False) -> None:
    """Check the name of a model before anything heavy is imported.

    Args:
        weights: refuse exported models, whose weights cannot be saved again.

    Raises:
        RequestError: ``source`` is no name of such a model.
    """
    locate.recognise(source)
    if weights and source.lower().endswith(locate.EXPORTED):
        raise RequestError(f"{source} is an exported model: give the checkpoint that it was made from")


def load(
    source: str, device: str | None, precision: Precision, out: Output | None = None, trust: bool = False
) -> Detector:
    """The model; ``out`` notes its precision and what was assumed of another project's file.

    Raises:
        RequestError: ``source`` is no model, or one that needs trust, or the device is not available.
    """
    from retinanet.api import loading

    detector = loading.load(source, device=device, precision=precision, trust=trust)
    if out is not None:
        out.note(f"{source} computes in {detector.computes}", *(f"  assumed: {line}" for line in detector.assumed))
    return detector
