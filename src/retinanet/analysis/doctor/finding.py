"""A finding, helpers for its text, and a split with the arrays that several checks need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.doctor.overlaps import overlapping
from retinanet.common.printable import NAME, printable
from retinanet.config.model_settings import ModelSettings
from retinanet.data.annotations import resized_sizes
from retinanet.data.dataset import DetectionData
from retinanet.data.formats.split_folders import plain_name

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 20  # that are kept of each finding
NAMES = 8  # classes that are named in a text


@dataclass(frozen=True)
class Finding:
    """Something that a person should know before training.

    An error spoils training or evaluation: wrong boxes, data that is left out, images in two splits. A warning may cost
    accuracy, or is repaired while reading. A note is worth knowing.
    """

    code: str
    """The theme and the check, such as "labels.off-by-one"."""
    severity: Severity
    split: str
    """The split's name on disk; "" for the whole data set."""
    count: int
    """Number of boxes, images, classes or files."""
    text: str
    """One line: what is wrong, with figures."""
    remedy: str
    """One line: what to do."""
    examples: tuple[str, ...] = ()
    """Up to 20: file and line, annotation id, image."""


def rank(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; else the order stays."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counted(n: int, noun: str, plural: str = "") -> str:
    """3, "box", "boxes" -> "3 boxes"; 1 -> "1 box"."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def percent(part: float, whole: float = 1.0) -> str:
    """A share with two digits: 12 %, 1.2 %, 0.12 %."""
    share = 100 * part / whole if whole else 0.0
    if 99 < share < 100:  # only all of them are 100 %
        return f"{math.floor(share * 10) / 10:g} %"
    return f"{share:.0f} %" if share >= 9.95 or share == 0 else f"{share:.2g} %"


def listed(names: Sequence[str], limit: int = NAMES) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name, NAME) for name in names[:limit]) + more


class Split:
    """A split with arrays that are computed once. They leave out crowd regions."""

    def __init__(self, name: str, data: DetectionData, settings: ModelSettings) -> None:
        self.name, self.data, self.settings = name, data, settings

    @property
    def role(self) -> str:
        """train, val, test, trainval, …"""
        return plain_name(self.name)

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """(M,) indices of these boxes in ``data.annotations``."""
        return np.flatnonzero(~self.data.annotations.crowds)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(M, 4)"""
        return self.data.annotations.boxes[self.indices]

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """(M,)"""
        return self.data.annotations.labels[self.indices]

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """(M,) index of each box's image, ascending."""
        return self.data.annotations.images[self.indices].astype(np.int32)

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """(N,) number of boxes of each image."""
        return np.bincount(self.owner, minlength=len(self.data))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(K,) number of boxes of each class."""
        return np.bincount(self.labels, minlength=len(self.data.class_names))

    @cached_property
    def sides(self) -> NDArray[np.float32]:
        """(M, 2) width and height in pixels of the file."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @cached_property
    def shorter(self) -> NDArray[np.float32]:
        """(M,) the shorter side in pixels of the file."""
        return self.sides.min(1) if len(self.boxes) else np.zeros(0, np.float32)

    @cached_property
    def trained_shorter(self) -> NDArray[np.float32]:
        """(M,) the shorter side of each box in pixels at the training size."""
        return self.shorter * self.scale[self.owner]

    @cached_property
    def scale(self) -> NDArray[np.float32]:
        """(N,) pixels of the network's input for each pixel of the file."""
        sizes = self.data.annotations.sizes
        return np.sqrt((resized_sizes(sizes, self.settings.preprocessing) / sizes).prod(1)).astype(np.float32)

    @cached_property
    def relative(self) -> NDArray[np.float32]:
        """(M, 4) the boxes in units of the image's sides."""
        sizes = self.data.annotations.sizes[:, [1, 0, 1, 0]].astype(np.float32)
        return self.boxes / sizes[self.owner]

    @cached_property
    def overlaps(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Pairs of boxes of one image that NMS would not keep both: indices into :attr:`boxes`, and their IoU."""
        least = min(0.9, max(0.05, self.settings.postprocessing.nms_iou))
        return overlapping(self.boxes, self.owner, least)

    @cached_property
    def names(self) -> list[str]:
        """The images' paths."""
        return self.data.annotations.paths

    def box_examples(self, which: NDArray[Any]) -> tuple[str, ...]:
        """The names of the first boxes; ``which``: indices into :attr:`boxes`, or a mask."""
        chosen = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return tuple(self.data.box_name(int(self.indices[i])) for i in chosen[:EXAMPLES])

    def image_examples(self, which: NDArray[Any]) -> tuple[str, ...]:
        """The names of the first images; ``which``: indices of images, or a mask."""
        chosen = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return tuple(self.data.image_name(int(i)) for i in chosen[:EXAMPLES])
