"""Large images with small objects: overlapping tiles, each predicted alone.

Their detections are merged by :mod:`retinanet.inference.tile_merging`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from retinanet.common.arguments import PredictOptions, real
from retinanet.common.arguments import whole as whole_number
from retinanet.common.errors import RequestError
from retinanet.inference.detections import Detections
from retinanet.inference.image_inputs import load_image, warn
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
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Detections:
    """Detections of one large image, predicted in tiles.

    An image no larger than a tile is predicted as usual. Memory beyond the image's own is that of a batch of tiles,
    and of the resized image where ``whole`` is set.

    Args:
        image: one image, as :meth:`Detector.predict` takes it.
        slices: side of a tile in pixels of the image. Each is resized as the detector resizes images.
        overlap: the share of a tile that its neighbours see too. Objects smaller than that are seen whole by some tile.
        whole: predict the whole image as well, resized as usual, for objects larger than the overlap.
        on_progress: called after each batch with (tiles done, tiles in all), the whole image counted as one.
        options: those of :meth:`Detector.predict`. ``max_detections`` is the most in the image, by default as many as
            there are: the model's own setting is for one run, and holds for each tile.

    Raises:
        RequestError: the image cannot be read, or a setting is out of its range.
    """
    shared = shared_pixels(slices, overlap)
    checked = PredictOptions(**options)
    notes: list[str] = []
    pixels, source, content = load_image(image, notes)
    for note in notes:
        warn(note)
    height, width = pixels.shape[1:]
    views = tiles(height, width, slices, overlap)
    if len(views) == 1:
        whole_image: list[Detections] = detector.predict([pixels], **options)
        return replace(whole_image[0], source=source, content=content)
    if whole:
        views.append((0, 0, width, height))
    per_tile = {name: value for name, value in options.items() if name != "max_detections"}
    detections: list[Detections] = []
    for start in range(0, len(views), checked.batch_size):
        crops = [pixels[:, y1:y2, x1:x2] for x1, y1, x2, y2 in views[start : start + checked.batch_size]]
        detections += detector.predict(crops, **per_tile)
        if on_progress:
            on_progress(len(detections), len(views))
    corners = [torch.tensor([x1, y1, x1, y1]) for x1, y1, _, _ in views]
    settings = detector.settings.postprocessing
    merged = merge(
        torch.cat([found.boxes + corner for found, corner in zip(detections, corners)]),
        torch.cat([found.scores for found in detections]),
        torch.cat([found.labels for found in detections]),
        torch.arange(len(views)).repeat_interleave(torch.tensor([len(found) for found in detections])),
        torch.tensor(views),
        shared,
        settings if checked.nms is None else replace(settings, nms=checked.nms),
        whole,
    )
    boxes, scores, labels = (values[: checked.max_detections] for values in merged)
    return Detections(boxes, scores, labels, tuple(detector.class_names), source, content)
