"""Detections as plain values for result files: rows of a table, records, and cells that no spreadsheet runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("image", "name", "score", "x1", "y1", "x2", "y2")
"""Of a table with a row for each detection; x1 y1 x2 y2 in pixels of the image."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of cells that spreadsheets run."""
Row = tuple[str, int, float, list[float]]
"""Class name, label, score and box of a detection."""


def rows_of(names: list[str], labels: Tensor, scores: Tensor, boxes: Tensor) -> Iterator[Row]:
    """The rows of these detections, as Python values."""
    return zip(names, labels.tolist(), scores.tolist(), boxes.tolist(), strict=True)


def record(row: Row) -> dict[str, Any]:
    """A detection as the server and the files of videos write it."""
    name, label, score, box = row
    return {"name": name, "label": label, "score": score, "box": box}


def csv_cells(image: str, row: Row) -> list[str]:
    """The cells of ``COLUMNS``. A class name that a spreadsheet would run gets an apostrophe, a path ``./``."""
    name, _, score, box = row
    cells = [f"./{image}" if runs(image) else image, f"'{name}" if runs(name) else name, f"{score:.6g}"]
    return cells + [f"{side:.2f}" for side in box]


def write_csv(file: TextIO, image: str, rows: Iterator[Row]) -> None:
    """A table of one image's detections, with its head."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows(csv_cells(image, row) for row in rows)


def runs(text: str) -> bool:
    """Whether a spreadsheet would run a cell with this text as a formula."""
    return text.lstrip(" ").startswith(FORMULA)


def source_name(source: Any) -> str | None:
    """The path or URL that an image is from; None for pixels in memory."""
    path = getattr(source, "filename", None) if not isinstance(source, str | os.PathLike) else source
    return os.fspath(path) or None if isinstance(path, str | os.PathLike) else None
