"""The column ``objects`` of Hugging Face's detection data sets: boxes with their classes, in several shapes."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from retinanet.data.formats.listing import number

BOX = ("bbox", "bboxes", "boxes", "box", "bounding_box")
LABEL: tuple[str, ...] = (
    "category",
    "categories",
    "label",
    "labels",
    "category_id",
    "category_ids",
    "class",
    "classes",
    "class_id",
)
LABEL += ("class_labels", "category_name", "name", "names")
CROWD = ("iscrowd", "is_crowd")
AREA = ("area", "areas")
LONGEST = 1 << 20  # characters of objects that are written as text

Row = tuple[list[float], Any, bool, float]
"""The four numbers as written, the class, whether it is a crowd region, and the area (NaN where unknown)."""


def rows_of_objects(objects: Any) -> Iterator[Row | None]:
    """The objects of an image; None for one that is malformed.

    They are a dictionary of lists, a list of dictionaries, or either of them as text in a CSV.
    """
    if isinstance(objects, str):
        objects = _parsed(objects)
    if objects is None:
        return
    if isinstance(objects, Mapping):
        objects = _of_lists(objects)
    if not isinstance(objects, list):
        yield None
        return
    for entry in objects:
        try:
            key = next(key for key in BOX if key in entry)
            values = [number(value) for value in entry[key]]
            if len(values) != 4:
                raise ValueError
        except (StopIteration, TypeError, ValueError):
            yield None
            continue
        label = next((entry[key] for key in LABEL if entry.get(key) is not None), None)
        crowd = next((entry[key] for key in CROWD if key in entry), 0)
        area = next((number(entry[key]) for key in AREA if key in entry), math.nan)
        yield values, label, crowd in (1, True), area


def _of_lists(columns: Mapping[str, Any]) -> Any:
    """A dictionary of lists as a list of dictionaries."""
    key = next((key for key in BOX if isinstance(columns.get(key), list)), None)
    if key is None:
        return [] if not columns or not any(columns.values()) else None
    count = len(columns[key])
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    if any(len(values) != count for name, values in lists.items() if name in (*BOX, *LABEL)):
        return None  # no one knows which class belongs to which box
    return [{name: values[i] for name, values in lists.items() if len(values) == count} for i in range(count)]


def _parsed(text: str) -> Any:
    """JSON, or Python's spelling of the same."""
    if len(text) > LONGEST:
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def class_names(features: Any) -> list[str] | None:
    """The names of a ClassLabel in the description of a column; None without one."""
    if isinstance(features, list):
        return next((names for each in features if (names := class_names(each))), None)
    if not isinstance(features, Mapping):
        return None
    names = features.get("names")
    if isinstance(names, Mapping):  # as in the header of a README
        names = list(names.values())
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return [str(name) for name in names]
    ordered = [key for key in LABEL if key in features]
    others = [key for key in features if key not in ordered]
    return next((found for key in (*ordered, *others) if (found := class_names(features[key]))), None)
