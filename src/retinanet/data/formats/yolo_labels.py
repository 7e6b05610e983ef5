"""Reads the lines of YOLO's label files, and decides the format of lines with more columns than a box.

``class cx cy w h`` is a box. It may be followed by a confidence, a track id or both (predictions), or by keypoints. But
``class x1 y1 x2 y2 x3 y3 …`` is a polygon, of which the bounding box is read. Some lines fit two of these formats. Then
the other lines of the split decide; where they cannot, the line is left out and reported.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.common.text import SHEET, TextError, lines, read_text
from retinanet.data.faults import Report
from retinanet.data.formats.listing import Listing, number

POLYGON, PREDICTED, POSED, APART, CROSSED, OUT, SHIFTED, WHOLE = (1 << bit for bit in range(8))
"""The formats that a line fits, as bits. POLYGON: points of a polygon. PREDICTED: a box with a confidence or track id.
POSED: a box with keypoints inside.

A POSED line is an unlikely polygon where the sides of the box would be a point far from all others, or every third
number is 0 or 1 (APART), and where its edges cross (CROSSED).

A line of six columns: columns 2 to 5 are a box that sticks out of the image (OUT), columns 3 to 6 are a box in the
image (SHIFTED), the last column is a whole number above 1 (WHOLE)."""
LOW, HIGH = -0.1, 1.1  # range of a coordinate: polygons that were drawn carelessly over the edge stay inside
SURE = 3  # lines that fit the same two formats: chance does not explain so many
ODD = 0.05  # share of lines that do not fit the format of the other lines of the same length
MOST_NUMBERS = 100_000  # classes without names
LONGEST_LINE = 1 << 20  # characters, a polygon of some 50 000 points
CROSSING = 0.2  # share of self-crossing polygons above which the lines are not polygons
SURE_SHARE = 0.2  # share of six-column lines that have no confidence before the box, from which no line has
POINTS = 200  # polygons with more points are not checked for crossing edges
PREDICTION = "confidence or track id beside a box, passed over"

Box = tuple[float, float, float, float]


@dataclass
class LongLines:
    """The lines of a split with more columns than a box; :meth:`settle` decides their format when all are read."""

    keypoints: tuple[int, int] | None = None
    """Number of keypoints, and of columns for each, as the data set declares them."""
    posed: int = 0
    """Number of lines that have the columns of these keypoints."""
    odd: Counter[int] = field(default_factory=Counter)
    """By number of columns: lines that fit no format, and have a whole number that cannot be a coordinate."""
    repeated: bool = False
    """The last of six columns is the same whole number above 1 on two lines of a file, so it is not a track id."""
    uneven: bool = False
    """Such a number is not a multiple of 5, or above 360: so not all are angles as people choose them."""
    indices: array = field(default_factory=lambda: array("q"))
    """Index of each line's box in the listing; it is the box of the polygon, if the line fits one."""
    columns: array = field(default_factory=lambda: array("i"))
    fits: array = field(default_factory=lambda: array("h"))
    boxes: array = field(default_factory=lambda: array("d"))
    """The box of columns 2 to 5 of each line, as corners."""

    def add(self, listing: Listing, columns: int, fits: int, box: Box) -> None:
        """Note the line of the box that is added to the listing next."""
        self.indices.append(len(listing.labels))
        self.columns.append(columns)
        self.fits.append(fits)
        self.boxes.extend(box)

    def settle(self, listing: Listing, report: Report) -> None:
        """Correct or drop the boxes in the listing, when the whole split is read."""
        if self.keypoints and self.posed:
            count, each = self.keypoints
            report.notes.append(
                f"{self.posed} lines have {count} keypoints of {each} columns beside their box (kpt_shape); "
                "the box is read"
            )
        if not self.indices:
            return
        indices, columns = np.array(self.indices), np.array(self.columns)
        fits = np.array(self.fits)
        predicted, posed, unclear = self._judge(columns, fits)

        def line(i: int) -> str:
            box = self.indices[i]
            return f"{listing.box_name(listing.images[box], listing.references[box])}: {self.columns[i]} columns"

        for i in np.flatnonzero(unclear).tolist():
            text = f"{line(i)}, {_formats(self.columns[i], self.fits[i])}"
            report.add("line that fits two formats", "left out", text)
            report.facts.used[listing.category_ids[listing.labels[self.indices[i]]]] -= 1
        for i in np.flatnonzero(predicted).tolist():
            report.add(PREDICTION, "repaired", partial(line, i))
        if posed.any():
            report.add(
                "box with keypoints, taken without them",
                "repaired",
                f"all {len(indices)} long lines, such as {line(0)}, their points in the box of columns 2 to 5: "
                "add kpt_shape to the YAML",
            )
        boxes = np.frombuffer(listing.boxes, np.float64).reshape(-1, 4).copy()
        changed = predicted | posed
        boxes[indices[changed]] = np.array(self.boxes).reshape(-1, 4)[changed]
        listing.boxes = array("d", boxes.tobytes())
        report.facts.polygons += int((~changed & ~unclear).sum())
        if unclear.any():
            keep = np.ones(len(boxes), np.bool_)
            keep[indices[unclear]] = False
            listing.keep_boxes(keep, np.array(listing.labels, np.int32))

    def _judge(self, columns: NDArray[np.int64], fits: NDArray[np.int64]) -> tuple[NDArray[np.bool_], ...]:
        """Decide the format of n lines.

        Returns:
            (n,) each: whether a line is a box of a prediction, a box with keypoints, or unclear.
        """
        can = {kind: (fits & kind) > 0 for kind in (POLYGON, PREDICTED, POSED, APART)}
        predicted = can[PREDICTED] & ~can[POLYGON]
        outline = can[POLYGON] & ~can[PREDICTED]
        unclear = np.zeros(len(fits), np.bool_)
        posed = np.zeros(len(fits), np.bool_)
        one_length = (columns == columns[0]).all()
        if one_length and can[POSED].all() and can[APART].mean() > 0.5:
            chosen = posed if len(fits) >= SURE else unclear
            chosen[:] = True
            predicted[:] = False
        else:
            both = can[POLYGON] & can[PREDICTED]
            seven = predicted & (columns == 7)
            if seven.any() != outline.any():
                predicted |= both & seven.any()
            elif both.sum() >= SURE and not outline.any():  # polygons do not all end exactly at the edge
                predicted |= both
            else:
                unclear |= both
            if one_length and can[POSED].all() and ((fits & CROSSED) > 0).mean() > CROSSING:
                unclear |= outline
        unclear |= self._unclear_six(predicted & (columns == 6), fits)
        for length, odd in self.odd.items():
            same = columns == length
            if odd >= ODD * (odd + same.sum()):
                unclear |= same & ~posed
        return predicted & ~unclear, posed, unclear

    def _unclear_six(self, six: NDArray[np.bool_], fits: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) the six-column lines that may be boxes with an angle, or may have a confidence before the box."""
        if not six.any():
            return six
        out, shifted, whole = (((fits[six] & kind) > 0) for kind in (OUT, SHIFTED, WHOLE))
        sure = 1 - shifted.mean()
        clear = sure >= SURE_SHARE and sure > 2 * out.mean()
        angles = whole.any() and (self.repeated or not self.uneven)
        return six & (angles or not clear)


def _formats(columns: int, fits: int) -> str:
    """The formats that a line fits, for messages."""
    readings = [f"a polygon of {columns // 2} points"] if fits & POLYGON else []
    if fits & PREDICTED:
        readings.append("a box with a confidence " + ("or a track id" if columns == 6 else "and a track id"))
    if fits & POSED or columns > 7:
        readings.append("a box with keypoints (declared by kpt_shape)")
    elif columns == 6:
        readings += ["a box with an angle", "a confidence before a box"]
    return " or ".join(readings) + ": write it as class cx cy w h"


def add_lines(
    listing: Listing,
    image: int,
    text: str,
    label_of: dict[int, int],
    file: str,
    longer: LongLines,
    report: Report,
) -> None:
    """Add the boxes of an image's label file. Lines that cannot be read are left out and reported."""
    seen: set[tuple[str, ...]] = set()
    whole_numbers: set[float] = set()
    for line, row in enumerate(lines(text), 1):
        where = f"{file} line {line}"
        if len(row) > LONGEST_LINE:
            report.add("malformed line", "left out", f"{where}: {len(row)} characters")
            continue
        columns = row.split()
        if not columns:
            continue
        if problem := _wrong_length(len(columns), longer.keypoints):
            report.add("malformed line", "left out", f"{where}: {problem}{_quoted(columns, file)}")
            continue
        key, values = number(columns[0]), [number(column) for column in columns[1:]]
        if key not in label_of:
            if key != key:
                report.add(
                    "malformed line", "left out", f"{where}: the class is not a number{_quoted(columns[:1], file)}"
                )
            else:
                first = len(columns) in (6, 7) and 0 <= key <= 1
                longer.odd[len(columns)] += first
                hint = " (a confidence? the class comes first)" * first
                report.add("unknown class", "left out", f"{where}: class{_quoted(columns[:1], file, ' ')}{hint}")
                if key.is_integer():
                    report.facts.unknown[int(key)] += 1
            continue
        if (wrong := _no_number(columns, values)) is not None:
            name = _quoted(columns[wrong : wrong + 1], file, "")[:20] or f"column {wrong + 1}"
            hint = ": write a decimal point, not a comma" if "," in columns[wrong] else ""
            report.add("malformed line", "left out", f"{where}: {name} is not a number{hint}")
            continue
        if tuple(columns) in seen:
            report.add("annotation written twice", "left out", where)
            continue
        seen.add(tuple(columns))
        box = _box(values[:4])
        if len(values) > 4:
            if longer.keypoints:
                longer.posed += 1
            elif fits := _fits(values, box):
                if fits & WHOLE:
                    longer.repeated |= values[4] in whole_numbers
                    longer.uneven |= values[4] % 5 != 0 or values[4] > 360
                    whole_numbers.add(values[4])
                longer.add(listing, len(columns), fits, box)
                if fits & POLYGON:
                    box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
            else:
                longer.odd[len(columns)] += _has_odd_number(values)
                report.add("malformed line", "left out", f"{where}: {_neither(values)}{_quoted(columns, file)}")
                continue
        report.facts.used[int(key)] += 1
        listing.add_box(image, box, label_of[int(key)], line)


