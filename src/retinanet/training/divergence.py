"""Errors for training that diverged: losses and weights that are not finite."""

from __future__ import annotations

import torch
from torch import nn

from retinanet.common.errors import DivergedError
from retinanet.common.printable import listed
from retinanet.config.settings import Settings
from retinanet.data import DetectionData
from retinanet.data.loader import TrainingSteps
from retinanet.training.run_folder import RunFolder

NAMED = 16
"""Images of a step that the error names."""


def require_finite(model: nn.Module, step: int, folder: RunFolder) -> None:
    """
    Raises:
        DivergedError: a weight of ``model`` is not finite.
    """
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DivergedError(
            f"a weight is not finite any more after step {step}, so nothing was saved; the last good save is "
            f"{folder.resume}; start a new run with a smaller train.lr or with train.clip"
        )


def of_loss(
    step: int,
    losses: tuple[float, float],
    data: DetectionData,
    settings: Settings,
    folder: RunFolder,
    hint: str = "",
) -> DivergedError:
    """The error for a loss that is not finite; it names the images of the step.

    Args:
        losses: class loss and box loss. hint: a remark on the losses.
    """
    images = [data.path(index).name for _, index in TrainingSteps(data, settings).images(step - 1)]
    good = folder.last if folder.last.is_file() else folder.resume
    return DivergedError(
        f"the loss is not finite at step {step} (class {losses[0]:.4g}, box {losses[1]:.4g}){hint}; the last good "
        f"checkpoint is {good}; the images of that step are {listed(images, NAMED)}; "
        "try a smaller train.lr, train.clip or train.precision fp32"
    )
