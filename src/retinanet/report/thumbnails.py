"""Images of a page: small, with their boxes, as JPEG data URIs."""

from __future__ import annotations

import base64
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinanet.inference import drawing
from retinanet.inference.class_colours import PALETTE, Colour
from retinanet.report.page import plural

if TYPE_CHECKING:
    from retinanet.data import DetectionData
    from retinanet.evaluation.confusion import ImageResult
    from retinanet.inference.detections import Detections

SIDE = 480
"""Pixels of the longer side of an image in a page; smaller images are enlarged to at least half of this."""
QUALITY = 78
LETTERS = 12
"""Pixels of the letters of a label."""
RIGHT: Colour = (40, 205, 170)
WRONG: Colour = PALETTE[0]


@dataclass(frozen=True)
class Thumbnail:
    """An image as an element of a page."""

    source: str
    width: int
    height: int
    alt: str
    title: str
    caption: str


def labelled(data: DetectionData, index: int, note: str = "") -> Thumbnail:
    """An image of a data set with its boxes and class names."""
    image, scale = _small(data, index)
    names = [data.class_names[label] for label in data.labels(index)]
    drawn = drawing.draw_boxes(image, data.boxes(index) * scale, names, class_names=data.class_names, line=2)
    boxes = _counted(names) or "no boxes"
    return _thumbnail(drawn, data, index, boxes, f"{note}: {boxes}" if note else boxes)


def pair(data: DetectionData, result: ImageResult, detections: Mapping[int, Detections]) -> tuple[Thumbnail, Thumbnail]:
    """The ground truth with missed boxes in red, and the detections with wrong ones in red."""
    index = result.index
    image, scale = _small(data, index)
    classes = [data.class_names[label] for label in data.labels(index)]
    missed, wrong = np.asarray(result.missed, np.bool_), ~np.asarray(result.correct, np.bool_)
    truth = _marked(image, data.boxes(index) * scale, classes, missed)
    if missed.any():
        crowd = " (with regions to ignore)" if data.crowd(index).any() else ""
        truth_text = f"{plural(len(classes), 'box', 'boxes')}{crowd}; missed: {_counted(classes, missed)}"
    else:
        truth_text = "no box missed"

    names: list[str] = []
    labels: list[str] = []
    boxes = np.zeros((0, 4))
    if len(result.kept):  # an image without detections may have no entry
        found = detections[index]
        names = [found.names[i] for i in result.kept]
        labels = [f"{name} {score:.2f}" for name, score in zip(names, found.scores[result.kept].tolist())]
        boxes = found.boxes.numpy()[result.kept]
    marked = _marked(image, boxes * scale, labels, wrong)
    errors = f"wrong: {_counted(names, wrong)}" if wrong.any() else "all correct"
    text = f"{plural(len(names), 'detection')}; {errors}" if names else "no detections"
    return (
        _thumbnail(truth, data, index, f"Ground truth: {truth_text}", truth_text),
        _thumbnail(marked, data, index, f"Detections: {text}", text),
    )


def choose(splits: Mapping[str, DetectionData], count: int) -> list[tuple[str, int]]:
    """Up to ``count`` images that together show as many classes as possible, the rarest classes first.

    Returns:
        The split and the index of each image. If fewer images show all classes, the rest comes evenly spread from the
        first split.
    """
    chosen: list[tuple[str, int]] = []
    seen: set[int] = set()
    for split, data in splits.items():
        annotations = data.annotations
        real = ~annotations.crowds
        pairs = np.unique(
            np.stack([annotations.images[real], annotations.labels[real]], axis=1), axis=0
        )  # image, class
        boxes = np.diff(annotations.offsets)
        rarity = np.bincount(pairs[:, 1], minlength=len(data.class_names))
        for label in np.argsort(rarity, kind="stable"):
            if len(chosen) >= count:
                return chosen
            if int(label) in seen or not rarity[label]:
                continue
            new = pairs[~np.isin(pairs[:, 1], list(seen))]
            gain = np.bincount(new[:, 0], minlength=len(data))
            candidates = pairs[pairs[:, 1] == label, 0]
            # The image with the most new classes; among equals the one with the fewest boxes, which is easiest to read.
            best = int(candidates[np.lexsort((candidates, boxes[candidates], -gain[candidates]))[0]])
            chosen.append((split, best))
            seen.update(pairs[pairs[:, 0] == best, 1].tolist())
    if not splits:
        return []
    first, data = next(iter(splits.items()))
    left = min(count, len(data)) - len(chosen)
    free = [index for index in range(len(data)) if (first, index) not in set(chosen)]
    return chosen + [(first, free[i * len(free) // left]) for i in range(min(left, len(free)))]


def _counted(names: Sequence[str], chosen: Iterable[bool] | None = None) -> str:
    """The names with their counts, most frequent first: 3 RBC, 1 WBC."""
    counts = Counter(names if chosen is None else itertools.compress(names, chosen)).most_common()
    more = f" and {len(counts) - 5} more classes" if len(counts) > 5 else ""
    return ", ".join(f"{number} {name}" for name, number in counts[:5]) + more


def _small(data: DetectionData, index: int) -> tuple[Image.Image, NDArray[np.float64]]:
    """The image at the size it has in the page, and the factors (4,) for its boxes."""
    image = drawing.to_image(data.read(index))
    longer = max(image.size)
    scale = SIDE / longer if longer > SIDE else max(1.0, SIDE / 2 / longer)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    factors = np.array([size[0] / image.width, size[1] / image.height] * 2)
    return image.resize(size, Image.Resampling.LANCZOS), factors


def _marked(image: Image.Image, boxes: Any, names: Sequence[str], bad: NDArray[np.bool_]) -> Image.Image:
    """The image with correct boxes as thin lines, and above them wrong boxes as thick lines with their names."""
    image = image.copy()
    corners = np.asarray(boxes, np.float64).reshape(-1, 4).tolist()
    wrong = [drawing.Mark(corners[i], WRONG, names[i], 3) for i in np.flatnonzero(bad).tolist()]
    right = [drawing.Mark(corners[i], RIGHT) for i in np.flatnonzero(~bad).tolist()]
    drawing.paint(image, wrong + right, LETTERS)
    return image


def _thumbnail(image: Image.Image, data: DetectionData, index: int, alt: str, caption: str) -> Thumbnail:
    name = data.path(index).name
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(source, image.width, image.height, f"{name}. {alt}", name, caption)
