"""The network that a checkpoint describes, with its weights."""

from __future__ import annotations

from pathlib import Path

from retinanet.checkpoints.architecture import require_fit
from retinanet.checkpoints.native import Checkpoint
from retinanet.model.retinanet import RetinaNet


def build(checkpoint: Checkpoint, source: str | Path) -> RetinaNet:
    """The network of a checkpoint, on the CPU.

    Raises:
        RequestError: the weights do not fit the settings, or are not finite; the message names ``source``.
    """
    require_fit(source, checkpoint.state, {}, checkpoint.settings, len(checkpoint.class_names))
    model = RetinaNet(checkpoint.settings, len(checkpoint.class_names), load_weights=False)
    model.load_state_dict(checkpoint.state)
    return model
