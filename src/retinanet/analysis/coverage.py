"""Anchor coverage: the share of the boxes that an anchor fits at the training size.

A box is covered if the IoU with its best anchor reaches the foreground threshold. No anchor is trained on the others.
For a given anchor shape, the best anchor is the one with the nearest centre. So it is computed without going through
the grid, and equals the result of :func:`retinanet.ops.iou_assigner.match`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.config.model_settings import AnchorSettings, ModelSettings, PreprocessingSettings
from retinanet.config.settings import MatchingSettings
from retinanet.data.annotations import resized_boxes, resized_sizes
from retinanet.data.dataset import DetectionData, spread
from retinanet.ops.anchors import cell_anchors, make_anchors
from retinanet.ops.iou_assigner import IGNORED, match
from retinanet.ops.resize import padded_size, resized_size

BLOCK = 1 << 16  # boxes compared at a time
SAMPLED = 24  # images whose anchors are matched one by one, to count the positives
SIZES = (8, 16, 32, 64, 128, 256)  # limits of the size ranges, in pixels at the training size


class Boxes(NamedTuple):
    """The M boxes of a data set that are objects (no crowd regions), as the network gets them."""

    corners: NDArray[np.float32]
    """(M, 4) in pixels of the resized image."""
    padded: NDArray[np.int64]
    """(M, 2) height and width that a box's image is padded to when it is alone in its batch."""
    labels: NDArray[np.int32]
    images: NDArray[np.int64]
    """(M,) index of each box's image."""

    @property
    def sides(self) -> NDArray[np.float32]:
        """(M,) square root of the area."""
        return np.sqrt(np.prod(self.corners[:, 2:] - self.corners[:, :2], axis=1))

    def sample(self, count: int) -> Boxes:
        """At most ``count`` of the boxes, evenly spread."""
        chosen = spread(len(self.labels), count)
        return Boxes(self.corners[chosen], self.padded[chosen], self.labels[chosen], self.images[chosen])


@dataclass(frozen=True)
class Coverage:
    """How well the anchors fit the boxes of one split."""

    best: NDArray[np.float32]
    """(M,) IoU of each box with its best anchor."""
    foreground: float
    """The IoU from which an anchor is positive."""
    per_class: list[tuple[str, int, float]]
    """Name, number of boxes, share of them that is covered."""
    per_size: list[tuple[str, int, float]]
    """The same for size ranges: the square root of the area in pixels at the training size."""
    per_level: list[tuple[int, float]]
    """Number of the level, share of all boxes that have their best anchor there."""
    without: float
    """Share of the images with boxes in which no anchor is positive."""
    anchors: int
    """Anchors of an image, on average over the sampled images."""
    positives: float
    """Positive anchors of an image, on average."""
    ignored: float
    """Ignored anchors of an image, on average."""
    sampled: int
    """Number of sampled images."""

    @property
    def covered(self) -> NDArray[np.bool_]:
        return self.best >= self.foreground

    @property
    def share(self) -> float:
        """Share of the boxes that is covered, 0 to 1; 1 without boxes."""
        return float(self.covered.mean()) if len(self.best) else 1.0

    @property
    def ratio(self) -> float:
        """Background anchors for each positive one; infinite without positives."""
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


def boxes_at_training_size(data: DetectionData, preprocessing: PreprocessingSettings) -> Boxes:
    """The boxes of ``data`` at the training size, without crowd regions."""
    notes = data.annotations
    sizes, size_of = np.unique(resized_sizes(notes.sizes, preprocessing), axis=0, return_inverse=True)
    padded = np.array([padded_size([(h, w)], preprocessing) for h, w in sizes.tolist()], np.int64).reshape(-1, 2)
    counted = ~notes.crowds
    images = notes.images[counted]
    corners = resized_boxes(notes, preprocessing)[counted]
    return Boxes(corners, padded[size_of.reshape(-1)[images]], notes.labels[counted], images)


