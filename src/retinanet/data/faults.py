"""What is wrong with a data set: every fault counted, and named by file and line or annotation id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from retinanet.common.printable import printable

Action = Literal["repaired", "left out"]
RENAMED = "path written otherwise than on disk"
"""The kind of fault where a file was found under another spelling than the annotations have."""
KEPT = 20  # examples remembered of each kind; the counts are always complete
EXAMPLE = 600  # characters of one


@dataclass
class Fault:
    """All the faults of one kind."""

    kind: str
    action: Action
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def line(self, limit: int = 3) -> str:
        shown = self.examples[:limit]
        more = [f"and {self.count - len(shown)} more"] if self.count > len(shown) else []
        return f"{self.kind} ({self.count} {self.action}): {'; '.join(shown + more)}"


@dataclass
class Facts:
    """What was seen while a split was read that is no fault by itself; :mod:`retinanet.analysis.doctor` reads it."""

    classes: dict[int, str] = field(default_factory=dict)
    """The class ids that the files declare, with their names exactly as written; empty where the layout has no ids."""
    used: Counter[int] = field(default_factory=Counter)
    """Boxes of each declared class id."""
    unknown: Counter[int] = field(default_factory=Counter)
    """Boxes of each class id that is not declared; they are left out."""
    parents: list[str] = field(default_factory=list)
    """Categories without boxes that are only the heading of others, left out."""
    boxes: int = 0
    """Boxes read, in images that can be used."""
    polygons: int = 0
    """Boxes made from an outline."""
    fitting: dict[str, int] = field(default_factory=dict)
    """How many of them lie in their image, for each meaning that their four numbers may have; only the layout's own
    meaning where nearly all fit."""
    fractional: int = 0
    """Boxes in a layout of pixels that lie within the first pixel and a half."""
    pixels: int = 0
    """Boxes in a layout of fractions with a number far above 1."""
    reach: tuple[float, float] = (1.0, 1.0)
    """How far right and down the boxes go (99.5 of 100), in units of the image's sides."""
    turned: list[int] = field(default_factory=list)
    """Images that EXIF turns by a quarter, by their place in the data as opened."""


@dataclass
class Report:
    """What was found when a data set was opened.

    ``faults`` are what ``strict`` refuses; ``notes`` are facts worth a line that are no faults (background images,
    rounding, how an ambiguous layout was read).
    """

    faults: dict[str, Fault] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)

    def add(self, kind: str, action: Action, example: str | Callable[[], str]) -> None:
        """Count one fault; a callable example is only made while examples are still collected."""
        fault = self.faults.setdefault(kind, Fault(kind, action))
        fault.count += 1
        if len(fault.examples) < KEPT:
            fault.examples.append(printable(example if isinstance(example, str) else example(), EXAMPLE))

    def reason(self) -> str:
        """The commonest fault by which something was left out, in one line; "" for none.

        Told where nothing is left of a split.
        """
        left_out = [fault for fault in self.faults.values() if fault.action == "left out"]
        return max(left_out, key=lambda fault: fault.count).line(1) if left_out else ""

    @property
    def count(self) -> int:
        return sum(fault.count for fault in self.faults.values())

    def lines(self, limit: int = 3) -> list[str]:
        """One line for each kind of fault, with its first ``limit`` examples, then the notes."""
        return [fault.line(limit) for fault in self.faults.values()] + self.notes
