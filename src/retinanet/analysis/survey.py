"""Figures of a split: classes, sizes, shapes, objects of an image. :mod:`retinanet.analysis.doctor` judges them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.config.model_settings import PreprocessingSettings
from retinanet.data.annotations import resized_boxes, resized_sizes
from retinanet.data.dataset import DetectionData

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
COCO_AREAS = (32.0**2, 96.0**2)  # COCO's limits between small, medium and large objects
COMMONEST = 5  # image sizes that are listed
HALF_OCTAVES = 2  # bins of the histograms of sides per factor of 2
LONGEST_SIDE = 1 << 14  # pixels, the end of those histograms; the last bin holds all above
RATIO_BINS = tuple(2.0 ** (step / 4) for step in range(-16, 17))  # h / w from 1/16 to 16, in quarters of an octave
COUNT_BINS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51, 101, 201, 501, 1001)  # objects of an image


@dataclass(frozen=True)
class Percentiles:
    """The percentiles 1, 5, 25, 50, 75, 95 and 99; zeros without values."""

    p1: float = 0.0
    p5: float = 0.0
    p25: float = 0.0
    p50: float = 0.0
    p75: float = 0.0
    p95: float = 0.0
    p99: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any]) -> Percentiles:
        return cls(*(float(value) for value in np.percentile(values, PERCENTS))) if len(values) else cls()


@dataclass(frozen=True)
class Histogram:
    """``counts[i]`` values lie from ``edges[i]`` up to ``edges[i + 1]``. The outermost bins hold the values beyond."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: NDArray[Any], edges: Sequence[float]) -> Histogram:
        """``edges`` ascend; the last bin is open."""
        bins = np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
        return cls(tuple(edges), tuple(np.bincount(bins, minlength=len(edges) - 1).tolist()))


@dataclass(frozen=True)
class Sides:
    """How large boxes are, in pixels."""

    size: Percentiles
    """Of the square root of width times height."""
    shorter: Percentiles
    """Of the shorter side."""
    histogram: Histogram
    """Of the square root of width times height, in half octaves."""
    small: float
    """Share of boxes below 32 x 32 pixels, COCO's small objects."""
    medium: float
    large: float
    """Share of boxes above 96 x 96 pixels, COCO's large objects."""


@dataclass(frozen=True)
class ClassFigures:
    name: str
    category_id: int
    boxes: int
    images: int
    """Images with at least one box of the class."""
    size: float
    """Median of the square root of width times height at the training size; 0 without boxes."""


@dataclass(frozen=True)
class SplitSurvey:
    """The figures of a split. Crowd regions (COCO's iscrowd, VOC's difficult) only appear in ``crowds``."""

    split: str
    kind: str
    images: int
    boxes: int
    crowds: int
    empties: int
    """Images without a box other than crowd regions."""
    classes: tuple[ClassFigures, ...]
    imbalance: float
    """Boxes of the commonest class for each of the rarest that occurs; 0 without boxes."""
    objects_mean: float
    objects_median: float
    objects_max: int
    objects: Histogram
    """Boxes of an image."""
    stored: Sides
    """In pixels of the files."""
    trained: Sides
    """In pixels of the network's input."""
    ratios: Percentiles
    """Of height divided by width."""
    ratio_histogram: Histogram
    image_median: tuple[int, int]
    """Height and width: the median of each."""
    image_smallest: tuple[int, int]
    image_largest: tuple[int, int]
    image_sizes: tuple[tuple[int, int, int], ...]
    """The commonest sizes: height, width, how many images."""
    distinct_sizes: int
    trained_median: tuple[int, int]
    """Height and width of the network's input, before padding: the median of each."""
    covered: Percentiles
    """Share of its image that a box covers."""

    def plain(self) -> dict[str, Any]:
        """Dictionaries, lists, numbers and strings, as JSON has them."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def survey(data: DetectionData, preprocessing: PreprocessingSettings) -> SplitSurvey:
    """The figures of a split; ``preprocessing`` gives the training size of its images."""
    notes = data.annotations
    counted = ~notes.crowds
    owner, labels, sizes = notes.images[counted], notes.labels[counted], notes.sizes
    sides, trained = (
        boxes[counted, 2:] - boxes[counted, :2] for boxes in (notes.boxes, resized_boxes(notes, preprocessing))
    )  # (M, 2) width and height, in the files and at the training size
    trained_size = np.sqrt(trained.prod(1))
    per_image = np.bincount(owner, minlength=len(sizes))
    ratio = sides[:, 1] / sides[:, 0]

    count = np.bincount(labels, minlength=len(data.class_names))
    present = np.unique(owner * len(data.class_names) + labels) % len(data.class_names)
    images_with = np.bincount(present, minlength=len(data.class_names))
    order = np.argsort(labels, kind="stable")
    size_by_class = np.split(trained_size[order], np.cumsum(count)[:-1])
    occurring = count[count > 0]
    keys, amount = np.unique(sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1], return_counts=True)
    commonest = np.argsort(-amount, kind="stable")[:COMMONEST]
    area = sizes.astype(np.int64).prod(1)
    return SplitSurvey(
        split=data.split,
        kind=data.kind,
        images=len(data),
        boxes=len(labels),
        crowds=int((~counted).sum()),
        empties=int((per_image == 0).sum()),
        classes=tuple(
            ClassFigures(name, ident, int(n), int(m), float(np.median(size)) if len(size) else 0.0)
            for name, ident, n, m, size in zip(data.class_names, data.category_ids, count, images_with, size_by_class)
        ),
        imbalance=float(occurring.max() / occurring.min()) if len(occurring) else 0.0,
        objects_mean=float(per_image.mean()),
        objects_median=float(np.median(per_image)),
        objects_max=int(per_image.max()),
        objects=Histogram.of(per_image, COUNT_BINS),
        stored=_sides(sides),
        trained=_sides(trained),
        ratios=Percentiles.of(ratio),
        ratio_histogram=Histogram.of(ratio, RATIO_BINS),
        image_median=_two(np.median(sizes, axis=0)),
        image_smallest=_two(sizes[area.argmin()]),
        image_largest=_two(sizes[area.argmax()]),
        image_sizes=tuple((int(keys[i] >> 32), int(keys[i] & 0xFFFFFFFF), int(amount[i])) for i in commonest),
        distinct_sizes=len(keys),
        trained_median=_two(np.median(resized_sizes(sizes, preprocessing), axis=0)),
        covered=Percentiles.of(sides.prod(1) / area[owner]),
    )


def _sides(sides: NDArray[np.float32]) -> Sides:
    """(M, 2) widths and heights."""
    area = sides.prod(1)
    size = np.sqrt(area)
    steps = range(HALF_OCTAVES * (LONGEST_SIDE.bit_length() - 1) + 1)
    total = max(1, len(sides))
    small, large = int((area < COCO_AREAS[0]).sum()), int((area > COCO_AREAS[1]).sum())
    return Sides(
        size=Percentiles.of(size),
        shorter=Percentiles.of(sides.min(1)) if len(sides) else Percentiles(),
        histogram=Histogram.of(size, [2.0 ** (step / HALF_OCTAVES) for step in steps]),
        small=small / total,
        medium=(len(sides) - small - large) / total,
        large=large / total,
    )


def _two(values: NDArray[Any]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
