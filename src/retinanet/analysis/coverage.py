"""What RetinaNet will see of a data set: which boxes an anchor covers at the training size.

A box is covered if its best anchor reaches the IoU from which on an anchor is positive. The others are never learnt:
no anchor is told that it answers for them. For a given shape the best anchor is the one whose centre lies nearest, so
it is found without going through the grid, and equals what :func:`retinanet.ops.iou_assigner.match` computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.config.settings import AnchorSettings, MatchingSettings, ModelSettings, PreprocessingSettings
from retinanet.data.dataset import DetectionData, spread
from retinanet.ops.anchors import cell_anchors, make_anchors
from retinanet.ops.iou_assigner import match
from retinanet.ops.resize import padded_size, resized_size

BLOCK = 1 << 16  # boxes compared at a time
SAMPLED = 24  # images whose anchors are matched one by one, to count the positives
SIZES = (8, 16, 32, 64, 128, 256)  # limits of the classes of sizes, in pixels at the training size


class Boxes(NamedTuple):
    """The M boxes of a data set that are to be found (no crowds), as the network gets them."""

    corners: NDArray[np.float32]
    """(M, 4) in pixels of the resized image."""
    padded: NDArray[np.int64]
    """(M, 2) height and width that a box's image is padded to when it is alone in its batch."""
    labels: NDArray[np.int32]
    images: NDArray[np.int64]
    """(M,) the image of each."""

    @property
    def sides(self) -> NDArray[np.float32]:
        """(M,) square root of the area."""
        return np.sqrt(np.prod(self.corners[:, 2:] - self.corners[:, :2], axis=1))

    def some(self, count: int) -> Boxes:
        """At most ``count`` of them, evenly spread."""
        if len(self.labels) <= count:
            return self
        places = spread(len(self.labels), count)
        return Boxes(self.corners[places], self.padded[places], self.labels[places], self.images[places])


@dataclass(frozen=True)
class Coverage:
    """How well the anchors fit the boxes of one split."""

    best: NDArray[np.float32]
    """(M,) IoU of each box with its best anchor."""
    foreground: float
    """The IoU from which on an anchor is positive."""
    per_class: list[tuple[str, int, float]]
    """Name, boxes, share of them that is covered."""
    per_size: list[tuple[str, int, float]]
    """The same for classes of sizes: the square root of the area in pixels at the training size."""
    per_level: list[tuple[int, float]]
    """Number of the level, share of all boxes that have their best anchor there."""
    without: float
    """Share of the images with boxes in which no anchor is positive."""
    anchors: int
    """Anchors of an image, on average over the sampled ones."""
    positives: float
    """Of these the positive ones."""
    ignored: float
    """And those that take no part."""
    sampled: int

    @property
    def covered(self) -> NDArray[np.bool_]:
        return self.best >= self.foreground

    @property
    def share(self) -> float:
        """Of the boxes that is covered, 0 to 1; 1 without boxes."""
        return float(self.covered.mean()) if len(self.best) else 1.0

    @property
    def ratio(self) -> float:
        """Background anchors for each positive one; infinite without a positive."""
        background = self.anchors - self.positives - self.ignored
        return background / self.positives if self.positives else math.inf

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "share": self.share,
            "foreground_iou": self.foreground,
            "per_class": [dict(zip(("name", "boxes", "share"), row)) for row in self.per_class],
            "per_size": [dict(zip(("side", "boxes", "share"), row)) for row in self.per_size],
            "per_level": [dict(zip(("level", "share"), row)) for row in self.per_level],
            "images_without_positive": self.without,
            "anchors_per_image": self.anchors,
            "positives_per_image": self.positives,
            "background_per_positive": None if math.isinf(self.ratio) else self.ratio,
        }


def as_seen(data: DetectionData, preprocessing: PreprocessingSettings) -> Boxes:
    """The boxes of ``data`` at the training size."""
    all_ = data.annotations
    sizes, kinds = np.unique(all_.sizes, axis=0, return_inverse=True)
    resized = [resized_size(int(h), int(w), preprocessing) for h, w in sizes]
    scale = np.array([[w / own[1], h / own[0]] * 2 for (h, w), own in zip(resized, sizes)], np.float32).reshape(-1, 4)
    padded = np.array([padded_size([size], preprocessing) for size in resized], np.int64).reshape(-1, 2)
    counted = ~all_.crowds
    images = all_.images[counted]
    kind = kinds.reshape(-1)[images]
    return Boxes(all_.boxes[counted] * scale[kind], padded[kind], all_.labels[counted], images)


