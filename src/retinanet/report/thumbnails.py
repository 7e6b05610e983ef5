"""Images inside a page: small, with their boxes drawn in them, as JPEG data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from retinanet.inference import drawing
from retinanet.report.page import plural

if TYPE_CHECKING:
    from retinanet.data import DetectionData
    from retinanet.evaluation.confusion import ImageResult
    from retinanet.inference.detections import Detections

SIDE = 480
"""Pixels of the longer side of an image in a page; small images are enlarged to half of it."""
QUALITY = 78
RIGHT: drawing.Colour = (40, 205, 170)
WRONG: drawing.Colour = (255, 84, 84)


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
    said = _counted(names) or "no boxes"
    return _thumbnail(drawn, data, index, said, f"{note}: {said}" if note else said)


def pair(data: DetectionData, judged: ImageResult, found: Mapping[int, Detections]) -> tuple[Thumbnail, Thumbnail]:
    """The truth of an image, with what was missed in red, and what was found, with what is wrong in red."""
    index = judged.index
    image, scale = _small(data, index)
    truth = [data.class_names[label] for label in data.labels(index)]
    missed = np.asarray(judged.missed, np.bool_)
    left = _marked(image, data.boxes(index) * scale, truth, missed)
    lost = [name for name, bad in zip(truth, missed) if bad]
    regions = " (with regions to ignore)" if data.crowd(index).any() else ""
    seen = f"{plural(len(truth), 'box', 'boxes')}{regions}, {_counted(lost)} missed" if lost else "all boxes found"

    wrong = ~np.asarray(judged.correct, np.bool_)
    names: list[str] = []
    labels: list[str] = []
    boxes = np.zeros((0, 4))
    if len(judged.kept):  # an image in which nothing was found may be missing
        detections = found[index]
        names = [detections.names[place] for place in judged.kept]
        labels = [f"{name} {score:.2f}" for name, score in zip(names, detections.scores[judged.kept].tolist())]
        boxes = detections.boxes.numpy()[judged.kept]
    right = _marked(image, boxes * scale, labels, wrong)
    bad = [name for name, is_wrong in zip(names, wrong) if is_wrong]
    told = f"{plural(len(names), 'detection')}, {_counted(bad)} wrong" if bad else f"{len(names)} detections, all right"
    if not names:
        told = "nothing found"
    return _thumbnail(left, data, index, f"Truth: {seen}", seen), _thumbnail(right, data, index, f"Found: {told}", told)


def choose(splits: Mapping[str, DetectionData], count: int) -> list[tuple[str, int]]:
    """Images in which every class is seen, as far as ``count`` of them reach; the rarest classes first.

    Returns:
        The split and the place of each; what is left of ``count`` is spread evenly over the first split.
    """
    chosen: list[tuple[str, int]] = []
    seen: set[int] = set()
    for split, data in splits.items():
        notes = data.annotations
        shown = ~notes.crowds
        pairs = np.unique(np.stack([notes.images[shown], notes.labels[shown]], axis=1), axis=0)  # image, class
        boxes = np.diff(notes.offsets)
        rarity = np.bincount(pairs[:, 1], minlength=len(data.class_names))
        for label in np.argsort(rarity, kind="stable"):
            if len(chosen) >= count:
                return chosen
            if int(label) in seen or not rarity[label]:
                continue
            new = pairs[~np.isin(pairs[:, 1], list(seen))]
            gain = np.bincount(new[:, 0], minlength=len(data))
            candidates = pairs[pairs[:, 1] == label, 0]
            # The most classes not seen before; of those the image with the fewest boxes, which is easiest to read.
            best = int(candidates[np.lexsort((candidates, boxes[candidates], -gain[candidates]))[0]])
            chosen.append((split, best))
            seen.update(pairs[pairs[:, 0] == best, 1].tolist())
    if not splits:
        return []
    first, data = next(iter(splits.items()))
    left = min(count, len(data)) - len(chosen)
    free = [index for index in range(len(data)) if (first, index) not in set(chosen)]
    return chosen + [(first, free[i * len(free) // left]) for i in range(min(left, len(free)))]


def _counted(names: Sequence[str]) -> str:
    """3 RBC, 1 WBC; the most first."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    order = sorted(counts, key=lambda name: -counts[name])
    more = f" and {len(order) - 5} more classes" if len(order) > 5 else ""
    return ", ".join(f"{counts[name]} {name}" for name in order[:5]) + more


def _small(data: DetectionData, index: int) -> tuple[Image.Image, NDArray[np.float64]]:
    """An image at the size of the page, and the factors (4,) for its boxes."""
    image = drawing.to_image(data.read(index))
    longer = max(image.size)
    scale = SIDE / longer if longer > SIDE else max(1.0, SIDE / 2 / longer)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    factors = np.array([size[0] / image.width, size[1] / image.height] * 2)
    return image.resize(size, Image.Resampling.LANCZOS), factors


def _marked(image: Image.Image, boxes: Any, names: Sequence[str], bad: NDArray[np.bool_]) -> Image.Image:
    """What is right as thin frames, what is wrong as thick ones with its name, on top."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    font = drawing.load_font(12)
    for box in corners[~bad]:
        x1, y1, x2, y2 = np.clip(np.round(box), 0, [*image.size, *image.size]).tolist()
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=RIGHT, width=2)
    for box in corners[bad]:
        drawing.frame(draw, box, WRONG, 3, image.size)
    taken: list[drawing.Area] = []
    for place in np.flatnonzero(bad).tolist():
        drawing.label(draw, corners[place], names[place], WRONG, font, 3, image.size, taken)
    return image


def _thumbnail(image: Image.Image, data: DetectionData, index: int, alt: str, caption: str) -> Thumbnail:
    name = data.path(index).name
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(source, image.width, image.height, f"{name}. {alt}", name, caption)
