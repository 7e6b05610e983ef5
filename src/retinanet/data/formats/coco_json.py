"""COCO's JSON: its three lists, and annotations and ids in every form in which tools write them."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.common.text import TextError, read_text
from retinanet.data.formats.listing import number

LISTS = ("images", "annotations", "categories")
PACKED = struct.Struct("<qqqddddd?")  # id, image, category, x, y, width, height, area, crowd
NUMBERS = {int, float}


def load(path: Path) -> dict[str, Any]:
    """Read a JSON with the lists images, annotations and categories. Annotations are as :func:`_packed` returns them.

    Raises:
        RequestError: it is not JSON, with line and column, or a list is missing.
    """
    try:
        content = json.loads(read_text(path), object_pairs_hook=_packed)
    except json.JSONDecodeError as error:
        raise RequestError(f"{path} line {error.lineno} column {error.colno} is not valid JSON: {error.msg}") from None
    except _RepeatedListError as error:
        raise RequestError(f"{path} has two lists {error}: join them") from None
    except RecursionError:
        raise RequestError(f"{path} is not a COCO detection file: its lists are nested too deeply") from None
    except TextError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"cannot read {path}: {error}") from None
    for key in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise RequestError(f"{path} is not a COCO detection file: it has no list {key!r}")
    return content


class _RepeatedListError(Exception):
    """A list is there twice. Python's reader would keep the second without a word."""


def _packed(pairs: list[tuple[str, Any]]) -> dict[str, Any] | bytes:
    """A plain annotation as its nine numbers, which take a fifth of the memory; any other object as a dictionary.

    The JSON reader calls this for each object, so that a million annotations never exist as dictionaries.
    """
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, value in pairs if isinstance(value, list) and key in LISTS]
        for key in set(keys):
            if keys.count(key) > 1:
                raise _RepeatedListError(repr(key))
    try:
        x, y, width, height = bbox = entry["bbox"]
        if not {*map(type, bbox)} <= NUMBERS or lacks_bbox(entry):  # True would become 1
            return entry
        ident, image, category = entry["id"], entry["image_id"], entry["category_id"]
        if not (type(ident) is type(image) is type(category) is int):  # True again
            return entry
        area, crowd = entry.get("area", math.nan), entry.get("iscrowd", 0)
        if type(crowd) is not int or crowd not in (0, 1):
            return entry
        return PACKED.pack(ident, image, category, x, y, width, height, area, crowd)
    except (KeyError, TypeError, ValueError, struct.error, OverflowError):
        return entry


def lacks_bbox(entry: dict[str, Any]) -> bool:
    """Whether the box must come from the segmentation: bbox is missing, or it is null or 0 and there is an outline."""
    bbox = entry.get("bbox")
    if not bbox:
        return True
    blank = isinstance(bbox, list) and (None in bbox or bbox[2:] == [0, 0])
    return blank and bool(entry.get("segmentation"))


class CocoAnnotation(NamedTuple):
    """The fields of an annotation that are used."""

    ident: Any
    image_id: Any
    category: Any
    x: float
    y: float
    width: float
    height: float
    area: float
    crowd: bool

    @classmethod
    def of(cls, entry: Any, position: int) -> CocoAnnotation:
        """An entry of the list ``annotations``, as :func:`load` returns it.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is malformed.
        """
        if isinstance(entry, bytes):
            return cls(*PACKED.unpack(entry))
        ident = entry.get("id", f"at annotations[{position}]")
        image_id, category = entry["image_id"], entry["category_id"]
        bbox = _extent(entry.get("segmentation")) if lacks_bbox(entry) else entry["bbox"]
        if not isinstance(bbox, list):
            raise TypeError("bbox is not a list")
        x, y, width, height = map(number, bbox)
        hash(ident), hash(image_id), hash(category)
        area = number(entry.get("area", math.nan))
        crowd = entry.get("iscrowd") or 0
        crowd = float(crowd) if isinstance(crowd, bool) else number(crowd)  # may be text or a fraction, as ids may
        if crowd not in (0, 1):
            raise ValueError("iscrowd is neither 0 nor 1")
        return cls(ident, image_id, category, x, y, width, height, area, crowd == 1)


class Ids:
    """The ids of a file. References to them may have any type: 1, "1" or 1.0."""

    def __init__(self, ids: Iterable[Any]) -> None:
        self._exact = {ident: ident for ident in ids}
        self._loose: dict[int, Any] = {}
        for ident in self._exact:
            value = whole_number(ident)
            if value is not None:  # None: two ids stand for the same number
                self._loose[value] = None if value in self._loose else ident

    def known(self, reference: Any) -> Any:
        """The id that is meant; None where there is no such id, or more than one."""
        if type(reference) is bool:  # equals 0 or 1
            return None
        if reference in self._exact:
            return self._exact[reference]
        value = whole_number(reference)
        return None if value is None else self._loose.get(value)


def whole_number(ident: Any) -> int | None:
    """An id as a whole number: 1, 1.0 and "1" are 1. None where it is not one."""
    if isinstance(ident, float) and ident.is_integer():
        return int(ident)
    if isinstance(ident, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,40}(\.0*)?\s*", ident):
        return int(ident.split(".")[0])
    return ident if isinstance(ident, int) and not isinstance(ident, bool) else None


def quoted(ident: Any) -> str:
    """An id as messages show it: 1 and "1" differ, and long ids are shortened."""
    return shortened(ident, json.dumps if isinstance(ident, str) else repr)


def shortened(value: Any, write: Callable[[Any], str] = repr) -> str:
    try:
        return printable(write(value), 100)
    except RecursionError:
        return "nested too deeply"


def _extent(outline: Any) -> list[float]:
    """The bounding box x, y, width, height of polygons [[x, y, x, y, ...], ...].

    Raises:
        TypeError, ValueError: there are no polygons, for example because a mask is run-length encoded.
    """
    if not isinstance(outline, list) or not outline or any(len(polygon) < 6 or len(polygon) % 2 for polygon in outline):
        raise ValueError("no polygons")
    xs, ys = ([number(v) for polygon in outline for v in polygon[start::2]] for start in (0, 1))
    if not all(map(math.isfinite, xs + ys)):
        raise ValueError("a coordinate is not finite")
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
