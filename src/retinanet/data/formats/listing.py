"""The content of annotation files in flat arrays, before it is checked against the images."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.common.text import require_regular
from retinanet.data.faults import Report
from retinanet.data.formats.safe_paths import files_below
from retinanet.data.image_io import SUFFIXES

Meaning = Literal["corners", "corner and sides", "centre and sides"]
"""The meaning of the four numbers of a box: x1 y1 x2 y2, x1 y1 w h or cx cy w h."""


INCOMPLETE = ".retinanet-incomplete"
"""A file of this name marks a folder as a copy that is being written."""
WHOLE = "images"
"""The name of the split, where there is one list of images without the name of a split."""


@dataclass
class Listing:
    """A layout's reader adds images and boxes to it; boxes may come in any order."""

    class_names: list[str]
    category_ids: list[int]
    """The data set's own id of each class."""
    box_name: Callable[[int, int], str]
    """(image, reference) -> the box as messages name it: a file and line, or an annotation id."""
    fractions: bool = False
    """Boxes are fractions of the image's sides instead of pixels."""
    meaning: Meaning = "corners"
    """How the files write a box; :attr:`boxes` are always corners."""
    paths: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    sizes: array = field(default_factory=lambda: array("i"))
    """Height and width as annotated, 0 where unknown."""
    images: array = field(default_factory=lambda: array("i"))
    """Index of each box's image."""
    boxes: array = field(default_factory=lambda: array("d"))
    """x1 y1 x2 y2 of each box."""
    labels: array = field(default_factory=lambda: array("i"))
    crowds: array = field(default_factory=lambda: array("b"))
    areas: array = field(default_factory=lambda: array("d"))
    """NaN where the files give no area."""
    references: array = field(default_factory=lambda: array("q"))
    unlabelled: list[int] = field(default_factory=list)
    """Images without an annotation file: they are background, if they can be used."""
    sheet: str = "a label file"
    """What the layout calls an annotation file."""

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
        """Keep some of the boxes, and replace the labels (of all boxes)."""
        self.boxes = array("d", np.frombuffer(self.boxes, np.float64).reshape(-1, 4)[keep].tobytes())
        self.labels = array("i", labels[keep].tobytes())
        for name in ("images", "crowds", "areas", "references"):
            values = getattr(self, name)
            setattr(self, name, array(values.typecode, np.array(values)[keep].tobytes()))


@dataclass
class Layout:
    """A data set as recognised on disk."""

    kind: str
    """The name of the layout, such as COCO or Pascal VOC."""
    root: Path
    counts: Mapping[str, Callable[[], int]]
    """For each split, by its name on disk, a function that counts its images."""
    read: Callable[[str, Report], Listing]
    """Reads one split, by its name on disk."""
    any_split: bool = False
    """There is one list of images without the name of a split: it is used for every name."""


def shown(path: str | Path, root: Path) -> str:
    """A path as messages show it: relative to the data set where it lies inside."""
    path = Path(path)
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def number(text: object) -> float:
    """A number as annotation files write it; NaN for anything else."""
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        return math.nan
    if isinstance(text, str) and (not text.isascii() or "_" in text):  # float() also accepts 1_000 and １
        return math.nan
    try:
        return float(text)
    except (ValueError, OverflowError):
        return math.nan


def numbered(stems: list[str]) -> list[int]:
    """Image ids for layouts without ids: the file names, if all are different numbers (as COCO's), else 1, 2, …"""
    if all(stem.isascii() and stem.isdigit() and len(stem) < 18 for stem in stems):
        ids = [int(stem) for stem in stems]
        if len(set(ids)) == len(ids):
            return ids
    return list(range(1, len(stems) + 1))


def beginning(path: Path, length: int) -> str:
    """The first characters of a text file, by which a layout is recognised; empty where it cannot be read."""
    try:
        require_regular(path)
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(length)
    except OSError:
        return ""


def image_files(folder: Path) -> Iterator[Path]:
    """The images in a folder and its subfolders, in the order of their names, without hidden files.

    They are recognised by their suffix. So files that cannot be opened (a broken link, a pipe) are included, and
    reported when they are opened.
    """
    for path in files_below(folder):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path
