"""From ground-truth boxes to one training target per anchor (section 4, "Anchors")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet import boxes as geometry
from retinanet.config import MatchingSettings

BACKGROUND = -1
IGNORED = -2

# Overlaps of boxes with anchors are computed in slices of at most this many numbers, so a picture with 1000 boxes and
# 200 000 anchors needs no more memory than one with 20 boxes.
SLICE = 1 << 22
# On a CPU anchors are taken in parts of this length and slices are smaller: the temporaries stay in the cache, and most
# boxes overlap no anchor of a part, which lie side by side.
PART = 1 << 14
CACHED = 1 << 18


@dataclass(frozen=True)
class Targets:
    """What a batch of B pictures with N anchors each should predict."""

    labels: Tensor
    """(B, N) int64: the class from 0, -1 for background, -2 for anchors that take no part."""
    places: Tensor
    """(P,) int64: places in the flattened (B * N) of anchors that may be positive: on a processor the positive ones, on
    a GPU all (the processor would have to wait for their number). Those with a label of 0 or more are positive."""
    boxes: Tensor
    """(P, 4) float32: the ground-truth box of each of these in input pixels; where it is not positive, the anchor."""
    num_positives: Tensor
    """() float32: how many anchors are positive, to be summed over processes."""


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
    parts = _parts(anchors)
    # The boxes are sorted out before they are moved: asked of a GPU, the processor would have to wait for the answer.
    truth = _moved([b[n >= 0] for b, n in zip(boxes, labels, strict=True)], anchors)
    regions = _moved([b[n == IGNORED] for b, n in zip(boxes, labels, strict=True)], anchors)
    states = torch.stack([_states(anchors, parts, t, r, settings) for t, r in zip(truth, regions)])  # (B, N)

    positive = states.view(-1) >= 0
    if _asynchronous(anchors.device):
        places, counts = torch.arange(len(positive), device=anchors.device), [len(anchors)] * len(states)
    else:  # few anchors are positive: for them alone it is asked which box it was
        places, counts = positive.nonzero()[:, 0], (states >= 0).sum(dim=1).tolist()
    boxes_of, classes_of = [anchors.new_zeros((0, 4))], [places.new_zeros(0)]
    classes = _moved([n[n >= 0] for n in labels], places)
    own = places % max(1, len(anchors))  # which anchor of its picture
    for mine, t, n in zip(own.split(counts), truth, classes):
        for some in mine.split(max(1, SLICE // max(1, len(t)))):
            if len(t) == 0:
                boxes_of.append(anchors[some])
                classes_of.append(torch.full_like(some, BACKGROUND))
            elif len(some):
                which = geometry.iou(t, anchors[some]).argmax(dim=0)  # the first of equals
                boxes_of.append(t[which])
                classes_of.append(n[which])
    chosen = positive[places]
    states.view(-1)[places] = torch.where(chosen, torch.cat(classes_of), states.view(-1)[places])
    return Targets(
        labels=states,
        places=places,
        boxes=torch.where(chosen[:, None], torch.cat(boxes_of), anchors[own]),
        num_positives=positive.sum(dtype=torch.float32),
    )


def _moved(tensors: Sequence[Tensor], like: Tensor) -> Sequence[Tensor]:
    """The tensors of a processor, where ``like`` is and of its type, copied all at once."""
    if not tensors:
        return ()
    together = torch.cat(list(tensors)).to(like.dtype)
    if like.device.type == "cuda" and together.device.type == "cpu":
        together = together.pin_memory()  # from elsewhere the copy would wait for what the GPU is doing
    return together.to(like.device, non_blocking=True).split([len(t) for t in tensors])


@dataclass(frozen=True)
class _Part:
    """Anchors that follow each other, and so lie near each other in the picture."""

    place: slice
    anchors: Tensor
    """(n, 4), each coordinate contiguous."""
    area: Tensor
    """(n,)"""
    extent: Tensor
    """(4,) x1 y1 x2 y2 of the area that they cover together."""


def _asynchronous(device: torch.device) -> bool:
    """Whether the processor would have to wait for an answer from this device."""
    return device.type != "cpu"


def _parts(anchors: Tensor) -> list[_Part]:
    length = max(1, len(anchors)) if _asynchronous(anchors.device) else PART
    parts = []
    for start in range(0, len(anchors), length):
        place = slice(start, min(start + length, len(anchors)))
        part = anchors[place].t().contiguous().t()
        extent = torch.cat((part[:, :2].amin(dim=0), part[:, 2:].amax(dim=0)))
        parts.append(_Part(place, part, geometry.area(part), extent))
    return parts


def _touching(parts: Sequence[_Part], boxes: Tensor) -> Tensor:
    """(parts, M) bool: which of the boxes (M, 4) may overlap an anchor of which part."""
    if not parts:
        return torch.zeros((0, len(boxes)), dtype=torch.bool, device=boxes.device)
    extents = torch.stack([part.extent for part in parts])[:, None]  # (parts, 1, 4)
    return ((boxes[:, :2] < extents[..., 2:]) & (boxes[:, 2:] > extents[..., :2])).all(dim=2)


def _pairs(parts: Sequence[_Part], wanted: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Numbers of parts, each with places of boxes that are to be compared with it, as many as fit into a slice.

    Args:
        wanted: (parts, M) bool. A GPU compares all boxes in less time than the processor would wait for it to say
            which ones are wanted.
    """
    if _asynchronous(wanted.device):
        everything = torch.arange(wanted.shape[1], device=wanted.device)
        chosen, size = [everything] * len(parts), SLICE
    else:
        which, places = wanted.nonzero(as_tuple=True)
        chosen, size = list(places.split(torch.bincount(which, minlength=len(parts)).tolist())), CACHED
    for p, mine in enumerate(chosen):
        if len(mine):
            for some in mine.split(max(1, size // len(parts[p].anchors))):
                yield p, some


def _states(
    anchors: Tensor, parts: Sequence[_Part], truth: Tensor, regions: Tensor, settings: MatchingSettings
) -> Tensor:
    """One picture: (N,) int64, 0 for positive anchors, -1 for background, -2 for those that take no part."""
    start = 0.0 if len(truth) else -1.0  # without a box everything is background, whatever the thresholds
    best = anchors.new_full((len(anchors),), start)  # each anchor's largest overlap
    top = anchors.new_zeros((len(parts), len(truth)))  # each box's largest overlap within each part
    for p, some in _pairs(parts, _touching(parts, truth)):
        part = parts[p]
        overlap = geometry.iou(truth[some], part.anchors, part.area)  # (m, n)
        best[part.place] = torch.maximum(best[part.place], overlap.amax(dim=0))
        top[p, some] = overlap.amax(dim=1)

    positive = best >= settings.foreground
    if settings.low_quality and parts:
        most = top.amax(dim=0)  # (M,)
        # A box that touches no anchor has a largest overlap of 0, and so has nearly every anchor with it: without the
        # second condition all of them would turn positive.
        for p, some in _pairs(parts, (top == most) & (most > 0)):
            part, limit = parts[p], most[some, None]
            holding = (geometry.iou(truth[some], part.anchors, part.area) == limit) & (limit > 0)
            positive[part.place] |= holding.any(dim=0)

    state = torch.where(best < settings.background, BACKGROUND, IGNORED)
    for p, some in _pairs(parts, _touching(parts, regions)):
        part = parts[p]
        inside = geometry.intersection(regions[some], part.anchors).amax(dim=0)
        state[part.place].masked_fill_(inside >= part.area / 2, IGNORED)
    return state.masked_fill_(positive, 0)
