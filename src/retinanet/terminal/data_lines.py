"""A data set in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from retinanet.common.printable import NAME, printable

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData

FEW = 12  # classes that are all named; of more, the most frequent ones are
FREQUENT = 4


def split_lines(*splits: DetectionData) -> Iterator[str]:
    """The data set and its splits, a line each."""
    for data in splits:
        boxes = f"{data.num_boxes} boxes of {len(data.class_names)} classes"
        yield f"{data.root}, split {data.split} ({data.kind}): {len(data)} images, {boxes}"


def class_line(names: Sequence[str], counts: Sequence[int]) -> str:
    """The classes with their numbers of boxes: all with their labels, or the most frequent of many."""
    labels = list(range(len(names)))
    if len(names) > FEW:
        labels = sorted(labels, key=lambda label: -counts[label])[:FREQUENT]
    shown = [f"{label} {printable(names[label], NAME)} ({counts[label]})" for label in labels]
    if len(names) > FEW:
        return f"labels, with boxes: {', '.join(shown)} and {len(names) - FREQUENT} more"
    return f"labels, with boxes: {', '.join(shown)}"


def fault_lines(data: DetectionData, limit: int = 3) -> Iterator[str]:
    """What was repaired or left out, with the first ``limit`` examples of each kind."""
    yield from (f"  {line}" for line in data.report.lines(limit))
