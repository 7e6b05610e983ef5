"""The lines of YOLO's label files, and what those are that have more columns than a box.

``class cx cy w h`` is a box. What follows it in other files may be a confidence, a track id, or both (predictions), or
keypoints. And ``class x1 y1 x2 y2 x3 y3 …`` is a polygon, whose bounding box is taken. Some lines fit two of these:
the other lines of the split tell which is meant, and where they do not, the line is left out and named.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retinanet.common.text import lines
from retinanet.data.faults import Report
from retinanet.data.formats.listing import Listing, number

POLYGON, PREDICTED, POSED, APART, CROSSED, OUT, SHIFTED, WHOLE = (1 << bit for bit in range(8))
"""What a line fits, as bits: points of a polygon; a box with a confidence or track id; a box with keypoints inside it;
and of the last, that it makes no likely polygon: the sides of the box would be a point far from all others, or every
third number is 0 or 1 (APART), or the edges cross each other (CROSSED). Of six columns: columns 2 to 5 stick out of the
image as a box, columns 3 to 6 lie in it, the last is a whole number above 1."""
LOW, HIGH = -0.1, 1.1  # of a coordinate: polygons drawn carelessly over the edge end here
SURE = 3  # lines that fit two formats alike, from which on chance does not explain it
ODD = 0.05  # share of lines that cannot be what the others of as many columns may be
LINE = 1 << 20  # characters of a line, an outline of some 50 000 points
CROSSING = 0.2  # share of outlines that cross themselves, above which these are none
SURE_SHARE = 0.2  # of lines of six columns that are no box with a confidence before it, from which on none is
POINTS = 200  # of an outline that is looked at for edges that cross
PREDICTION = "confidence or track id beside a box, passed over"

Box = tuple[float, float, float, float]


@dataclass
class Longer:
    """Lines of a split with more columns than a box; :meth:`settle` says what they are when all are read."""

    keypoints: tuple[int, int] | None = None
    """Number of keypoints, and of columns for each, as the data set declares them."""
    posed: int = 0
    """Lines with as many columns as that makes."""
    odd: Counter[int] = field(default_factory=Counter)
    """By number of columns: lines that fit nothing, and have a whole number that is no coordinate."""
    repeated: bool = False
    """Of six columns the last is the same whole number above 1 on two lines of a file: no track id."""
    uneven: bool = False
    """Such a number is no multiple of 5, or above 360: not all are angles as people choose them."""
    places: array = field(default_factory=lambda: array("q"))
    """Where in the listing the box of each line is; it is the polygon's, if the line fits one."""
    columns: array = field(default_factory=lambda: array("i"))
    fits: array = field(default_factory=lambda: array("h"))
    boxes: array = field(default_factory=lambda: array("d"))
    """The box of columns 2 to 5 of each line, as corners."""

    def add(self, listing: Listing, columns: int, fits: int, box: Box) -> None:
        """Note the box that the listing gets next."""
        self.places.append(len(listing.labels))
        self.columns.append(columns)
        self.fits.append(fits)
        self.boxes.extend(box)

    def settle(self, listing: Listing, report: Report) -> None:
        """Correct or drop the boxes in the listing, now that the whole split is known."""
        if self.keypoints and self.posed:
            count, each = self.keypoints
            report.notes.append(
                f"{self.posed} lines have {count} keypoints of {each} columns beside their box (kpt_shape); "
                "the box is read"
            )
        if not self.places:
            return
        places, columns = np.array(self.places), np.array(self.columns)
        fits = np.array(self.fits)
        predicted, posed, unclear = self._judge(columns, fits)

        def line(i: int) -> str:
            place = self.places[i]
            return f"{listing.box_name(listing.images[place], listing.references[place])}: {self.columns[i]} columns"

        for i in np.flatnonzero(unclear).tolist():
            text = f"{line(i)}, {_formats(self.columns[i], self.fits[i])}"
            report.add("line that fits two formats", "left out", text)
            report.facts.used[listing.category_ids[listing.labels[self.places[i]]]] -= 1
        for i in np.flatnonzero(predicted).tolist():
            report.add(PREDICTION, "repaired", partial(line, i))
        if posed.any():
            report.add(
                "box with keypoints, taken without them",
                "repaired",
                f"all {len(places)} longer lines, such as {line(0)}, their points in the box of columns 2 to 5: "
                "add kpt_shape to the YAML",
            )
        boxes = np.frombuffer(listing.boxes, np.float64).reshape(-1, 4).copy()
        changed = predicted | posed
        boxes[places[changed]] = np.array(self.boxes).reshape(-1, 4)[changed]
        listing.boxes = array("d", boxes.tobytes())
        report.facts.polygons += int((~changed & ~unclear).sum())
        if unclear.any():
            keep = np.ones(len(boxes), np.bool_)
            keep[places[unclear]] = False
            listing.keep_boxes(keep, np.array(listing.labels, np.int32))

    def _judge(self, columns: NDArray[np.int64], fits: NDArray[np.int64]) -> tuple[NDArray[np.bool_], ...]:
        """(n,) each: the lines that are a box with a prediction's columns, with keypoints, and those left unclear."""
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
            elif both.sum() >= SURE and not outline.any():  # polygons do not all end at the very edge
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
        """(n,) the lines of six columns, where they may be boxes with an angle, or have a confidence before the box."""
        if not six.any():
            return six
        out, shifted, whole = (((fits[six] & kind) > 0) for kind in (OUT, SHIFTED, WHOLE))
        sure = 1 - shifted.mean()
        clear = sure >= SURE_SHARE and sure > 2 * out.mean()
        angles = whole.any() and (self.repeated or not self.uneven)
        return six & (angles or not clear)


