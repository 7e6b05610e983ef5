"""What is wrong with a data set: every fault counted, and named by file and line or annotation id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["repaired", "left out"]
KEPT = 20  # examples remembered of each kind; the counts are always complete


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
class Report:
    """What was found when a data set was opened.

    ``faults`` are what ``strict`` refuses; ``notes`` are facts worth a line that are no faults (background pictures,
    rounding, how an ambiguous layout was read).
    """

    faults: dict[str, Fault] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, action: Action, example: str | Callable[[], str]) -> None:
        """Count one fault; a callable example is only made while examples are still collected."""
        fault = self.faults.setdefault(kind, Fault(kind, action))
        fault.count += 1
        if len(fault.examples) < KEPT:
            fault.examples.append(example if isinstance(example, str) else example())

    @property
    def count(self) -> int:
        return sum(fault.count for fault in self.faults.values())

    def lines(self, limit: int = 3) -> list[str]:
        """One line for each kind of fault, with its first ``limit`` examples, then the notes."""
        return [fault.line(limit) for fault in self.faults.values()] + self.notes
