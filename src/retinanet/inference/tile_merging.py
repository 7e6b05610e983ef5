"""Detections of overlapping views of one image to those of the image.

A tile cuts objects at its edges, and a detector finds the pieces too. A piece must neither be kept beside the whole box
of a neighbouring tile nor suppress it. The steps, in this order:

1. A box that touches an inner edge of its tile is cut. It is dropped where another tile sees more of the object than
   this one does. So an object smaller than the overlap is never taken in pieces, as one tile sees it whole.
2. A larger object may be whole nowhere. Two boxes of a class from two views, at least one of them cut, are the same
   object if they agree where both views see. Of such a set the whole boxes remain; where all are cut, one box around
   all of them does, with the highest score.
3. Non-maximum suppression for what two views found whole.

Steps 2 and 3 go class by class, or with class-agnostic suppression over all classes together.

The whole image may be one more view, for objects larger than a tile. Of it only boxes larger than the overlap count:
the others are whole in a tile, and larger there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from retinanet.config.model_settings import PostprocessingSettings

AGREE = 0.5  # IoU, where both views see, from which two boxes are the same object
TOUCHING = 0.01  # of a tile's side: nearer to an edge a box counts as touching it, as detectors end boxes about there
PAIRS = 1_000_000  # that are compared at a time, which bounds the memory


def merge(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    view: Tensor,
    views: Tensor,
    shared: int,
    settings: PostprocessingSettings,
    whole: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge detections of overlapping views into those of the image, by the steps above.

    Args:
        boxes: (n, 4) float32, pixels of the image. scores, labels: (n,).
        view: (n,) int64, the row of ``views`` in which each was found.
        views: (v, 4) int64, x1 y1 x2 y2, covering the image.
        shared: pixels that neighbouring views share at least.
        settings: its ``nms_iou`` is the IoU of two whole boxes above which the lower-scoring one is dropped. With
            ``nms`` "agnostic" boxes of different classes are compared too; a joined box has the label of its
            highest-scoring piece.
        whole: the last view is the whole image.

    Returns:
        boxes (m, 4) float32, scores (m,) descending, labels (m,).
    """
    from torchvision.ops import batched_nms

    views = views.to(boxes.dtype)
    near = min(max(2.0, TOUCHING * float((views[0, 2:] - views[0, :2]).max())), max(shared / 4, 1.0))
    if whole:
        large = ((boxes[:, 2:] - boxes[:, :2]) > shared - 2 * near).any(dim=1)
        keep = large | (view < len(views) - 1)
        boxes, scores, labels, view = boxes[keep], scores[keep], labels[keep], view[keep]
    cut, seen_better = _cut_boxes(boxes, view, views, near, len(views) - whole)
    keep = ~seen_better
    boxes, scores, labels, view, cut = boxes[keep], scores[keep], labels[keep], view[keep], cut[keep]

    groups = labels if settings.nms == "class" else torch.zeros_like(labels)
    same = _components(len(boxes), _links(boxes, groups, view, views, cut))  # (n,), the first of its set
    has_whole = torch.zeros(len(boxes), dtype=torch.bool).index_put((same[~cut],), torch.tensor(True))
    keep = ~cut | (~has_whole[same] & (same == torch.arange(len(boxes))))
    pieces = same[cut]
    rows = pieces[:, None].expand(-1, 2)
    joined = boxes.clone()
    joined[:, :2].scatter_reduce_(0, rows, boxes[cut, :2], "amin")
    joined[:, 2:].scatter_reduce_(0, rows, boxes[cut, 2:], "amax")
    best = scores.scatter_reduce(0, pieces, scores[cut], "amax")
    highest = cut & ~has_whole[same] & (scores == best[same])  # a whole box keeps its label, as its score
    labels = labels.scatter_reduce(0, same[highest], labels[highest], "amin", include_self=False)
    boxes, scores = torch.where(cut[:, None], joined, boxes)[keep], torch.where(cut, best, scores)[keep]
    labels, groups = labels[keep], groups[keep]
    kept = batched_nms(boxes.double(), scores.double(), groups, settings.nms_iou)
    return boxes[kept], scores[kept], labels[kept]


def _cut_boxes(boxes: Tensor, view: Tensor, views: Tensor, near: float, count: int) -> tuple[Tensor, Tensor]:
    """Masks (n,): boxes that an inner edge of their view cuts, and those of them of which a tile sees more.

    A tile sees more if it goes on at one of the edges that cut the box, and ends nowhere else before the box, or before
    the edge that cuts it, does.

    Args:
        near: pixels from an edge that count as touching it.
        count: the first ``count`` views are tiles.
    """
    outward = boxes.new_tensor([1, 1, -1, -1])  # so that on all four sides less is further out
    sides, edges = boxes * outward, views * outward  # (n, 4), (v, 4)
    edges = torch.where(edges <= edges.amin(dim=0), -math.inf, edges)  # nothing is cut by the image's own edges
    touching = sides < edges[view] + near  # (n, 4)
    cut = touching.any(dim=1)
    better = torch.zeros_like(cut)
    for chunk in cut.nonzero()[:, 0].split(max(1, PAIRS // count)):
        inside = sides[chunk, None] >= edges[:count] + near  # (s, count, 4)
        cuts = touching[chunk, None]
        reaches = edges[:count] <= edges[view[chunk], None]
        better[chunk] = ((inside | (cuts & reaches)).all(dim=2) & (inside & cuts).any(dim=2)).any(dim=1)
    return cut, better


def _links(boxes: Tensor, groups: Tensor, view: Tensor, views: Tensor, cut: Tensor) -> Iterator[tuple[int, int]]:
    """Pairs of boxes that are the same object as two views see it, the first of them cut."""
    for chunk in cut.nonzero()[:, 0].split(max(1, PAIRS // max(1, len(boxes)))):
        own = views[view[chunk], None]  # (s, 1, 4)
        low, high = torch.maximum(own, views[view])[..., :2], torch.minimum(own, views[view])[..., 2:]  # (s, n, 2)
        low, high = low.repeat(1, 1, 2), torch.maximum(low, high).repeat(1, 1, 2)  # nothing where views do not meet
        first, second = boxes[chunk, None].clamp(low, high), boxes.clamp(low, high)
        start = torch.maximum(first[..., :2], second[..., :2])
        both = (torch.minimum(first[..., 2:], second[..., 2:]) - start).clamp(min=0).prod(dim=2)
        areas = (first[..., 2:] - first[..., :2]).prod(dim=2) + (second[..., 2:] - second[..., :2]).prod(dim=2)
        same = (both > AGREE * (areas - both)) & (groups[chunk, None] == groups) & (view[chunk, None] != view)
        for i, j in same.nonzero().tolist():
            yield int(chunk[i]), j


def _components(count: int, links: Iterator[tuple[int, int]]) -> Tensor:
    """(count,) int64: the first item of the connected component of each of ``count`` items."""
    first = list(range(count))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for i, j in links:
        a, b = root(i), root(j)
        first[max(a, b)] = min(a, b)
    return torch.tensor([root(i) for i in range(count)], dtype=torch.int64)
