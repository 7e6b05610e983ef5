"""The report of a data set: every fault is counted, and named by file and line or annotation id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from retinanet.common.printable import printable

Action = Literal["repaired", "left out"]
RENAMED = "path written otherwise than on disk"
"""The kind of fault where the annotations spell the name of a file differently."""
KEPT = 20  # examples that are kept of each kind; the counts are always complete
LONGEST_EXAMPLE = 600  # characters


@dataclass
class Fault:
    """All faults of one kind."""

    kind: str
    action: Action
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def line(self, limit: int = 3) -> str:
        """The kind, the count, what was done about it and the first ``limit`` examples."""
        return with_examples(f"{self.kind} ({self.count} {self.action})", self.examples[:limit], self.count)


def with_examples(heading: str, examples: Sequence[str], count: int) -> str:
    """``heading: first example; second example; and 7 more``, for ``count`` cases in all."""
    more = [f"and {count - len(examples)} more"] if count > len(examples) else []
    return f"{heading}: {'; '.join([*examples, *more])}"


@dataclass
class Facts:
    """Figures that the readers note for :mod:`retinanet.analysis.doctor`. None of them is a fault by itself."""

    classes: dict[int, str] = field(default_factory=dict)
    """The declared class ids with their names exactly as written; empty where the layout has no ids."""
    used: Counter[int] = field(default_factory=Counter)
    """Number of boxes of each declared class id."""
    unknown: Counter[int] = field(default_factory=Counter)
    """Number of boxes of each class id that is not declared; they are left out."""
    parents: list[str] = field(default_factory=list)
    """Categories without boxes that are only the supercategory of others; they are left out."""
    boxes: int = 0
    """Number of boxes in images that can be used."""
    polygons: int = 0
    """Number of boxes that were made from an outline."""
    fitting: dict[str, int] = field(default_factory=dict)
    """How many boxes lie in their image, for each possible meaning of their four numbers. Where nearly all fit, it only
    has the layout's own meaning."""
    fractional: int = 0
    """Boxes in a layout of pixels that lie within the first pixel and a half."""
    pixels: int = 0
    """Boxes in a layout of fractions with a number far above 1."""
    reach: tuple[float, float] = (1.0, 1.0)
    """Right and lower ends of the boxes (percentile 99.5), in units of the image's sides."""
    turned: list[int] = field(default_factory=list)
    """Images that EXIF rotates by a quarter turn: indices in the data set as opened."""


@dataclass
class Report:
    """The faults of a data set, as its readers report them.

    ``strict`` refuses ``faults``. ``notes`` are worth a line but not faults: background images, rounding, how an
    ambiguous layout was read.
    """

    faults: dict[str, Fault] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)

    def add(self, kind: str, action: Action, example: str | Callable[[], str]) -> None:
        """Count one fault. A callable example is only called while examples are still kept."""
        fault = self.faults.setdefault(kind, Fault(kind, action))
        fault.count += 1
        if len(fault.examples) < KEPT:
            fault.examples.append(printable(example if isinstance(example, str) else example(), LONGEST_EXAMPLE))

    def reason(self) -> str:
        """One line on the most frequent fault that left something out: why a split is empty. "" without such faults."""
        left_out = [fault for fault in self.faults.values() if fault.action == "left out"]
        return max(left_out, key=lambda fault: fault.count).line(1) if left_out else ""

    @property
    def count(self) -> int:
        return sum(fault.count for fault in self.faults.values())

    def lines(self, limit: int = 3) -> list[str]:
        """One line for each kind of fault, with its first ``limit`` examples, then the notes."""
        return [fault.line(limit) for fault in self.faults.values()] + self.notes
