"""Matching by a function of the user's own, in place of the rule of :mod:`retinanet.ops.iou_assigner`.

from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

rule = Matcher(0.6, 0.5)
criterion = Criterion(matcher=lambda anchors, boxes, labels: rule(box_iou(boxes, anchors)))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.ops import boxes as geometry
from retinanet.ops.targets import BACKGROUND, IGNORED, Targets

Matcher = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(anchors (N, 4) float32, boxes (n, 4) float32, labels (n,) int64) of one image -> (N,) int64.

The result is, for each anchor, the index of its box, -1 for background or -2 for an anchor that takes no part. Boxes
are x1 y1 x2 y2 in input pixels; the anchors of all levels follow each other, the finest level first. It is called for
images with at least one box. Regions to ignore (crowds) are not among the boxes: background anchors of which at least
half lies in one take no part, whatever the function says.
"""


@torch.no_grad()
def match_by(matcher: Matcher, anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Targets:
    """As :func:`retinanet.ops.iou_assigner.match`, by the rule ``matcher``.

    Raises:
        RequestError: ``matcher`` does not return one index for each anchor.
    """
    device, matched, assigned = anchors.device, [], []
    for image_boxes, image_labels in zip(boxes, labels, strict=True):
        image_boxes, image_labels = image_boxes.to(device, anchors.dtype), image_labels.to(device)
        objects = image_labels >= 0
        truth, classes = image_boxes[objects], image_labels[objects]
        found = torch.full((len(anchors),), BACKGROUND, device=device)
        if len(truth):
            found = _checked(matcher(anchors, truth, classes), anchors, len(truth))
        box = torch.where((found >= 0)[:, None], _rows(truth, found), anchors)
        label = torch.where(found >= 0, _rows(classes, found), found)
        regions = image_boxes[image_labels == IGNORED]
        covered = (geometry.intersection(regions, anchors) >= geometry.area(anchors) / 2).any(dim=0)
        matched.append(label.masked_fill(covered & (label == BACKGROUND), IGNORED))
        assigned.append(box)
    wanted = torch.stack(matched) if matched else torch.zeros((0, len(anchors)), dtype=torch.int64, device=device)
    indices = (wanted.view(-1) >= 0).nonzero()[:, 0]
    every = torch.cat(assigned) if assigned else anchors[:0]
    return Targets(wanted, indices, every[indices], torch.tensor(float(len(indices)), device=device))


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    """``values[indices]``; any value where the index is negative."""
    return values[indices.clamp(min=0)] if len(values) else values.new_zeros((len(indices), *values.shape[1:]))


def _checked(found: Tensor, anchors: Tensor, boxes: int) -> Tensor:
    wanted = f"matcher= must return int64 of shape ({len(anchors)},), for each anchor the index of its box, -1 or -2"
    if not isinstance(found, Tensor):
        raise RequestError(f"{wanted}, not {shown(found)}")
    if found.shape != anchors.shape[:1] or found.dtype != torch.int64:
        kind = str(found.dtype).removeprefix("torch.")
        raise RequestError(f"{wanted}, not {kind} of shape {tuple(found.shape)}")
    found = found.to(anchors.device)
    low, high = int(found.min()), int(found.max())
    if low < IGNORED or high >= boxes:
        raise RequestError(f"{wanted}; it returned indices from {low} to {high} for {boxes} boxes")
    return found
