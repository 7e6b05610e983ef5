"""From ground-truth boxes to one training target per anchor (section 4, "Anchors").

:func:`match_reference` is the rule for one image. :func:`match` applies it to a batch, by the faster way of
:mod:`retinanet.ops.iou_assigner_fast`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet.config.settings import MatchingSettings
from retinanet.ops import boxes as geometry
from retinanet.ops.iou_assigner_fast import match_in_chunks
from retinanet.ops.targets import BACKGROUND, IGNORED, Targets

__all__ = ["BACKGROUND", "IGNORED", "Targets", "match", "match_reference"]


def match_reference(
    anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchingSettings
) -> tuple[Tensor, Tensor]:
    """Assign the anchors (N, 4) of one image, with boxes (M, 4) and labels (M,), by the rule of :func:`match`.

    Returns:
        Labels (N,) int64, and for each anchor the index (N,) int64 of its box among ``boxes``, -1 where it has none.
    """
    (objects,), regions = (labels >= 0).nonzero(as_tuple=True), boxes[labels == IGNORED]
    targets = torch.full((len(anchors),), BACKGROUND)
    positive = torch.zeros(len(anchors), dtype=torch.bool)
    box = torch.full_like(targets, -1)
    if len(objects):
        overlaps = geometry.iou(boxes[objects], anchors)  # (objects, N)
        best = overlaps.amax(dim=0)
        box = objects[overlaps.argmax(dim=0)]
        targets[best >= settings.background] = IGNORED
        positive = best >= settings.foreground
        if settings.low_quality:
            highest = overlaps.amax(dim=1, keepdim=True)  # (objects, 1)
            positive |= ((overlaps == highest) & (highest > 0)).any(dim=0)
    covered = geometry.intersection(regions, anchors) >= geometry.area(anchors) / 2  # (regions, N)
    targets[covered.any(dim=0)] = IGNORED
    targets[positive] = labels[box[positive]]
    return targets, box.masked_fill(~positive, -1)


def match(anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], settings: MatchingSettings) -> Targets:
    """Assign every anchor of every image to at most one box.

    An anchor belongs to the box that it overlaps most (the first of equals) if their IoU is at least
    ``settings.foreground``; it is background below ``settings.background``, and ignored between the two. With
    ``low_quality`` the anchor with the highest IoU for a box is positive too, unless that IoU is 0; it belongs to the
    box that it overlaps most itself. A background anchor of which at least half lies in an ignore region is ignored.

    Args:
        anchors: (N, 4) float32, x1 y1 x2 y2 in input pixels.
        boxes: for each image (n, 4) float32.
        labels: for each image (n,) int64, the class from 0, or -2 for an ignore region (a crowd).
    """
    return match_in_chunks(anchors, boxes, labels, settings)
