"""Matching and losses as one module: what a network's outputs cost, given the boxes that it should find."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.losses.batch_sums import detection_loss, normalizer
from retinanet.losses.class_weights import ClassBalance, class_balance
from retinanet.losses.own_losses import BoxLossFunction, ClassLoss, OwnLosses
from retinanet.ops.iou_assigner import Targets, match
from retinanet.ops.network_outputs import Outputs
from retinanet.ops.own_matching import Matcher, match_by

PLAIN = (1.0, 1.0, 1.0, 1.0)


class Criterion(nn.Module):
    """Assigns anchors to boxes, and sums class loss and box loss over a batch.

    ``Criterion()`` is the paper's. Settings change it, and functions replace its parts:

        criterion = Criterion(LossSettings(gamma=1.5, box="giou"))
        criterion = Criterion(loss=my_class_loss)

    Args:
        settings: of the losses.
        matching: the rule that assigns anchors to boxes.
        class_names: the names of the model's classes, for loss settings of single classes.
        loss: a class loss of your own, a :data:`retinanet.losses.own_losses.ClassLoss`: (logits (N, K), labels (N,))
            -> sum ().
        box_loss: a box loss of your own, a :data:`retinanet.losses.own_losses.BoxLossFunction`: (deltas (P, 4),
            anchors (P, 4), boxes (P, 4)) -> sum (). ``settings.box_weight`` multiplies it.
        matcher: a rule of your own, a :data:`retinanet.ops.own_matching.Matcher`: (anchors (N, 4), boxes (n, 4),
            labels (n,)) -> index of the box of each anchor (N,), -1 for background, -2 for anchors that take no part.

    Raises:
        RequestError: a loss setting names an unknown class.
    """

    alphas: Tensor | None
    class_weights: Tensor | None

    def __init__(
        self,
        settings: LossSettings | None = None,
        matching: MatchingSettings | None = None,
        class_names: Sequence[str] = (),
        loss: ClassLoss | None = None,
        box_loss: BoxLossFunction | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        super().__init__()
        self.settings = LossSettings() if settings is None else settings
        self.matching = MatchingSettings() if matching is None else matching
        # A module given as a function must not become a part of this module: nobody trains or saves its weights.
        self.functions = (OwnLosses(loss, box_loss), matcher)
        balance = class_balance(self.settings, class_names)
        # Buffers move to the device once. They follow from the settings, so no checkpoint needs them.
        alphas = balance.alpha if isinstance(balance.alpha, Tensor) else None
        self.register_buffer("alphas", alphas, persistent=False)
        self.register_buffer("class_weights", balance.weights, persistent=False)

    def match(self, anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Targets:
        """What each anchor should predict; arguments as of :func:`retinanet.ops.iou_assigner.match`."""
        _, matcher = self.functions
        if matcher is not None:
            return match_by(matcher, anchors, boxes, labels)
        return match(anchors, boxes, labels, self.matching)

    def forward(
        self, outputs: Outputs, targets: Targets, anchors: Sequence[Tensor], box_weights: Sequence[float] = PLAIN
    ) -> tuple[Tensor, Tensor]:
        """Class loss and box loss, () float32 each, as of :func:`retinanet.losses.detection_loss`.

        They are sums over anchors: divide them by :meth:`normalizer`, at least 1.
        """
        with torch.autocast(targets.labels.device.type, enabled=False):
            balance = ClassBalance(self.settings.alpha if self.alphas is None else self.alphas, self.class_weights)
            losses, _ = self.functions
            return detection_loss(outputs, targets, anchors, self.settings, balance, box_weights, losses)

    def normalizer(self, targets: Targets) -> Tensor:
        """The divisor of the sums, () float32; see :func:`retinanet.losses.normalizer`."""
        return normalizer(targets, self.settings)
