"""RetinaNet: backbone, feature pyramid, class subnet, box subnet (section 4 and figure 3)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from retinanet.common.arguments import MOST_CLASSES, whole
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.config.model_settings import ModelSettings
from retinanet.model.backbone import Backbone
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import box_subnet, class_subnet
from retinanet.ops.anchors import make_anchors
from retinanet.ops.network_outputs import Outputs as Outputs


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

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) normalised RGB images, both sides a multiple of 32, preferably in channels-last memory."""
        if self.settings.preprocessing.channels == "bgr":
            images = images.flip(1)
        features = self.backbone(images)
        # One by one, so that the network can be traced with the backbone as a whole (retinanet.inference.cpu_fusion).
        levels = self.pyramid([features[i] for i in range(len(self.backbone.channels))])
        return Outputs(self.class_subnet(levels), self.box_subnet(levels))

    def anchors(self, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Per level (N_l, 4) float32, for an input of height x width pixels; shared, do not write into them."""
        return make_anchors(self.settings.anchors, height, width, torch.device(device))