def numbered_classes(files: Iterable[Path]) -> list[int]:
    """The class numbers of all lines that may be a box, in ascending order."""
    seen: set[str] = set()
    for file in files:
        try:
            seen.update(columns[0] for row in lines(read_text(file, SHEET)) if len(columns := row.split(None, 5)) > 4)
        except TextError:  # reported where it is read
            continue
    numbers = (number(text) for text in seen)
    return sorted({int(value) for value in numbers if 0 <= value < MOST_NUMBERS and value.is_integer()})


def _wrong_length(columns: int, keypoints: tuple[int, int] | None) -> str:
    """Why the number of columns is wrong; "" where it may be right."""
    if columns == 5:
        return ""
    if keypoints:
        posed = 5 + keypoints[0] * keypoints[1]
        return "" if columns == posed else f"{columns} columns, not 5 or {posed} (kpt_shape {list(keypoints)})"
    if columns == 6 or (columns >= 7 and columns % 2):
        return ""
    return f"{columns} columns, not 5 or a polygon"


def _no_number(columns: list[str], values: list[float]) -> int | None:
    """Index of the first column that is not a number; "nan" is a number here."""
    for index, (column, value) in enumerate(zip(columns[1:], values), 1):
        if value != value and column.lower().lstrip("+-") != "nan":
            return index
    return None


