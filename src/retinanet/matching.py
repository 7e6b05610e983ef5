"""From ground-truth boxes to one training target per anchor (section 4, "Anchors")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet import boxes as geometry
from retinanet.config import MatchingSettings

BACKGROUND = -1
IGNORED = -2

# The (boxes x anchors) overlaps are computed in slices of at most this many numbers, 16 MB in float32: a picture with
# 1000 boxes and 200 000 anchors needs no more memory than one with 20 boxes.
SLICE = 1 << 22


@dataclass(frozen=True)
class Targets:
    """What a batch of B pictures with N anchors each should predict."""

    labels: Tensor
    """(B, N) int64: the class from 0, -1 for background, -2 for anchors that take no part."""
    positives: Tensor
    """(P,) int64: places of the positive anchors in the flattened (B * N)."""
    boxes: Tensor
    """(P, 4) float32: the ground-truth box of each positive anchor, in input pixels."""
    num_positives: Tensor
    """() float32: P as a tensor, to be summed over processes."""


def match(anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], settings: MatchingSettings) -> Targets:
    """Assign every anchor of every picture to at most one box.

    An anchor belongs to the box that it overlaps most (the first of equals) if their IoU is at least
    ``settings.foreground``; it is background below ``settings.background``, and ignored between the two. With
    ``low_quality`` the anchors that overlap some box more than any other anchor does belong to *their* best box too,
    unless that overlap is 0. A background anchor of which at least half lies in an ignore region is ignored.

    Args:
        anchors: (N, 4) float32, x1 y1 x2 y2 in input pixels.
        boxes: for each picture (n, 4) float32.
        labels: for each picture (n,) int64, the class from 0, or -2 for an ignore region (a crowd).
    """
    chosen = [_match_picture(anchors, b.to(anchors), n.to(anchors.device), settings) for b, n in zip(boxes, labels)]
    target_labels = torch.stack([c[0] for c in chosen])  # (B, N)
    picture, anchor = (target_labels >= 0).nonzero(as_tuple=True)
    matched = [c[1][anchor[picture == i]] for i, c in enumerate(chosen)]
    return Targets(
        labels=target_labels,
        positives=picture * len(anchors) + anchor,
        boxes=torch.cat(matched) if matched else anchors.new_zeros((0, 4)),
        num_positives=torch.tensor(float(len(anchor)), device=anchors.device),
    )


def _match_picture(anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchingSettings) -> tuple[Tensor, Tensor]:
    """One picture: labels (N,) and, for every anchor, the box it overlaps most (N, 4)."""
    count = len(anchors)
    regions, truth = boxes[labels == IGNORED], boxes[labels >= 0]
    truth_labels = labels[labels >= 0]
    if len(truth) == 0:
        target = torch.full((count,), BACKGROUND, dtype=torch.int64, device=anchors.device)
        return _ignore_regions(target, anchors, regions), anchors.new_zeros((count, 4))

    best = anchors.new_full((count,), -1.0)
    which = torch.zeros(count, dtype=torch.int64, device=anchors.device)
    promoted = torch.zeros(count, dtype=torch.bool, device=anchors.device)
    step = max(1, SLICE // max(count, 1))
    for start in range(0, len(truth), step):
        overlap = geometry.iou(truth[start : start + step], anchors)  # (m, N)
        top, index = overlap.max(dim=0)
        better = top > best
        best = torch.where(better, top, best)
        which = torch.where(better, index + start, which)
        if settings.low_quality and count:
            # A box that touches no anchor has a best overlap of 0, and so has nearly every anchor with it: without
            # the second condition all of them would turn positive.
            most = overlap.amax(dim=1, keepdim=True)
            promoted |= ((overlap == most) & (most > 0)).any(dim=0)

    positive = (best >= settings.foreground) | promoted
    target = torch.where(positive, truth_labels[which], IGNORED)
    target[~positive & (best < settings.background)] = BACKGROUND
    return _ignore_regions(target, anchors, regions), truth[which]


def _ignore_regions(target: Tensor, anchors: Tensor, regions: Tensor) -> Tensor:
    step = max(1, SLICE // max(len(anchors), 1))
    for start in range(0, len(regions), step):
        inside = geometry.intersection(regions[start : start + step], anchors).amax(dim=0) >= geometry.area(anchors) / 2
        target[inside & (target == BACKGROUND)] = IGNORED
    return target
