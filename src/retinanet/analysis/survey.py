"""What is in a split, in plain figures: classes, sizes, shapes, crowding. No judgement: that is the doctor's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.config.settings import PreprocessingSettings
from retinanet.data.dataset import DetectionData
from retinanet.ops.resize import resized_size

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
COCO_AREAS = (32.0**2, 96.0**2)  # where COCO parts small from medium and large objects
COMMONEST = 5  # image sizes named
HALF_OCTAVES = 2  # bins of the histograms of sides per factor of 2
LONGEST_SIDE = 1 << 14  # pixels, the end of those histograms; the last bin holds all above
RATIO_BINS = tuple(2.0 ** (step / 4) for step in range(-16, 17))  # h / w from 1/16 to 16, in quarters of an octave
COUNT_BINS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51, 101, 201, 501, 1001)  # objects of an image


@dataclass(frozen=True)
class Percentiles:
    """Values at 1, 5, 25, 50, 75, 95 and 99 of 100; zeros where there is nothing to count."""

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
    """``counts[i]`` values lie from ``edges[i]`` up to ``edges[i + 1]``; what lies outside is in the outermost bins."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: NDArray[Any], edges: Sequence[float]) -> Histogram:
        """``edges`` rising; the last bin is open."""
        place = np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
        return cls(tuple(edges), tuple(np.bincount(place, minlength=len(edges) - 1).tolist()))


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
    """One split. Boxes are those that count; crowd regions (COCO's iscrowd, VOC's difficult) are only counted apart."""

    split: str
    kind: str
    images: int
    boxes: int
    crowds: int
    empties: int
    """Images without a box (crowd regions apart)."""
    classes: tuple[ClassFigures, ...]
    imbalance: float
    """Boxes of the commonest class for each of the rarest that occurs; 0 without boxes."""
    objects_mean: float
    objects_median: float
    objects_max: int
    objects: Histogram
    """Boxes of an image."""
    stored: Sides
    """In the pixels of the files."""
    trained: Sides
    """In the pixels that the network is shown."""
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
    """Of the share of its image that a box covers."""

    def plain(self) -> dict[str, Any]:
        """Dictionaries, lists, numbers and strings, as JSON has them."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def training_sizes(sizes: NDArray[np.int32], settings: PreprocessingSettings) -> NDArray[np.int32]:
    """(N, 2) heights and widths of images -> (N, 2) what they are resized to; each size is computed once."""
    keys, inverse = np.unique(sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1], return_inverse=True)
    resized = [resized_size(key >> 32, key & 0xFFFFFFFF, settings) for key in keys.tolist()]
    return np.array(resized, np.int32).reshape(-1, 2)[inverse]


def survey(data: DetectionData, preprocessing: PreprocessingSettings) -> SplitSurvey:
    """Count a split; ``preprocessing`` says at what size its images are trained on."""
    all_of_it = data.annotations
    counted = ~all_of_it.crowds
    owner = all_of_it.images[counted]
    boxes, labels = all_of_it.boxes[counted], all_of_it.labels[counted]
    sizes = all_of_it.sizes
    resized = training_sizes(sizes, preprocessing)
    sides = boxes[:, 2:] - boxes[:, :2]  # (M, 2) width, height
    scale = (resized / sizes).astype(np.float32)[:, ::-1]
    trained = sides * scale[owner]
    trained_size = np.sqrt(trained.prod(1))
    per_image = np.bincount(owner, minlength=len(sizes))
    ratio = sides[:, 1] / sides[:, 0]

    count = np.bincount(labels, minlength=len(data.class_names))
    present = np.unique(owner * len(data.class_names) + labels) % len(data.class_names)
    spread = np.bincount(present, minlength=len(data.class_names))
    order = np.argsort(labels, kind="stable")
    parts = np.split(trained_size[order], np.cumsum(count)[:-1])
    found = count[count > 0]
    keys, amount = np.unique(sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1], return_counts=True)
    commonest = np.argsort(-amount, kind="stable")[:COMMONEST]
    area = sizes.astype(np.int64).prod(1)
    return SplitSurvey(
        split=data.split,
        kind=data.kind,
        images=len(data),
        boxes=len(boxes),
        crowds=int((~counted).sum()),
        empties=int((per_image == 0).sum()),
        classes=tuple(
            ClassFigures(name, ident, int(n), int(m), float(np.median(part)) if len(part) else 0.0)
            for name, ident, n, m, part in zip(data.class_names, data.category_ids, count, spread, parts)
        ),
        imbalance=float(found.max() / found.min()) if len(found) else 0.0,
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
        trained_median=_two(np.median(resized, axis=0)),
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
