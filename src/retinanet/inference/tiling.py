"""Large images with small objects: overlapping tiles, each looked at alone.

How their detections become one is in :mod:`retinanet.inference.tile_merging`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from retinanet.common.arguments import PredictOptions, real
from retinanet.common.arguments import whole as whole_number
from retinanet.common.errors import RequestError
from retinanet.inference.detections import Detections
from retinanet.inference.tile_merging import merge

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector

Tile = tuple[int, int, int, int]  # x1 y1 x2 y2, pixels of the image

MOST_OVERLAP = 0.9  # beyond it there are hundreds of tiles over every pixel


def starts(length: int, slices: int, overlap: int) -> list[int]:
    """Where tiles of ``slices`` pixels begin along a side of ``length``; neighbours share ``overlap`` pixels or more.

    The last one ends with the side; a shorter side has one tile.
    """
    return [*range(0, length - slices, slices - overlap), length - slices] if length > slices else [0]


def tiles(height: int, width: int, slices: int, overlap: float = 0.2) -> list[Tile]:
    """Tiles that cover an image exactly, row by row.

    Raises:
        RequestError: ``slices`` below 1, or ``overlap`` outside of 0..0.9.
    """
    shared = shared_pixels(slices, overlap)
    return [
        (x, y, min(x + slices, width), min(y + slices, height))
        for y in starts(height, slices, shared)
        for x in starts(width, slices, shared)
    ]


def shared_pixels(slices: int, overlap: float) -> int:
    """How many pixels neighbouring tiles share at least; checks both settings."""
    slices = whole_number("slices", slices)
    overlap = real("the overlap of tiles", overlap)
    if not 0 <= overlap <= MOST_OVERLAP:
        raise RequestError(f"the overlap of tiles must be in [0, {MOST_OVERLAP}], not {overlap:g}")
    return min(math.ceil(overlap * slices), slices - 1)


def predict_sliced(
    detector: Detector,
    image: Any,
    slices: int = 640,
    overlap: float = 0.2,
    *,
    whole: bool = True,
    threshold: float | None = None,
    max_detections: int | None = None,
    size: int | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> Detections:
    """Detections of one large image, looked at in tiles.

    An image no larger than a tile is predicted as ever. Memory beyond the image's own is that of a batch of tiles,
    and of the image once more where ``whole`` is set, as it is resized.

    Args:
        image: as :meth:`Detector.predict` takes it.
        slices: side of a tile in pixels of the image. Each is resized as the detector resizes images.
        overlap: the part of a tile that its neighbours see too. Objects smaller than that are seen whole by some tile.
        whole: look at the whole image as well, resized as ever, for objects larger than the overlap.
        threshold, size, batch_size: as of :meth:`Detector.predict`.
        max_detections: the most in the image. By default as many as there are: the model's own setting is for one
            look, and holds for each tile.
        on_progress: called after each batch with (tiles done, tiles in all), the whole image counted as one.

    Raises:
        RequestError: the image cannot be read, or a setting is out of its range.
    """
    from retinanet.data.image_io import to_tensor

    shared = shared_pixels(slices, overlap)
    options = PredictOptions(threshold, max_detections, size, batch_size)
    notes: list[str] = []
    pixels = to_tensor(image, notes)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    height, width = pixels.shape[1:]
    places = tiles(height, width, slices, overlap)
    given: dict[str, Any] = {"threshold": options.threshold, "size": options.size, "batch_size": options.batch_size}
    if len(places) == 1:
        return detector.predict([pixels], max_detections=options.max_detections, **given)[0]
    views = places + [(0, 0, width, height)] * whole
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    view: list[Tensor] = []
    for group in _groups(views, options.batch_size):
        pieces = [pixels[:, y1:y2, x1:x2] for x1, y1, x2, y2 in group]
        for (x1, y1, _, _), found in zip(group, detector.predict(pieces, **given), strict=True):
            boxes.append(found.boxes + torch.tensor([x1, y1, x1, y1]))
            scores.append(found.scores)
            labels.append(found.labels)
            view.append(torch.full((len(found),), len(view)))
        if on_progress:
            on_progress(len(view), len(views))
    kept = merge(
        torch.cat(boxes),
        torch.cat(scores),
        torch.cat(labels),
        torch.cat(view),
        torch.tensor(views),
        shared,
        detector.settings.postprocessing.nms_iou,
        whole,
    )
    kept_boxes, kept_scores, kept_labels = (values[: options.max_detections] for values in kept)
    return Detections(kept_boxes, kept_scores, kept_labels, tuple(detector.class_names))


def _groups(views: list[Tile], count: int) -> Iterator[list[Tile]]:
    for start in range(0, len(views), count):
        yield views[start : start + count]
