"""torchvision's RetinaNets: their settings and their weights' names in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from retinanet.config import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)

PARTS = {
    "backbone.fpn.inner_blocks.": "pyramid.lateral.",
    "backbone.fpn.layer_blocks.": "pyramid.output.",
    "backbone.fpn.extra_blocks.": "pyramid.",
    "head.classification_head.conv.": "class_subnet.tower.",
    "head.regression_head.conv.": "box_subnet.tower.",
    "head.classification_head.cls_logits.": "class_subnet.output.",
    "head.regression_head.bbox_reg.": "box_subnet.output.",
}
"""There -> here; the backbone's own names are the same."""


def settings(version: Literal["v1", "v2"], size: int = 800, longer: int = 1333) -> ModelSettings:
    """The conventions of ``retinanet_resnet50_fpn`` ("v1") or ``retinanet_resnet50_fpn_v2`` ("v2").

    Args:
        size, longer: its ``min_size`` and ``max_size``.
    """
    return ModelSettings(
        backbone=BackboneSettings(name="resnet50"),
        pyramid=PyramidSettings(p6_from="p5" if version == "v1" else "c5"),
        head=HeadSettings(norm="none" if version == "v1" else "group"),
        anchors=AnchorSettings(offset=0.0, rounding="torchvision", strides="torchvision"),
        preprocessing=PreprocessingSettings(size=size, longer=longer, rounding="down", antialias=False),
        postprocessing=PostprocessingSettings(max_detections=300),
    )


def rename(name: str) -> str:
    """A tensor's name there -> its name here."""
    for there, here in PARTS.items():
        if name.startswith(there):
            rest = name.removeprefix(there)
            if "tower" in here:
                index, part, kind = rest.split(".")
                return f"{here}{index}.{'conv' if part == '0' else 'norm.0'}.{kind}"
            if "blocks" in there:
                part, kind = rest.split(".")[0], rest.split(".")[-1]
                level = str(int(part) + 3) if part.isdigit() else part  # there 0 is P3; extra blocks are p6 and p7
                return f"{here}{level}.conv.{kind}"
            return here + rest
    return name


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict -> that of :class:`retinanet.RetinaNet` with :func:`settings`."""
    result = {rename(name): tensor for name, tensor in state.items()}
    for name in [name for name in result if name.endswith("running_var")]:
        # Its batch norm with constants does not count batches.
        result.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return result