def _formats(columns: int, fits: int) -> str:
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
    longer: Longer,
    report: Report,
) -> None:
    """Read the label file of one image; what cannot be read is left out and named by its line."""
    seen: set[tuple[str, ...]] = set()
    whole: set[float] = set()
    for line, row in enumerate(lines(text), 1):
        where = f"{file} line {line}"
        if len(row) > LINE:
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
        if (place := _no_number(columns, values)) is not None:
            name = _quoted(columns[place : place + 1], file, "")[:20] or f"column {place + 1}"
            hint = ": write a decimal point, not a comma" if "," in columns[place] else ""
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
                    longer.repeated |= values[4] in whole
                    longer.uneven |= values[4] % 5 != 0 or values[4] > 360
                    whole.add(values[4])
                longer.add(listing, len(columns), fits, box)
                if fits & POLYGON:
                    box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
            else:
                longer.odd[len(columns)] += _has_odd_number(values)
                report.add("malformed line", "left out", f"{where}: {_neither(values)}{_quoted(columns, file)}")
                continue
        report.facts.used[int(key)] += 1
        listing.add_box(image, box, label_of[int(key)], line)


def _wrong_length(columns: int, keypoints: tuple[int, int] | None) -> str:
    """What is wrong with the number of columns; "" where it may be right."""
    if columns == 5:
        return ""
    if keypoints:
        posed = 5 + keypoints[0] * keypoints[1]
        return "" if columns == posed else f"{columns} columns, not 5 or {posed} (kpt_shape {list(keypoints)})"
    if columns == 6 or (columns >= 7 and columns % 2):
        return ""
    return f"{columns} columns, not 5 or a polygon"


def _no_number(columns: list[str], values: list[float]) -> int | None:
    """The first column that is no number; "nan" is one."""
    for place, (column, value) in enumerate(zip(columns[1:], values), 1):
        if value != value and column.lower().lstrip("+-") != "nan":
            return place
    return None


def _quoted(columns: list[str], file: str, colon: str = ": ") -> str:
    """The beginning of a line, for messages; nothing of a file outside the data set, which may be anybody's letter."""
    return "" if os.path.isabs(file) or ".." in file else colon + " ".join(columns[:20])[:40]


def _box(values: list[float]) -> Box:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _fits(values: list[float], box: Box) -> int:
    """What a line of more than 5 columns may be; 0 where nothing.

    Args:
        values: the columns after the class.
        box: that of the first four, as corners.
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
        seen = rest[2::3]  # of keypoints with three columns: 0, 1 or 2, or a confidence
        if len(rest) % 3 == 0 and min(seen) >= 0 and _holds(box, [v for i, v in enumerate(rest) if i % 3 < 2]):
            fits |= POSED | (APART if {*seen} <= {0, 1} else 0)
        if fits & POSED and _crosses(values):
            fits |= CROSSED
    return fits


def _inside(box: Box) -> bool:
    """Whether a box has an area and lies in its image, give or take a hundredth of it."""
    return all(LOW / 10 <= value <= 1 - LOW / 10 for value in box) and box[0] < box[2] and box[1] < box[3]


def _crosses(values: list[float]) -> bool:
    """Whether two edges of the polygon x y x y … cross each other; edges that only touch do not."""
    if len(values) > 2 * POINTS:
        return False
    starts = np.array(values, np.float64).reshape(-1, 2)
    edges = np.roll(starts, -1, 0) - starts

    def sides(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n) on which side of each edge each of the points lies."""
        away = points - starts[:, None]
        return edges[:, :1] * away[..., 1] - edges[:, 1:] * away[..., 0]

    parted = sides(starts) * sides(starts + edges) < -1e-12
    return bool((parted & parted.T).any())


def _holds(box: Box, values: list[float]) -> bool:
    """Whether the points x y x y … lie in the box; 0 0 is a keypoint that is not there."""
    x1, y1, x2, y2 = box
    points = zip(values[::2], values[1::2])
    return all((x1 <= x <= x2 and y1 <= y <= y2) or x == y == 0 for x, y in points)


def _is_id(value: float) -> bool:
    return value >= 0 and value.is_integer() and math.isfinite(value)


def _has_odd_number(values: list[float]) -> bool:
    """Whether numbers that are no coordinates are there, and do not look like a slip: visibilities, ids, angles."""
    if len(values) == 5:
        return True
    odd = [value for value in values if not LOW <= value <= HIGH]
    return all(_is_id(value) for value in odd)


def _neither(values: list[float]) -> str:
    if len(values) == 5:
        return f"6 columns, and the last is neither a confidence nor a track id ({values[4]:g}; an angle?)"
    odd = next(value for value in values if not LOW <= value <= HIGH)
    hint = "keypoints need kpt_shape in the YAML"
    return f"{len(values) + 1} columns, and {odd:g} cannot be a coordinate of a polygon ({hint})"
