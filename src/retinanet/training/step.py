"""One optimiser step's gradient: the loss of a global batch, whatever processes and parts it is spread over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.losses import ClassBalance, class_balance, detection_loss, normalizer
from retinanet.model.retinanet import RetinaNet
from retinanet.ops.iou_assigner import Targets, match
from retinanet.ops.resize import normalize
from retinanet.training.collectives import all_reduce
from retinanet.training.step_timer import Clock

if TYPE_CHECKING:
    from retinanet.data.loader import Batch


class Learner(nn.Module):
    """Network and loss as one module.

    Distributed wrappers hook into a module's ``forward``; with the loss inside it two numbers come out instead of
    millions of logits.

    Args:
        class_names: the names of the model's classes, for loss settings that name some.

    Raises:
        RequestError: they name another one.
    """

    alphas: Tensor | None
    class_weights: Tensor | None

    def __init__(self, model: RetinaNet, loss: LossSettings, class_names: Sequence[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        balance = class_balance(loss, class_names)
        # Buffers move to the device once; the settings say what is in them, so no file does.
        alphas = balance.alpha if isinstance(balance.alpha, Tensor) else None
        self.register_buffer("alphas", alphas, persistent=False)
        self.register_buffer("class_weights", balance.weights, persistent=False)

    def forward(self, images: Tensor, sizes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Class and box loss, () float32 each, summed over anchors and not yet divided by the normalizer.

        Args:
            images: (B, 3, H, W) uint8. sizes: (B, 2) height and width within the padding.
        """
        preprocessing = self.model.settings.preprocessing
        assert preprocessing.mean is not None, "the model fills it in"
        assert preprocessing.std is not None, "the model fills it in"
        outputs = self.model(normalize(images, sizes, preprocessing.mean, preprocessing.std))
        anchors = self.model.anchors(images.shape[2], images.shape[3], images.device)
        with torch.autocast(images.device.type, enabled=False):
            balance = ClassBalance(self.loss.alpha if self.alphas is None else self.alphas, self.class_weights)
            weights = self.model.settings.head.box_weights
            return detection_loss(outputs, targets, anchors, self.loss, balance, weights)


class Mixed(MixedPrecision):
    """Mixed precision that leaves inputs and outputs alone: Fabric's own would round target boxes to bfloat16."""

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data


def backward(
    fabric: Fabric, learner: Any, parts: Sequence[Batch], matching: MatchingSettings, clock: Clock | None = None
) -> Tensor:
    """Add the gradient of the global batch's loss to the parameters' ``grad``.

    The loss is the sum over all anchors of all images, divided by the positives (at least 1) of the global batch, or
    as ``loss.normalizer`` says: the same number for any number of processes and parts. Every process calls this for
    every step, with as many parts as the others; its images may hold no boxes.

    Args:
        learner: a :class:`Learner` set up by ``fabric``.
        parts: this process's share of the global batch.
        clock: told what forward (matching and the loss included) and backward take.

    Returns:
        (2,) float32 on the device: class and box loss of this process's share; summed over the processes they are those
        of the global batch.
    """
    device = fabric.device
    clock = clock or Clock(device)
    with clock.part("forward"):
        on_device = [
            (part.images.to(device, non_blocking=True), part.sizes.to(device, non_blocking=True)) for part in parts
        ]
        targets = []
        for part, (images, _) in zip(parts, on_device):
            anchors = torch.cat(learner.model.anchors(images.shape[2], images.shape[3], device))
            targets.append(match(anchors, part.boxes, part.labels, matching))  # moves the boxes itself
        own = torch.stack([normalizer(t, learner.loss) for t in targets]).sum()
    divisor = all_reduce(own).clamp(min=1)

    total = torch.zeros(2, device=device)
    for i, ((images, sizes), target) in enumerate(zip(on_device, targets)):
        # Gradients are averaged over processes once, after the last part.
        with fabric.no_backward_sync(learner, enabled=i < len(parts) - 1):
            with clock.part("forward"):
                losses = torch.stack(learner(images, sizes, target)) / divisor
            with clock.part("backward"):
                fabric.backward(losses.sum() * fabric.world_size)  # the average over processes divides it again
        total += losses.detach()
    return total