def _quoted(columns: list[str], file: str, colon: str = ": ") -> str:
    """The beginning of a line, for messages. Files outside of the data set may be private, and are not quoted."""
    return "" if os.path.isabs(file) or ".." in file else colon + " ".join(columns[:20])[:40]


def _box(values: list[float]) -> Box:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _fits(values: list[float], box: Box) -> int:
    """The formats that a line of more than 5 columns fits, as bits.

    Args:
        values: the columns after the class.
        box: the first four of them as a box, as corners.
    """
    if len(values) == 5:
        if not (0 <= values[4] <= 1 or _is_id(values[4])):
            return 0
        fits = PREDICTED | (0 if _inside(box) else OUT) | (SHIFTED if _inside(_box(values[1:])) else 0)
        return fits | (WHOLE if values[4] > 1 else 0)
    fits = 0
    if all(LOW <= value <= HIGH for value in values):
        fits |= POLYGON
    inside = _inside(box)
    if inside and len(values) == 6 and 0 <= values[4] <= 1 and _is_id(values[5]):
        fits |= PREDICTED
    if inside and fits & POLYGON:
        rest = values[4:]
        if _holds(box, rest):
            fits |= POSED | (0 if _holds(box, values[2:4]) else APART)
        seen = rest[2::3]  # the third column of keypoints: 0, 1, 2 or a confidence
        if len(rest) % 3 == 0 and min(seen) >= 0 and _holds(box, [v for i, v in enumerate(rest) if i % 3 < 2]):
            fits |= POSED | (APART if {*seen} <= {0, 1} else 0)
        if fits & POSED and _crosses(values):
            fits |= CROSSED
    return fits


