"""What annotation files say, in flat arrays, before any of it is held against the images."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.data.faults import Report
from retinanet.data.formats.safe_paths import files_below
from retinanet.data.image_io import SUFFIXES

Meaning = Literal["corners", "corner and sides", "centre and sides"]
"""What the four numbers of a box say: x1 y1 x2 y2, x1 y1 w h or cx cy w h."""


@dataclass
class Listing:
    """Filled by a format's reader, image after image and box after box; boxes may come in any order."""

    class_names: list[str]
    category_ids: list[int]
    """The data set's own id of each class."""
    box_name: Callable[[int, int], str]
    """(image, reference) -> where a person finds the box: a file and line, or an annotation id."""
    fractions: bool = False
    """Boxes are in units of the image's sides instead of pixels."""
    meaning: Meaning = "corners"
    """How the files write a box; :attr:`boxes` are corners always."""
    paths: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    sizes: array = field(default_factory=lambda: array("i"))
    """Height and width as annotated, 0 where unknown."""
    images: array = field(default_factory=lambda: array("i"))
    """For each box the image it lies in."""
    boxes: array = field(default_factory=lambda: array("d"))
    """x1 y1 x2 y2 of each box."""
    labels: array = field(default_factory=lambda: array("i"))
    crowds: array = field(default_factory=lambda: array("b"))
    areas: array = field(default_factory=lambda: array("d"))
    """NaN where the area is that of the box."""
    references: array = field(default_factory=lambda: array("q"))
    unlabelled: list[int] = field(default_factory=list)
    """Images without a file of annotations: background, where the image can be used."""
    sheet: str = "a label file"
    """What those lack."""

    def add_image(self, path: str | Path, ident: int, size: tuple[int, int] = (0, 0)) -> int:
        """Returns the image's index, for :meth:`add_box`."""
        self.paths.append(str(path))
        self.ids.append(ident)
        self.sizes.extend(size)
        return len(self.paths) - 1

    def add_box(
        self,
        image: int,
        box: tuple[float, float, float, float],
        label: int,
        reference: int,
        crowd: bool = False,
        area: float = math.nan,
    ) -> None:
        self.images.append(image)
        self.boxes.extend(box)
        self.labels.append(label)
        self.references.append(reference)
        self.crowds.append(crowd)
        self.areas.append(area)

    def keep_boxes(self, keep: NDArray[np.bool_], labels: NDArray[np.int32]) -> None:
        """Drop boxes, and give all boxes new labels."""
        self.boxes = array("d", np.frombuffer(self.boxes, np.float64).reshape(-1, 4)[keep].tobytes())
        self.labels = array("i", labels[keep].tobytes())
        for name in ("images", "crowds", "areas", "references"):
            values = getattr(self, name)
            setattr(self, name, array(values.typecode, np.array(values)[keep].tobytes()))


@dataclass
class Layout:
    """A data set as recognised on disk."""

    kind: str
    """COCO, Pascal VOC or YOLO."""
    root: Path
    counts: Mapping[str, Callable[[], int]]
    """For each split, by its name on disk, how to count its images."""
    read: Callable[[str, Report], Listing]
    """Read one split, by its name on disk."""
    any_split: bool = False
    """There is one list of images whose name tells no split: it answers to every name."""


def shown(path: str | Path, root: Path) -> str:
    """A path as messages show it: relative to the data set where it lies inside."""
    path = Path(path)
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def number(text: object) -> float:
    """A number as annotation files write it; NaN for what is none, so that one check finds both."""
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        return math.nan
    if isinstance(text, str) and (not text.isascii() or "_" in text):  # Python's own numbers: 1_000, １
        return math.nan
    try:
        return float(text)
    except (ValueError, OverflowError):
        return math.nan


def numbered(stems: list[str]) -> list[int]:
    """Image ids for layouts that have none: file names where all are different numbers (as COCO's), else 1, 2, …"""
    if all(stem.isascii() and stem.isdigit() and len(stem) < 18 for stem in stems):
        ids = [int(stem) for stem in stems]
        if len(set(ids)) == len(ids):
            return ids
    return list(range(1, len(stems) + 1))


def image_files(folder: Path) -> Iterator[Path]:
    """The images in a folder and its subfolders, in the order of their names; hidden files are passed over.

    By their endings: what cannot be opened (a broken link, a pipe) is among them, and reported where it is opened.
    """
    for path in files_below(folder):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path
