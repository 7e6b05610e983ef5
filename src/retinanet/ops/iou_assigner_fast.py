"""Matching without the full matrix of overlaps, for CPUs and GPUs.

The anchors of an image are compared in chunks. Neighbouring anchors lie side by side in the image, so on a CPU most
boxes overlap no anchor of a chunk and are skipped. Which box is the best is computed for positive anchors alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.common import threads
from retinanet.common.devices import moved
from retinanet.common.threads import map_slices, one_thread_each
from retinanet.config.settings import MatchingSettings
from retinanet.ops import boxes as geometry
from retinanet.ops.targets import BACKGROUND, IGNORED, Targets

# At most this many overlaps exist at once, so an image with 1000 boxes and 200 000 anchors needs no more memory than
# one with 20 boxes.
MOST_OVERLAPS = 1 << 22
# On a CPU, chunks of CHUNK anchors are compared with as many boxes as give CACHED_OVERLAPS overlaps: the temporaries
# stay in a core's cache. One thread runs a whole chunk.
CHUNK = 1 << 14
CACHED_OVERLAPS = 1 << 18


def match_in_chunks(
    anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], settings: MatchingSettings
) -> Targets:
    """As :func:`retinanet.ops.iou_assigner.match`."""
    # The boxes are filtered before they are moved: to filter them on a GPU, the CPU would have to wait for it.
    truth = _moved([b[n >= 0] for b, n in zip(boxes, labels, strict=True)], anchors.device, anchors.dtype)
    classes = _moved([n[n >= 0] for n in labels], anchors.device, torch.int64)
    regions = _moved([b[n == IGNORED] for b, n in zip(boxes, labels)], anchors.device, anchors.dtype)
    targets = torch.empty((len(boxes), len(anchors)), dtype=torch.int64, device=anchors.device)
    with one_thread_each(anchors.device) as workers:
        blocks = _blocks(anchors, truth, classes, regions, targets, workers)
        highest = map_slices(_highest_overlaps, blocks, workers)
        matched = map_slices(lambda pair: _assign(*pair, settings), list(zip(blocks, highest)), workers)
        indices = torch.cat([torch.zeros_like(targets[:0, 0]), *(indices for indices, _ in matched)])
        return Targets(
            labels=targets,
            indices=indices,
            boxes=torch.cat([anchors[:0], *(boxes for _, boxes in matched)]),
            num_positives=(targets.view(-1)[indices] >= 0).sum(dtype=torch.float32),
        )


def _moved(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Sequence[Tensor]:
    """The tensors of a CPU on another device, copied all at once."""
    if not tensors:
        return ()
    joined = torch.cat(list(tensors)).to(dtype)
    if device.type == "cuda" and joined.device.type == "cpu":
        joined = joined.pin_memory()  # from elsewhere the copy would wait for what the GPU is doing
    return torch.split(moved(joined, device), [len(t) for t in tensors])


@dataclass(frozen=True)
class _Block:
    """Some chunks of anchors that follow each other, and the boxes of one image: the work of one thread."""

    anchors: Tensor
    """(n, 4), each coordinate contiguous."""
    area: Tensor
    """(n,)"""
    chunks: list[slice]
    """Of the anchors, of at most ``CHUNK`` each."""
    extents: Tensor
    """(chunks, 1, 4), x1 y1 x2 y2 of the area that the anchors of each chunk cover."""
    boxes: Tensor
    """(M, 4)"""
    classes: Tensor
    """(M,) int64"""
    regions: Tensor
    """(R, 4), the ignore regions."""
    box_highest: Tensor
    """(chunks, M), the highest overlap of each box within each chunk, written by :func:`_highest_overlaps`."""
    image_box_highest: Tensor
    """(chunks of the whole image, M), of which ``box_highest`` is a view."""
    targets: Tensor
    """(n,) int64, a view of the targets' labels, where they are written."""
    first: int
    """The index of the first anchor in the flattened (B * N)."""

    def overlapping(self, boxes: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """:meth:`pairs` of the ``boxes`` that may overlap an anchor of a chunk."""
        return self.pairs(((boxes[:, :2] < self.extents[..., 2:]) & (boxes[:, 2:] > self.extents[..., :2])).all(dim=2))

    def pairs(self, wanted: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """Number and slice of each chunk, with indices of boxes to compare it with, as many as fit into memory at once.

        Args:
            wanted: (chunks, M) bool. Ignored on a GPU: to compare all boxes is faster than to wait for the mask.
        """
        if threads.asynchronous(wanted.device):
            most, chosen = MOST_OVERLAPS, [torch.arange(wanted.shape[1], device=wanted.device)] * len(wanted)
        else:
            numbers, indices = wanted.nonzero(as_tuple=True)
            most = CACHED_OVERLAPS
            chosen = list(indices.split(torch.bincount(numbers, minlength=len(wanted)).tolist()))
        for number, (chunk, indices) in enumerate(zip(self.chunks, chosen)):
            step = max(1, most // max(1, chunk.stop - chunk.start))
            for group in indices.split(step) if len(indices) else ():
                yield number, chunk, group

    def iou(self, boxes: Tensor, chunk: slice) -> Tensor:
        """(m, 4) -> (m, anchors of the chunk)"""
        return geometry.iou(boxes, self.anchors[chunk], self.area[chunk])


def _blocks(
    anchors: Tensor,
    truth: Sequence[Tensor],
    classes: Sequence[Tensor],
    regions: Sequence[Tensor],
    targets: Tensor,
    workers: int,
) -> list[_Block]:
    """One block per image, or more where there are fewer than twice as many images as ``workers``."""
    anchors = anchors.t().contiguous().t()
    area = geometry.area(anchors)
    length = max(1, len(anchors)) if threads.asynchronous(anchors.device) else CHUNK
    chunks = [slice(start, min(start + length, len(anchors))) for start in range(0, len(anchors), length)]
    extents = [torch.cat((anchors[chunk, :2].amin(dim=0), anchors[chunk, 2:].amax(dim=0))) for chunk in chunks]
    per_image = min(len(chunks), math.ceil(2 * workers / max(1, len(targets))) if workers > 1 else 1)
    per_block = max(1, math.ceil(len(chunks) / max(1, per_image)))
    blocks = []
    for i, (image_targets, image_boxes) in enumerate(zip(targets, truth)):
        image_box_highest = anchors.new_zeros((len(chunks), len(image_boxes)))
        for c in range(0, len(chunks), per_block):
            own = slice(c, c + per_block)
            first, last = chunks[own][0].start, chunks[own][-1].stop
            blocks.append(
                _Block(
                    anchors=anchors[first:last],
                    area=area[first:last],
                    chunks=[slice(chunk.start - first, chunk.stop - first) for chunk in chunks[own]],
                    extents=torch.stack(extents[own])[:, None],
                    boxes=image_boxes,
                    classes=classes[i],
                    regions=regions[i],
                    box_highest=image_box_highest[own],
                    image_box_highest=image_box_highest,
                    targets=image_targets[first:last],
                    first=i * len(anchors) + first,
                )
            )
    return blocks


def _highest_overlaps(block: _Block) -> Tensor:
    """(n,), the highest overlap of each anchor; those of the boxes are written into ``block.box_highest``."""
    start = 0.0 if len(block.boxes) else -1.0  # without a box everything is background, whatever the thresholds
    highest = torch.full_like(block.area, start)
    for number, chunk, group in block.overlapping(block.boxes):
        overlaps = block.iou(block.boxes[group], chunk)  # (m, anchors of the chunk)
        highest[chunk] = torch.maximum(highest[chunk], overlaps.amax(dim=0))
        block.box_highest[number, group] = overlaps.amax(dim=1)
    return highest


def _assign(block: _Block, highest: Tensor, settings: MatchingSettings) -> tuple[Tensor, Tensor]:
    """Write the labels of a block.

    Args:
        highest: (n,), the highest overlap of each anchor.

    Returns:
        Indices (k,) into the flattened (B * N) and boxes (k, 4), as :class:`Targets` has them.
    """
    positive = highest >= settings.foreground
    if settings.low_quality:
        positive |= _low_quality(block)
    labels = torch.where(highest < settings.background, BACKGROUND, IGNORED)
    for _, chunk, group in block.overlapping(block.regions):
        inside = geometry.intersection(block.regions[group], block.anchors[chunk]).amax(dim=0)
        labels[chunk].masked_fill_(inside >= block.area[chunk] / 2, IGNORED)
    labels.masked_fill_(positive, 0)

    # Few anchors are positive: the best box is looked up for them alone. On a GPU, where finding them would mean
    # waiting, it is looked up for all.
    everything = threads.asynchronous(highest.device)
    indices = torch.arange(len(highest), device=highest.device) if everything else positive.nonzero()[:, 0]
    boxes = block.anchors[indices]
    if len(block.boxes):
        step = max(1, MOST_OVERLAPS // len(block.boxes))
        for group, box in zip(indices.split(step), boxes.split(step)):
            best, chosen = geometry.iou(block.boxes, box).argmax(dim=0), positive[group]  # the first of equals
            labels[group] = torch.where(chosen, block.classes[best], labels[group])
            box.copy_(torch.where(chosen[:, None], block.boxes[best], box))
    block.targets.copy_(labels)
    return indices + block.first, boxes


def _low_quality(block: _Block) -> Tensor:
    """(n,) bool: whether an anchor overlaps some box as much as the best anchor of the whole image does."""
    result = torch.zeros_like(block.targets, dtype=torch.bool)
    highest = block.image_box_highest.amax(dim=0)  # (M,)
    # A box that overlaps no anchor has a highest overlap of 0, which it shares with nearly every anchor: without the
    # second condition all of them would turn positive.
    for _, chunk, group in block.pairs((block.box_highest == highest) & (highest > 0)):
        limit = highest[group, None]
        result[chunk] |= ((block.iou(block.boxes[group], chunk) == limit) & (limit > 0)).any(dim=0)
    return result