def _inside(box: Box) -> bool:
    """Whether a box has an area and lies in its image, with a tolerance of a hundredth."""
    return all(LOW / 10 <= value <= 1 - LOW / 10 for value in box) and box[0] < box[2] and box[1] < box[3]


def _crosses(values: list[float]) -> bool:
    """Whether two edges of the polygon x y x y … cross each other; edges that only touch do not."""
    if len(values) > 2 * POINTS:
        return False
    starts = np.array(values, np.float64).reshape(-1, 2)
    edges = np.roll(starts, -1, 0) - starts

    def sides(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n) the side of each edge on which each point lies, as the sign."""
        away = points - starts[:, None]
        return edges[:, :1] * away[..., 1] - edges[:, 1:] * away[..., 0]

    separated = sides(starts) * sides(starts + edges) < -1e-12  # the ends of an edge are on two sides of another edge
    return bool((separated & separated.T).any())


def _holds(box: Box, values: list[float]) -> bool:
    """Whether the points x y x y … lie in the box; 0 0 is a missing keypoint."""
    x1, y1, x2, y2 = box
    points = zip(values[::2], values[1::2])
    return all((x1 <= x <= x2 and y1 <= y <= y2) or x == y == 0 for x, y in points)


def _is_id(value: float) -> bool:
    return value >= 0 and value.is_integer() and math.isfinite(value)


def _has_odd_number(values: list[float]) -> bool:
    """Whether a line has numbers that are not coordinates but visibilities, ids or angles, and no slip."""
    if len(values) == 5:
        return True
    odd = [value for value in values if not LOW <= value <= HIGH]
    return all(_is_id(value) for value in odd)


def _neither(values: list[float]) -> str:
    """Why a line fits no format."""
    if len(values) == 5:
        return f"6 columns, and the last is neither a confidence nor a track id ({values[4]:g}; an angle?)"
    odd = next(value for value in values if not LOW <= value <= HIGH)
    hint = "keypoints need kpt_shape in the YAML"
    return f"{len(values) + 1} columns, and {odd:g} cannot be a coordinate of a polygon ({hint})"
