"""A small detector to export, and what the files of other projects make of its settings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from helpers.random_weights import scatter
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

CONVENTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "ours": {},
    "torchvision": {
        "anchors": {"offset": 0.0, "rounding": "torchvision", "strides": "torchvision"},
        "preprocessing": {"rounding": "down", "interpolation": "plain"},
        "postprocessing": {"max_detections": 300},
    },
    "detectron2": {
        "anchors": {"offset": 0.0},
        "preprocessing": {"rounding": "detectron2", "interpolation": "pillow"},
        "postprocessing": {"clip": "after", "drop_empty": True},
    },
    "mmdetection": {
        "anchors": {"offset": 0.0},
        "preprocessing": {"interpolation": "opencv"},
        "postprocessing": {"limit_shrinking": True, "drop_empty": True},
    },
    "detectron": {
        "anchors": {"rounding": "detectron"},
        "preprocessing": {"rounding": "detectron", "interpolation": "plain", "multiple": 128},
        "postprocessing": {"coarsest_threshold": 0.0, "inclusive": True},
    },
    "square": {"preprocessing": {"resize": "square", "size": 100}, "postprocessing": {"candidates": 20}},
    "as large as it is": {"preprocessing": {"resize": "none"}, "postprocessing": {"threshold": 0.0, "nms_iou": 0.3}},
}
SHAPES = [(50, 90), (341, 233), (1, 1), (1, 300), (300, 1), (64, 64), (128, 214), (43, 700)]


def make(depth: int = 1) -> Detector:
    """Random weights whose scores spread over 0..1."""
    torch.manual_seed(0)
    settings = ModelSettings(
        backbone=BackboneSettings(name="test_resnet"),
        pyramid=PyramidSettings(channels=16),
        head=HeadSettings(depth=depth, width=16),
        anchors=AnchorSettings(sizes=(8, 16, 32, 64, 128)),
        preprocessing=PreprocessingSettings(size=64, longer=107),
        postprocessing=PostprocessingSettings(threshold=0.3),
    )
    model = RetinaNet(settings, 3)
    scatter(model, 0.2, 0.05, -1.5, (*model.class_subnet.tower.modules(), *model.box_subnet.tower.modules()))
    about = {"threshold": 0.4, "origin": "nowhere"}
    return Detector(model, [f"class {i}" for i in range(3)], about=about)


def changed(detector: Detector, values: Mapping[str, Mapping[str, Any]]) -> Detector:
    """The same network, its surroundings set otherwise."""
    settings = detector.settings
    for section, fields in values.items():
        settings = replace(settings, **{section: replace(getattr(settings, section), **fields)})
    model = copy.copy(detector.model)
    model.settings = settings
    return Detector(model, detector.class_names, about=detector.about)


def make_image(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = torch.randint(0, 256, (1, 3, 5, 6), generator=torch.Generator().manual_seed(seed)).float()
    return nn.functional.interpolate(coarse, size=(height, width), mode="nearest")[0].to(torch.uint8)