def share_text(share: float, digits: int = 1) -> str:
    """A share as a percentage, rounded; 100 % is all of them and 0 % none, so it never rounds to either."""
    least = 10.0 ** -(digits + 2)
    if 0 < share < 1:
        share = min(max(share, least), 1 - least)
    return f"{share:.{digits}%}"


def best_anchors(boxes: Boxes, settings: AnchorSettings) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """(M,) IoU of each box with its best anchor, and (M,) place of that anchor's level."""
    best = np.zeros(len(boxes.labels), np.float32)
    level_of = np.zeros(len(best), np.int8)
    shapes = [cell_anchors(settings, place).numpy() for place in range(len(settings.sizes))]
    for start in range(0, len(best), BLOCK):
        part = slice(start, start + BLOCK)
        corners, padded = boxes.corners[part], boxes.padded[part]
        x1, y1, x2, y2 = corners.T
        area = (x2 - x1) * (y2 - y1)
        for place, level in enumerate(settings.levels):
            (dx, ox), (dy, oy) = (
                _nearest(low, high, padded[:, axis], level, settings) for low, high, axis in ((x1, x2, 1), (y1, y2, 0))
            )
            for left, top, right, bottom in shapes[place].tolist():
                across = np.minimum(right, ox + dx) - np.maximum(left, ox - dx)
                down = np.minimum(bottom, oy + dy) - np.maximum(top, oy - dy)
                inner = np.maximum(across, 0) * np.maximum(down, 0)
                overlap = inner / (area + np.float32((right - left) * (bottom - top)) - inner)
                better = overlap > best[part]
                best[part][better] = overlap[better]
                level_of[part][better] = place
    return best, level_of


def _nearest(
    low: NDArray[np.float32], high: NDArray[np.float32], padded: NDArray[np.int64], level: int, settings: AnchorSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Along one axis: half the length of each box, and its centre as seen from the nearest anchor's centre."""
    stride = 2**level
    cells = -(-padded // stride)
    step = padded // cells if settings.strides == "torchvision" else np.int64(stride)
    centre = (low + high) / 2
    cell = np.clip(np.rint(centre / step - settings.offset), 0, cells - 1)
    half: NDArray[np.float32] = (high - low) / np.float32(2)
    return half, (centre - (cell + settings.offset) * step).astype(np.float32)


def cover(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> Coverage:
    """Hold the anchors of ``model`` against the boxes of ``data``, in images as large as ``model`` wants them."""
    boxes = as_seen(data, model.preprocessing)
    best, level_of = best_anchors(boxes, model.anchors)
    covered = best >= matching.foreground

    def row(name: str, chosen: NDArray[np.bool_]) -> tuple[str, int, float]:
        return name, int(chosen.sum()), float(covered[chosen].mean()) if chosen.any() else 1.0

    size_of = np.searchsorted(SIZES, boxes.sides, side="right")
    names = [f"below {SIZES[0]} px", *(f"{a} to {b} px" for a, b in pairwise(SIZES)), f"from {SIZES[-1]} px"]
    anchors, positives, ignored, sampled = _count(data, model, matching)
    with_boxes, with_positive = (len(np.unique(boxes.images[chosen])) for chosen in (slice(None), covered))
    return Coverage(
        best=best,
        foreground=matching.foreground,
        per_class=[row(name, boxes.labels == label) for label, name in enumerate(data.class_names)],
        per_size=[row(name, size_of == place) for place, name in enumerate(names)],
        per_level=[
            (level, float((level_of == place).mean()) if len(best) else 0.0)
            for place, level in enumerate(model.anchors.levels)
        ],
        without=1 - with_positive / with_boxes if with_boxes else 0.0,
        anchors=anchors,
        positives=positives,
        ignored=ignored,
        sampled=sampled,
    )


def _count(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> tuple[int, float, float, int]:
    """Anchors, positive and ignored ones of an image, on average; images that this was counted in."""
    chosen = spread(len(data), SAMPLED).tolist()
    counts = np.zeros(3)
    for index in chosen:
        size = resized_size(*data.size(index), model.preprocessing)
        height, width = padded_size([size], model.preprocessing)
        anchors = torch.cat(make_anchors(model.anchors, height, width, torch.device("cpu")))
        scale = torch.tensor([size[1] / data.size(index)[1], size[0] / data.size(index)[0]] * 2)
        boxes = torch.from_numpy(data.boxes(index).copy()) * scale
        labels = torch.from_numpy(np.where(data.crowd(index), -2, data.labels(index)))
        states = match(anchors, [boxes], [labels], matching).labels
        counts += len(anchors), int((states >= 0).sum()), int((states == -2).sum())
    anchors_, positives, ignored = (counts / max(1, len(chosen))).tolist()
    return round(anchors_), positives, ignored, len(chosen)
