"""From ground-truth boxes to one training target per anchor (section 4, "Anchors")."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.common import threads
from retinanet.common.threads import alone, map_slices
from retinanet.config.settings import MatchingSettings
from retinanet.ops import boxes as geometry

BACKGROUND = -1
IGNORED = -2

# Overlaps of boxes with anchors are computed in slices of at most this many numbers, so an image with 1000 boxes and
# 200 000 anchors needs no more memory than one with 20 boxes.
SLICE = 1 << 22
# On a CPU anchors are taken in parts of this length and slices are smaller: the temporaries stay in a core's cache, and
# most boxes overlap no anchor of a part, which lie side by side. A part of an image runs whole on one thread.
PART = 1 << 14
CACHED = 1 << 18


@dataclass(frozen=True)
class Targets:
    """What a batch of B images with N anchors each should predict."""

    labels: Tensor
    """(B, N) int64: the class from 0, -1 for background, -2 for anchors that take no part."""
    places: Tensor
    """(P,) int64: places in the flattened (B * N) of anchors that may be positive: on a CPU the positive ones, on
    a GPU all (the CPU would have to wait for their number). Those with a label of 0 or more are positive."""
    boxes: Tensor
    """(P, 4) float32: the ground-truth box of each of these in input pixels; where it is not positive, the anchor."""
    num_positives: Tensor
    """() float32: how many anchors are positive, to be summed over processes."""


def match(anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], settings: MatchingSettings) -> Targets:
    """Assign every anchor of every image to at most one box.

    An anchor belongs to the box that it overlaps most (the first of equals) if their IoU is at least
    ``settings.foreground``; it is background below ``settings.background``, and ignored between the two. With
    ``low_quality`` the anchors that overlap some box more than any other anchor does belong to *their* best box too,
    unless that overlap is 0. A background anchor of which at least half lies in an ignore region is ignored.

    Args:
        anchors: (N, 4) float32, x1 y1 x2 y2 in input pixels.
        boxes: for each image (n, 4) float32.
        labels: for each image (n,) int64, the class from 0, or -2 for an ignore region (a crowd).
    """
    # The boxes are sorted out before they are moved: asked of a GPU, the CPU would have to wait for the answer.
    truth = _moved([b[n >= 0] for b, n in zip(boxes, labels, strict=True)], anchors.device, anchors.dtype)
    classes = _moved([n[n >= 0] for n in labels], anchors.device, torch.int64)
    regions = _moved([b[n == IGNORED] for b, n in zip(boxes, labels)], anchors.device, anchors.dtype)
    states = torch.empty((len(boxes), len(anchors)), dtype=torch.int64, device=anchors.device)
    with alone(anchors.device) as workers:
        cells = _cells(anchors, truth, classes, regions, states, workers)
        overlaps = map_slices(_overlaps, cells, workers)
        matched = map_slices(lambda pair: _assign(*pair, settings), list(zip(cells, overlaps)), workers)
        places = torch.cat([torch.zeros_like(states[:0, 0]), *(places for places, _ in matched)])
        return Targets(
            labels=states,
            places=places,
            boxes=torch.cat([anchors[:0], *(boxes for _, boxes in matched)]),
            num_positives=(states.view(-1)[places] >= 0).sum(dtype=torch.float32),
        )


def _moved(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Sequence[Tensor]:
    """The tensors of a CPU on another device, copied all at once."""
    if not tensors:
        return ()
    together = torch.cat(list(tensors)).to(dtype)
    if device.type == "cuda" and together.device.type == "cpu":
        together = together.pin_memory()  # from elsewhere the copy would wait for what the GPU is doing
    return together.to(device, non_blocking=True).split([len(t) for t in tensors])


@dataclass(frozen=True)
class _Cell:
    """Anchors that follow each other, and so lie near each other in the image, and the boxes of one image."""

    anchors: Tensor
    """(n, 4), each coordinate contiguous."""
    area: Tensor
    """(n,)"""
    parts: list[slice]
    """Of the anchors, of at most ``PART`` each."""
    extents: Tensor
    """(parts, 1, 4), x1 y1 x2 y2 of the area that the anchors of each part cover."""
    boxes: Tensor
    """(M, 4)"""
    classes: Tensor
    """(M,) int64"""
    regions: Tensor
    """(R, 4), the ignore regions."""
    tops: Tensor
    """(all parts, M), the largest overlap of each box within each part, known when all cells have been compared."""
    top: Tensor
    """(parts, M), this cell's rows of it."""
    state: Tensor
    """(n,) int64, where the targets' labels are written."""
    first: int
    """The place of the first anchor in the flattened (B * N)."""

    def touching(self, boxes: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """:meth:`pairs` of the ``boxes`` that may overlap an anchor of a part."""
        return self.pairs(((boxes[:, :2] < self.extents[..., 2:]) & (boxes[:, 2:] > self.extents[..., :2])).all(dim=2))

    def pairs(self, wanted: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """Each part with places of boxes to compare it with, as many at a time as fit into a slice.

        Args:
            wanted: (parts, M) bool. A GPU compares all boxes in less time than the CPU would wait for it to say which.
        """
        if threads.asynchronous(wanted.device):
            size, chosen = SLICE, [torch.arange(wanted.shape[1], device=wanted.device)] * len(wanted)
        else:
            which, places = wanted.nonzero(as_tuple=True)
            size, chosen = CACHED, list(places.split(torch.bincount(which, minlength=len(wanted)).tolist()))
        for p, (part, places) in enumerate(zip(self.parts, chosen)):
            for some in places.split(max(1, size // max(1, part.stop - part.start))) if len(places) else ():
                yield p, part, some

    def iou(self, boxes: Tensor, part: slice) -> Tensor:
        """(m, 4) -> (m, anchors of the part)"""
        return geometry.iou(boxes, self.anchors[part], self.area[part])


def _cells(
    anchors: Tensor,
    truth: Sequence[Tensor],
    classes: Sequence[Tensor],
    regions: Sequence[Tensor],
    states: Tensor,
    workers: int,
) -> list[_Cell]:
    """Images, cut where there are fewer than twice as many as ``workers``."""
    anchors = anchors.t().contiguous().t()
    area = geometry.area(anchors)
    length = max(1, len(anchors)) if threads.asynchronous(anchors.device) else PART
    parts = [slice(start, min(start + length, len(anchors))) for start in range(0, len(anchors), length)]
    covered = [torch.cat((anchors[part, :2].amin(dim=0), anchors[part, 2:].amax(dim=0))) for part in parts]
    per_image = min(len(parts), math.ceil(2 * workers / max(1, len(states))) if workers > 1 else 1)
    rows = max(1, math.ceil(len(parts) / max(1, per_image)))  # parts of a cell
    cells = []
    for i, (state, t, c, r) in enumerate(zip(states, truth, classes, regions)):
        tops = anchors.new_zeros((len(parts), len(t)))
        for p in range(0, len(parts), rows):
            own = parts[p : p + rows]
            first, last = own[0].start, own[-1].stop
            cells.append(
                _Cell(
                    anchors=anchors[first:last],
                    area=area[first:last],
                    parts=[slice(part.start - first, part.stop - first) for part in own],
                    extents=torch.stack(covered[p : p + rows])[:, None],
                    boxes=t,
                    classes=c,
                    regions=r,
                    tops=tops,
                    top=tops[p : p + rows],
                    state=state[first:last],
                    first=i * len(anchors) + first,
                )
            )
    return cells


def _overlaps(cell: _Cell) -> Tensor:
    """(n,), the largest overlap of each anchor; that of each box is written."""
    start = 0.0 if len(cell.boxes) else -1.0  # without a box everything is background, whatever the thresholds
    best = torch.full_like(cell.area, start)
    for p, part, some in cell.touching(cell.boxes):
        overlap = cell.iou(cell.boxes[some], part)  # (m, anchors of the part)
        best[part] = torch.maximum(best[part], overlap.amax(dim=0))
        cell.top[p, some] = overlap.amax(dim=1)
    return best


def _assign(cell: _Cell, best: Tensor, settings: MatchingSettings) -> tuple[Tensor, Tensor]:
    """Writes the labels of a cell; places (k,) in the flattened (B * N) and boxes (k, 4), as :class:`Targets` has them.

    Args:
        best: (n,), the largest overlap of each anchor.
    """
    positive = best >= settings.foreground
    if settings.low_quality:
        positive |= _low_quality(cell)
    state = torch.where(best < settings.background, BACKGROUND, IGNORED)
    for _, part, some in cell.touching(cell.regions):
        inside = geometry.intersection(cell.regions[some], cell.anchors[part]).amax(dim=0)
        state[part].masked_fill_(inside >= cell.area[part] / 2, IGNORED)
    state.masked_fill_(positive, 0)

    # Few anchors are positive: for them alone it is asked which box it was. A GPU is not asked which they are.
    places = (
        torch.arange(len(best), device=best.device) if threads.asynchronous(best.device) else positive.nonzero()[:, 0]
    )
    boxes = cell.anchors[places]
    if len(cell.boxes):
        length = max(1, SLICE // len(cell.boxes))
        for some, box in zip(places.split(length), boxes.split(length)):
            which, chosen = geometry.iou(cell.boxes, box).argmax(dim=0), positive[some]  # the first of equals
            state[some] = torch.where(chosen, cell.classes[which], state[some])
            box.copy_(torch.where(chosen[:, None], cell.boxes[which], box))
    cell.state.copy_(state)
    return places + cell.first, boxes


def _low_quality(cell: _Cell) -> Tensor:
    """(n,) bool: whether an anchor overlaps some box as much as the best anchor of all parts does."""
    holding = torch.zeros_like(cell.state, dtype=torch.bool)
    most = cell.tops.amax(dim=0)  # (M,)
    # A box that touches no anchor has a largest overlap of 0, and so has nearly every anchor with it: without the
    # second condition all of them would turn positive.
    for _, part, some in cell.pairs((cell.top == most) & (most > 0)):
        limit = most[some, None]
        holding[part] |= ((cell.iou(cell.boxes[some], part) == limit) & (limit > 0)).any(dim=0)
    return holding