def share_text(share: float, digits: int = 1) -> str:
    """A share as a rounded percentage. Only a share of exactly 1 gives 100 %, and only 0 gives 0 %."""
    least = 10.0 ** -(digits + 2)
    if 0 < share < 1:
        share = min(max(share, least), 1 - least)
    return f"{share:.{digits}%}"


def best_anchors(boxes: Boxes, settings: AnchorSettings) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """(M,) IoU of each box with its best anchor, and (M,) index of that anchor's level."""
    best = np.zeros(len(boxes.labels), np.float32)
    level_of = np.zeros(len(best), np.int8)
    shapes = [cell_anchors(settings, i).numpy() for i in range(len(settings.sizes))]
    for start in range(0, len(best), BLOCK):
        block = slice(start, start + BLOCK)
        corners, padded = boxes.corners[block], boxes.padded[block]
        x1, y1, x2, y2 = corners.T
        area = (x2 - x1) * (y2 - y1)
        for index, level in enumerate(settings.levels):
            (dx, ox), (dy, oy) = (
                _nearest(low, high, padded[:, axis], level, settings) for low, high, axis in ((x1, x2, 1), (y1, y2, 0))
            )
            for left, top, right, bottom in shapes[index].tolist():
                across = np.minimum(right, ox + dx) - np.maximum(left, ox - dx)
                down = np.minimum(bottom, oy + dy) - np.maximum(top, oy - dy)
                inner = np.maximum(across, 0) * np.maximum(down, 0)
                overlap = inner / (area + np.float32((right - left) * (bottom - top)) - inner)
                better = overlap > best[block]
                best[block][better] = overlap[better]
                level_of[block][better] = index
    return best, level_of


def _nearest(
    low: NDArray[np.float32], high: NDArray[np.float32], padded: NDArray[np.int64], level: int, settings: AnchorSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Along one axis: half the length of each box, and its centre relative to the centre of the nearest anchor."""
    stride = 2**level
    cells = -(-padded // stride)
    step = padded // cells if settings.strides == "torchvision" else np.int64(stride)
    centre = (low + high) / 2
    cell = np.clip(np.rint(centre / step - settings.offset), 0, cells - 1)
    half: NDArray[np.float32] = (high - low) / np.float32(2)
    return half, (centre - (cell + settings.offset) * step).astype(np.float32)


def cover(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> Coverage:
    """Compare the anchors of ``model`` with the boxes of ``data``, at the image size of ``model``."""
    boxes = boxes_at_training_size(data, model.preprocessing)
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
        per_size=[row(name, size_of == i) for i, name in enumerate(names)],
        per_level=[
            (level, float((level_of == i).mean()) if len(best) else 0.0) for i, level in enumerate(model.anchors.levels)
        ],
        without=1 - with_positive / with_boxes if with_boxes else 0.0,
        anchors=anchors,
        positives=positives,
        ignored=ignored,
        sampled=sampled,
    )


def _count(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> tuple[int, float, float, int]:
    """Match the anchors of a sample of the images.

    Returns:
        Anchors of an image, positive ones and ignored ones, on average; the number of images in the sample.
    """
    chosen = spread(len(data), SAMPLED).tolist()
    resized = resized_boxes(data.annotations, model.preprocessing)
    counts = np.zeros(3)
    for index in chosen:
        size = resized_size(*data.size(index), model.preprocessing)
        anchors = torch.cat(make_anchors(model.anchors, *padded_size([size], model.preprocessing), torch.device("cpu")))
        boxes = torch.from_numpy(resized[data.box_range(index)])
        labels = torch.from_numpy(data.training_labels(index))
        states = match(anchors, [boxes], [labels], matching).labels
        counts += len(anchors), int((states >= 0).sum()), int((states == IGNORED).sum())
    total, positives, ignored = (counts / max(1, len(chosen))).tolist()
    return round(total), positives, ignored, len(chosen)
