"""The gradient of one optimizer step, for a batch that is spread over processes and chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from retinanet.common.devices import moved
from retinanet.losses.criterion import Criterion
from retinanet.model.retinanet import RetinaNet
from retinanet.ops.iou_assigner import Targets
from retinanet.ops.resize import normalize
from retinanet.training.collectives import all_reduce
from retinanet.training.step_timer import StepTimer

if TYPE_CHECKING:
    from retinanet.data.loader import Batch


class Learner(nn.Module):
    """Network and loss as one module.

    Distributed wrappers hook into the ``forward`` of a module. With the loss inside, its output is two numbers instead
    of millions of logits.
    """

    def __init__(self, model: RetinaNet, criterion: Criterion) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, images: Tensor, sizes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Class and box loss, () float32 each: summed over anchors, and not divided by the normalizer.

        Args:
            images: (B, 3, H, W) uint8. sizes: (B, 2) height and width without padding.
        """
        preprocessing = self.model.settings.preprocessing
        assert preprocessing.mean is not None, "the model sets it"
        assert preprocessing.std is not None, "the model sets it"
        outputs = self.model(normalize(images, sizes, preprocessing.mean, preprocessing.std))
        anchors = self.model.anchors(images.shape[2], images.shape[3], images.device)
        losses: tuple[Tensor, Tensor] = self.criterion(outputs, targets, anchors, self.model.settings.head.box_weights)
        return losses


class Mixed(MixedPrecision):
    """Mixed precision that does not convert inputs and outputs. (Fabric's own would round boxes to bfloat16.)"""

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data


def backward(fabric: Fabric, learner: Any, chunks: Sequence[Batch], timer: StepTimer | None = None) -> Tensor:
    """Add the gradient of the global batch's loss to the parameters' ``grad``.

    The loss is the sum over all anchors of all images, divided by the positives of the global batch (at least 1), or as
    ``loss.normalizer`` says. It is the same for any number of processes and chunks. Every process must call this for
    every step, with the same number of chunks. Images may have no boxes.

    Args:
        learner: a :class:`Learner` set up by ``fabric``.
        chunks: this process's share of the global batch.
        timer: records the time of forward (with matching and loss) and backward.

    Returns:
        (2,) float32 on the device: class and box loss of this process's share. Their sum over the processes is the loss
        of the global batch.
    """
    device = fabric.device
    timer = timer or StepTimer(device)
    with timer.time("forward"):
        inputs = [(moved(c.images, device), moved(c.sizes, device)) for c in chunks]
        targets = []
        for chunk, (images, _) in zip(chunks, inputs):
            anchors = torch.cat(learner.model.anchors(images.shape[2], images.shape[3], device))
            targets.append(learner.criterion.match(anchors, chunk.boxes, chunk.labels))  # moves the boxes to the device
        divisor = torch.stack([learner.criterion.normalizer(t) for t in targets]).sum()
    divisor = all_reduce(divisor).clamp(min=1)

    total = torch.zeros(2, device=device)
    for i, ((images, sizes), target) in enumerate(zip(inputs, targets)):
        # Gradients are averaged over processes only once, after the last chunk.
        with fabric.no_backward_sync(learner, enabled=i < len(chunks) - 1):
            with timer.time("forward"):
                losses = torch.stack(learner(images, sizes, target)) / divisor
            with timer.time("backward"):
                fabric.backward(losses.sum() * fabric.world_size)  # undoes the division of the average
        total += losses.detach()
    return total
