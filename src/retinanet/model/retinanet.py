"""RetinaNet: backbone, feature pyramid, class subnet, box subnet (section 4 and figure 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from retinanet.common.arguments import MOST_CLASSES, whole
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.config.model_settings import ModelSettings
from retinanet.losses.criterion import Criterion
from retinanet.model.backbone import Backbone
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import box_subnet, class_subnet
from retinanet.model.labelled_images import batch_of, boxes_of
from retinanet.ops.anchors import make_anchors
from retinanet.ops.network_outputs import Outputs as Outputs

LOSSES = ("classification", "bbox_regression")
"""Names of the losses, as in torchvision."""


class RetinaNet(nn.Module):
    """The network, without resizing and post-processing (see :class:`retinanet.inference.detector.Detector`).

    Args:
        settings: the model's settings; ``preprocessing.mean`` and ``std`` are filled in from the backbone where the
            user gave none, so that ``model.settings`` is complete.
        num_classes: K, from 1 to 100 000.
        load_weights: False leaves out the backbone's pretrained weights, for a model whose weights come from a
            checkpoint.

    Raises:
        RequestError: ``settings`` or ``num_classes`` is of another type or out of range.

    Examples:
        >>> from retinanet import RetinaNet, Settings
        >>> model = RetinaNet(Settings().model, num_classes=3, load_weights=False)
        >>> outputs = model(torch.zeros(1, 3, 64, 64))
        >>> [tuple(logits.shape) for logits in outputs.logits]  # P3 to P7, 9 anchors at each position
        [(1, 576, 3), (1, 144, 3), (1, 36, 3), (1, 9, 3), (1, 9, 3)]
    """

    def __init__(self, settings: ModelSettings, num_classes: int, load_weights: bool = True) -> None:
        super().__init__()
        if not isinstance(settings, ModelSettings):
            raise RequestError(f"settings must be ModelSettings, such as Settings().model, not {shown(settings)}")
        self.num_classes = num_classes = whole("num_classes", num_classes, most=MOST_CLASSES)
        levels, per_position = settings.anchors.levels, settings.anchors.per_position
        self.backbone = Backbone(settings.backbone, load_weights, levels[0])
        self.pyramid = FeaturePyramid(self.backbone.channels, settings.pyramid, levels)
        channels = settings.pyramid.channels
        self.class_subnet = class_subnet(channels, settings.head, per_position, num_classes, len(levels))
        self.box_subnet = box_subnet(channels, settings.head, per_position, len(levels))
        images = settings.preprocessing
        self.settings = dataclasses.replace(
            settings,
            preprocessing=dataclasses.replace(
                images, mean=images.mean or self.backbone.mean, std=images.std or self.backbone.std
            ),
        )
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        criterion: Criterion | None = None,
    ) -> Outputs | dict[str, Tensor]:
        """The network's outputs; with ``targets`` the losses, as torchvision's RetinaNet gives them.

            losses = model([image], [{"boxes": boxes, "labels": labels}])
            sum(losses.values()).backward()

        Args:
            images: (B, 3, H, W) normalised RGB images, both sides a multiple of 32, preferably in channels-last
                memory. Or a list of images (3, H, W) of any size, uint8 or float from 0 to 1: they are resized,
                normalised and padded as ``settings.preprocessing`` says, with their boxes.
            targets: for each image "boxes" (n, 4) float32, x1 y1 x2 y2 in pixels of the given image, and "labels" (n,)
                int64 from 0. Boxes with the label -2, or a true "iscrowd", are regions to ignore; n may be 0. On a GPU,
                targets in the CPU's memory take less time.
            criterion: matching and losses; by default ``Criterion()``, the paper's.

        Returns:
            Without targets :class:`retinanet.ops.network_outputs.Outputs`. With targets "classification" and
            "bbox_regression", () float32 each, in training and in evaluation mode alike: the mean over the positive
            anchors of the batch, or as the criterion's ``settings.normalizer`` says.

        Raises:
            RequestError: images of a list, or targets, cannot be used.

        Examples:
            >>> from retinanet import RetinaNet, Settings
            >>> model = RetinaNet(Settings().model, num_classes=3, load_weights=False)
            >>> target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 40.0]]), "labels": torch.tensor([2])}
            >>> sorted(model(torch.zeros(1, 3, 64, 64), [target]))
            ['bbox_regression', 'classification']
        """
        if criterion is not None and not isinstance(criterion, Criterion):
            raise RequestError(f"criterion must be a retinanet.losses.criterion.Criterion, not {shown(criterion)}")
        scales = None
        if not isinstance(images, Tensor):
            device = next(self.parameters()).device
            images, scales = batch_of(images, self.settings.preprocessing, device)
        if targets is None:
            return self.outputs(images)
        boxes, labels = boxes_of(targets, len(images), self.num_classes)
        if scales is not None:
            boxes = [box * box.new_tensor([x, y, x, y]) for box, (y, x) in zip(boxes, scales, strict=True)]
        return self._losses(images, boxes, labels, criterion or Criterion())

    def outputs(self, images: Tensor) -> Outputs:
        """The network alone, (B, 3, H, W) normalised; this is what is traced and exported."""
        if self.settings.preprocessing.channels == "bgr":
            images = images.flip(1)
        features = self.backbone(images)
        # One by one, so that the network can be traced with the backbone as a whole (retinanet.inference.cpu_fusion).
        levels = self.pyramid([features[i] for i in range(len(self.backbone.channels))])
        return Outputs(self.class_subnet(levels), self.box_subnet(levels))

    def _losses(
        self, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], criterion: Criterion
    ) -> dict[str, Tensor]:
        anchors = self.anchors(images.shape[2], images.shape[3], images.device)
        matched = criterion.match(torch.cat(anchors), boxes, labels)
        sums = criterion(self.outputs(images), matched, anchors, self.settings.head.box_weights)
        divisor = criterion.normalizer(matched).clamp(min=1)
        return {name: loss / divisor for name, loss in zip(LOSSES, sums, strict=True)}

    def anchors(self, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Per level (N_l, 4) float32, for an input of height x width pixels; shared, do not write into them."""
        return make_anchors(self.settings.anchors, height, width, torch.device(device))
