"""Recognises the columns of a CSV of boxes, with or without a header."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from retinanet.data.formats.image_lookup import has_suffix
from retinanet.data.formats.listing import Meaning, number

IMAGE: tuple[str, ...] = (
    "imagepath",
    "filename",
    "path",
    "imageid",
    "image",
    "imagename",
    "imgpath",
    "imagefile",
    "filepath",
    "file",
)
IMAGE += ("img", "imgname", "patientid")
LABEL: tuple[str, ...] = (
    "classname",
    "class",
    "label",
    "labelname",
    "category",
    "categoryname",
    "name",
    "object",
    "labels",
)
LABEL += ("classid", "categoryid", "labelid")
TEXT = ("bbox", "boundingbox", "box", "bboxes", "boxes")
SIDES = (("imagewidth", "imgwidth", "width"), ("imageheight", "imgheight", "height"))
BOXES: tuple[tuple[Meaning, tuple[str, str, str, str]], ...] = (
    ("corners", ("xmin", "ymin", "xmax", "ymax")),
    ("corners", ("x1", "y1", "x2", "y2")),
    ("corners", ("x0", "y0", "x1", "y1")),
    ("corners", ("left", "top", "right", "bottom")),
    ("corners", ("bboxx1", "bboxy1", "bboxx2", "bboxy2")),
    ("corners", ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax")),
    ("corner and sides", ("x", "y", "w", "h")),
    ("corner and sides", ("x", "y", "width", "height")),
    ("corner and sides", ("left", "top", "width", "height")),
    ("corner and sides", ("xmin", "ymin", "width", "height")),
    ("corner and sides", ("bboxx", "bboxy", "bboxwidth", "bboxheight")),
    ("corner and sides", ("bboxx", "bboxy", "bboxw", "bboxh")),
    ("centre and sides", ("xcenter", "ycenter", "width", "height")),
    ("centre and sides", ("cx", "cy", "w", "h")),
)
"""The meanings of names of columns, in lower case and without signs; the first that are all there are used."""
GROUP = "isgroupof"  # Open Images: a box around many objects


@dataclass(frozen=True)
class Columns:
    """The indices of the columns that are read."""

    image: int
    label: int | None
    box: tuple[int, ...]
    """Four columns of a number each, or one with all four as text: "[x, y, w, h]"."""
    meaning: Meaning
    size: tuple[int, int] | None = None
    """Width and height of the image."""
    group: int | None = None
    header: bool = True


def recognise(rows: Sequence[Sequence[str]]) -> Columns | None:
    """The columns of a table.

    Args:
        rows: the first rows of the file.
    """
    return (_named(rows[0]) or _unnamed(rows)) if rows else None


def _named(header: Sequence[str]) -> Columns | None:
    there: dict[str, int] = {}
    for index, name in enumerate(header):
        there.setdefault(re.sub("[^a-z0-9]", "", name.lower()), index)
    image = next((there[name] for name in IMAGE if name in there), None)
    label = next((there[name] for name in LABEL if name in there), None)
    if image is None:
        return None
    named = next(((meaning, names) for meaning, names in BOXES if all(name in there for name in names)), None)
    text = next((there[name] for name in TEXT if name in there), None)
    if named is None and text is None:
        return None
    meaning, names = named or ("corner and sides", ())
    size = [next((there[name] for name in sides if name in there and name not in names), None) for sides in SIDES]
    box = tuple(there[name] for name in names) or (text,)
    return Columns(
        image,
        label,
        tuple(index for index in box if index is not None),
        meaning,
        (size[0], size[1]) if size[0] is not None and size[1] is not None else None,
        there.get(GROUP),
    )


def _unnamed(rows: Sequence[Sequence[str]]) -> Columns | None:
    """keras-retinanet's path, x1, y1, x2, y2, class; an image without objects has empty columns."""
    rows = [row for row in rows if row]
    for row in rows:
        values = [cell.strip() for cell in row[1:5]]
        if len(row) != 6 or not (not any(values) or all(math.isfinite(number(value)) for value in values)):
            return None
    if not any(has_suffix(row[0].strip()) for row in rows):
        return None
    return Columns(0, 5, (1, 2, 3, 4), "corners", header=False)


def four_numbers(text: str) -> list[float]:
    """The numbers of a text as "[834.0, 222.0, 56.0, 36.0]"; NaN for what is no number."""
    return [number(part) for part in re.split(r"[\s,;]+", text.strip().strip("[](){}").strip())]
