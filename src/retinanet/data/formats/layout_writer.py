"""What the writers of all layouts share: the images that they are given and the report that they fill."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retinanet.common.atomic_files import replacing
from retinanet.data.dataset import DetectionData
from retinanet.data.faults import with_examples

Indices = NDArray[np.int64]
Chosen = dict[str, tuple[DetectionData, Indices]]
"""For each split of the copy the data set and the indices of the images that it is made of."""
NO_OUTLINES = "images whose boxes have areas of outlines, which {} does not have"


@dataclass
class Written:
    """The copy of a data set, and how it differs from the original."""

    folder: Path
    images: dict[str, int] = field(default_factory=dict)
    """Number of images of each split, by its name in the copy."""
    boxes: dict[str, int] = field(default_factory=dict)
    """Number of boxes of each split, crowd regions included."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    """Everything that was left out, renamed or changed, by its kind."""

    def add(self, kind: str, example: str) -> None:
        self.changes.setdefault(kind, []).append(example)

    def lines(self, limit: int = 3) -> list[str]:
        """One line for each kind of change, with its first ``limit`` examples."""
        return [
            with_examples(f"{kind} ({len(examples)})", examples[:limit], len(examples))
            for kind, examples in self.changes.items()
        ]


@dataclass(frozen=True)
class ImageEntry:
    """One image of the copy with its n boxes."""

    split: str
    name: str  # of the copied file
    source: str  # the original's name, as messages show it
    ident: int
    size: tuple[int, int]  # height, width
    boxes: NDArray[np.float64]  # (n, 4) x1 y1 x2 y2: the shortest decimals that are the same in float32
    labels: list[int]
    crowds: list[bool]
    areas: list[float]

    def has_outlines(self) -> bool:
        """Whether an area is not that of its box."""
        box_areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], 1)
        return bool((np.abs(box_areas - self.areas) > 1e-3 * box_areas).any())

    def box_text(self, number: int, class_names: list[str]) -> str:
        """A box, as messages show it."""
        numbers = " ".join(f"{value:g}" for value in self.boxes[number].tolist())
        return f"{self.source}: {class_names[self.labels[number]]} {numbers}"


class LayoutWriter(Protocol):
    """Writes the annotations of one layout."""

    by_stem: bool
    """The layout finds annotations by the image's name without its suffix, which must be a known one."""
    unsafe: str
    """A regular expression for what an image's name must not contain."""

    def location(self, split: str, name: str) -> Path:
        """The path of an image in the copy."""

    def add(self, image: ImageEntry) -> int:
        """Write the annotations of one image, or keep them for :meth:`final_files`; returns the number of boxes."""

    def final_files(self) -> Iterable[tuple[Path, str]]:
        """The files that make the folder a data set: paths and texts."""


def save_texts(files: Iterable[tuple[Path, str]]) -> None:
    """Write texts. The files get their names when all of them are complete."""
    with ExitStack() as stack:
        for path, text in files:
            part = stack.enter_context(replacing(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8", newline="\n")
