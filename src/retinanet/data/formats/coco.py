"""COCO: one JSON of images, annotations and categories for each split; Roboflow's variant of it."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.common.text import CHUNK, ZEROS, TextError, read_text
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import Layout, Listing, number, shown
from retinanet.data.formats.path_matching import Locator, without_first
from retinanet.data.formats.safe_paths import OUTSIDE, leaves

LISTS = ("images", "annotations", "categories")
ROBOFLOW = "_annotations.coco.json"
PLAIN = struct.Struct("<qqqddddd?")  # id, image, category, x, y, width, height, area, crowd
NUMBERS = {int, float}
SMALL = 1 << 20  # bytes of a JSON that is parsed to see whether it is COCO's
LIST = re.compile(rb'"images"\s{0,99}:\s{0,99}[\[{]')
MEANINGLESS = re.compile(r"^(instances|annotations?|coco|labels?)[_.-]|[_.-](instances|annotations?|coco|labels?)$")


def find(root: Path) -> Layout | None:
    """Recognise a folder with annotations/*.json, one with a _annotations.coco.json in each split's, or a JSON."""
    if root.is_file():
        name = root.parent.name if root.name == ROBOFLOW else split_name(root)
        named = bool(re.search("(?<![a-z])(train|val|test)", name))
        return _layout(root.parent, {name: root}, any_split=not named)
    files = {path.parent.name: path for path in sorted(root.glob(f"*/{ROBOFLOW}"))}
    if not files and (root / ROBOFLOW).is_file():
        return find(root / ROBOFLOW)
    if not files:
        candidates = _candidates(root / "annotations") or _candidates(root)
        instances = [path for path in candidates if path.name.startswith("instances")]
        for path in instances or candidates:
            other = files.setdefault(split_name(path), path)
            if other is not path:
                raise RequestError(
                    f"{root} has two files for the split {split_name(path)}, {shown(other, root)} and "
                    f"{shown(path, root)}: leave one of them, or name the file instead of the folder"
                )
    return _layout(root, files) if files else None


def _candidates(folder: Path) -> list[Path]:
    """JSON files that may be COCO's; a data set has others too, with a tool's settings, notes or results."""
    found = {path: _has_images(path) for path in sorted(folder.glob("*.json")) if path.is_file()}
    return [path for path, lists in found.items() if lists and lists == max(found.values())]


def _has_images(path: Path) -> int:
    """2 where a file has images and another of COCO's lists in its outermost object, 1 where it has images alone, else
    0; of a large one 2 where it has ``"images": [`` somewhere."""
    try:
        if path.stat().st_size < SMALL:
            content = json.loads(read_text(path))
            if not isinstance(content, dict) or not isinstance(images := content.get("images"), list | dict):
                return 0
            return 2 if any(key in content for key in LISTS[1:]) else int(bool(images))
    except (TextError, RecursionError):
        pass
    except ValueError:  # a fault in it is worth its line and column
        return 2 * ('"images"' in read_text(path))
    end = b""
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):  # writers may put it last
                if LIST.search(end + chunk):
                    return 2
                if ZEROS in chunk:  # the rest may be a hole without end
                    return 0
                end = chunk[-256:]
    except OSError:
        pass
    return 0


def without_images(root: Path) -> Path | None:
    """A JSON in the folder that seems to be COCO's but has no images: said where nothing else is found."""
    for path in (*sorted(root.glob("annotations/*.json")), *sorted(root.glob("*.json"))):
        try:
            content = read_text(path)
        except TextError:
            continue
        if path.parent != root or '"annotations"' in content or '"categories"' in content:
            return path
    return None


def split_name(path: Path) -> str:
    """instances_train2017.json -> train2017."""
    name = path.stem
    while (shorter := MEANINGLESS.sub("", name)) != name:
        name = shorter
    return name


def _layout(root: Path, files: dict[str, Path], any_split: bool = False) -> Layout:
    counts = {name: partial(_count, path) for name, path in files.items()}
    return Layout("COCO", root, counts, lambda name, report: read(files[name], name, root, report), any_split)


def _count(path: Path) -> int:
    return len(load(path)["images"])


def load(path: Path) -> dict[str, Any]:
    """The JSON with its three lists; annotations as :func:`_packed` makes them.

    Raises:
        RequestError: with line and column where it is no JSON, or what it lacks.
    """
    try:
        content = json.loads(read_text(path), object_pairs_hook=_packed)
    except json.JSONDecodeError as error:
        raise RequestError(f"{path} line {error.lineno} column {error.colno} is not valid JSON: {error.msg}") from None
    except _Twice as error:
        raise RequestError(f"{path} has two lists {error}: join them") from None
    except RecursionError:
        raise RequestError(f"{path} is not a COCO detection file: its lists lie too deep in each other") from None
    except TextError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"cannot read {path}: {error}") from None
    for key in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise RequestError(f"{path} is not a COCO detection file: it has no list {key!r}")
    return content


class _Twice(Exception):
    """Of a list that is there twice JSON's reader would keep the second."""


def _packed(pairs: list[tuple[str, Any]]) -> dict[str, Any] | bytes:
    """An annotation as the nine numbers that are read of it, a fifth of the memory; anything else as it is.

    Called for every object in the file while it is read, so that a million annotations are never there as objects.
    """
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, value in pairs if isinstance(value, list) and key in LISTS]
        for key in set(keys):
            if keys.count(key) > 1:
                raise _Twice(repr(key))
    try:
        x, y, width, height = bbox = entry["bbox"]
        if not {*map(type, bbox)} <= NUMBERS or _lacks_bbox(entry):  # True would become 1
            return entry
        ident, image, category = entry["id"], entry["image_id"], entry["category_id"]
        if not (type(ident) is type(image) is type(category) is int):  # True again
            return entry
        area, crowd = entry.get("area", math.nan), entry.get("iscrowd", 0)
        if type(crowd) is not int or crowd not in (0, 1):
            return entry
        return PLAIN.pack(ident, image, category, x, y, width, height, area, crowd)
    except (KeyError, TypeError, ValueError, struct.error, OverflowError):
        return entry


def _lacks_bbox(entry: dict[str, Any]) -> bool:
    """Whether the segmentation must give the box: there is no bbox, or it is null or 0 where there is an outline."""
    bbox = entry.get("bbox")
    if not bbox:
        return True
    blank = isinstance(bbox, list) and (None in bbox or bbox[2:] == [0, 0])
    return blank and bool(entry.get("segmentation"))


class _Annotation(NamedTuple):
    """What is read of an annotation."""

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
    def of(cls, entry: Any, position: int) -> _Annotation:
        """
        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        if isinstance(entry, bytes):
            return cls(*PLAIN.unpack(entry))
        ident = entry.get("id", f"at annotations[{position}]")
        image_id, category = entry["image_id"], entry["category_id"]
        bbox = _extent(entry.get("segmentation")) if _lacks_bbox(entry) else entry["bbox"]
        if not isinstance(bbox, list):
            raise TypeError("bbox is no list")
        x, y, width, height = map(number, bbox)
        hash(ident), hash(image_id), hash(category)
        area = number(entry.get("area", math.nan))
        crowd = entry.get("iscrowd") or 0
        crowd = float(crowd) if isinstance(crowd, bool) else number(crowd)  # text and fractions too, as of ids
        if crowd not in (0, 1):
            raise ValueError("iscrowd is neither 0 nor 1")
        return cls(ident, image_id, category, x, y, width, height, area, crowd == 1)


def read(path: Path, split: str, root: Path, report: Report) -> Listing:
    content = load(path)
    file = shown(path, root)
    names, label_of, ids = _categories(content, path, report)

    def box_name(image: int, reference: int) -> str:
        return f"{file} annotation {reference}" if reference >= 0 else f"{file} annotations[{-1 - reference}]"

    listing = Listing(names, ids, box_name, meaning="corner and sides")
    place = _folder(content["images"], path, split, root)
    index = _add_images(listing, content["images"], place, file, report)
    _add_annotations(listing, content["annotations"], index, label_of, file, report)
    return listing


def _add_images(listing: Listing, images: list[Any], place: _Place, file: str, report: Report) -> dict[Any, int]:
    """Returns the place in the listing of each image, by its id."""
    folder, steps, base = place
    index: dict[Any, int] = {}
    for position, image in enumerate(images):
        try:
            ident, name = image["id"], image["file_name"]
            hash(ident)
            if isinstance(ident, float) and ident.is_integer():
                ident = int(ident)
            if not isinstance(name, str) or not name or isinstance(ident, float | bool | None):
                raise TypeError
        except (KeyError, TypeError):
            report.add("malformed image entry", "left out", f"{file} images[{position}]: needs id and file_name")
            continue
        if steps is not None and (short := without_first(name, steps)) and short != name:
            report.add(RENAMED, "repaired", f"{file} image {_quoted(ident)}: {name} is {short}")
            name = short
        if steps is None and "://" in name and (short := _of_url(name, folder)):
            report.add(RENAMED, "repaired", f"{file} image {_quoted(ident)}: {name} is {short}")
            name = short
        if ident in index:
            report.add("repeated image id", "left out", f"{file} image {_quoted(ident)}: {name}")
            continue
        if leaves(name, folder, base):
            report.add(OUTSIDE, "left out", f"{file} image {_quoted(ident)}: {name}")
            continue
        size = number(image.get("height")), number(image.get("width"))
        known = all(0 < side < 1 << 31 for side in size)
        whole = _whole(ident)
        number_id = whole if whole is not None and whole.bit_length() < 64 else position + 1
        index[ident] = listing.add_image(folder / name, number_id, (int(size[0]), int(size[1])) if known else (0, 0))

    return index


def _of_url(url: str, folder: Path) -> str | None:
    """The end of a URL that is a file in the folder."""
    steps = itertools.takewhile(bool, (without_first(url, first) for first in itertools.count(1)))
    return next((name for name in steps if name and os.path.isfile(folder / name)), None)


def _add_annotations(
    listing: Listing,
    annotations: list[Any],
    index: dict[Any, int],
    label_of: dict[Any, int],
    file: str,
    report: Report,
) -> None:
    """
    Args:
        index: the place in the listing of each image, by its id.
        label_of: the label of each category, by its id.
    """
    images, categories = _Ids(index), _Ids(label_of)
    seen: dict[Any, int] = {}
    for position, annotation in enumerate(annotations):
        try:
            ident, image_id, category, x, y, width, height, area, crowd = found = _Annotation.of(annotation, position)
        except (KeyError, TypeError, ValueError, AttributeError):
            where = annotation.get("id") if isinstance(annotation, dict) else None
            name = f"annotation {where}" if where is not None else f"annotations[{position}]"
            text = f"{file} {name}: needs image_id, category_id and bbox [x, y, width, height]"
            report.add("malformed annotation", "left out", text)
            continue
        where = f"{file} annotation {ident}"
        image, own = images.known(image_id), categories.known(category)
        if image is None:
            text = f"{where}: image {_quoted(image_id)}"
            report.add("annotation of an unknown image", "left out", text)
            continue
        if own is None:
            report.add("unknown class", "left out", f"{where}: category {_quoted(category)}")
            if isinstance(category, int):
                report.facts.unknown[category] += 1
            continue
        first = seen.setdefault(ident, position)
        if first != position:
            if _Annotation.of(annotations[first], first)[1:7] == found[1:7]:
                report.add("annotation written twice", "left out", where)
                continue
            report.add("repeated annotation id, given a new one", "repaired", where)
        # Other ids, and those that no 64 bits hold, are found by their place; places are told from ids by their sign.
        reference = ident if isinstance(ident, int) and 0 <= ident < 1 << 63 else -1 - position
        if (image, type(image), type(own)) != (image_id, type(image_id), type(category)):
            text = f"{where}: image {_quoted(image_id)}, category {_quoted(category)}"
            report.add("id written as text or fraction, matched", "repaired", text)
        if isinstance(annotation, dict) and width > 0 < height and _lacks_bbox(annotation):
            report.add("no bbox, taken from the segmentation", "repaired", where)
        report.facts.used[own] += 1
        box = (x, y, x + width, y + height)
        listing.add_box(index[image], box, label_of[own], reference, crowd, area)


class _Ids:
    """The ids of a file, to which others refer in whatever type: 1, "1" or 1.0."""

    def __init__(self, ids: Iterable[Any]) -> None:
        self._exact = {ident: ident for ident in ids}
        self._loose: dict[int, Any] = {}
        for ident in self._exact:
            value = _whole(ident)
            if value is not None:  # None as a value: two ids are written with the same number
                self._loose[value] = None if value in self._loose else ident

    def known(self, reference: Any) -> Any:
        """The id that is meant; None where there is none, or more than one."""
        if type(reference) is bool:  # equals 0 or 1
            return None
        if reference in self._exact:
            return self._exact[reference]
        value = _whole(reference)
        return None if value is None else self._loose.get(value)


def _whole(ident: Any) -> int | None:
    """The whole number that an id is, or is written as; None for any other."""
    if isinstance(ident, float) and ident.is_integer():
        return int(ident)
    if isinstance(ident, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,40}(\.0*)?\s*", ident):
        return int(ident.split(".")[0])
    return ident if isinstance(ident, int) and not isinstance(ident, bool) else None


def _quoted(ident: Any) -> str:
    """An id that tells 1 from "1", cut where it is long."""
    return _short(ident, json.dumps if isinstance(ident, str) else repr)


def _short(value: Any, write: Callable[[Any], str] = repr) -> str:
    try:
        return printable(write(value), 100)
    except RecursionError:
        return "nested too deeply"


def _extent(outline: Any) -> list[float]:
    """x, y, width, height around polygons [[x, y, x, y, ...], ...].

    Raises:
        TypeError, ValueError: there are none, such as where a mask is run-length encoded.
    """
    if not isinstance(outline, list) or not outline or any(len(part) < 6 or len(part) % 2 for part in outline):
        raise ValueError("no polygons")
    xs, ys = ([number(v) for part in outline for v in part[start::2]] for start in (0, 1))
    if not all(map(math.isfinite, xs + ys)):
        raise ValueError("a coordinate is not finite")
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _categories(content: dict[str, Any], path: Path, report: Report) -> tuple[list[str], dict[Any, int], list[int]]:
    """Class names in the order of their ids, the label of each category id, and each class's id."""
    names: dict[int, str] = {}
    parents = set()
    for category in content["categories"]:
        try:
            ident, written = category["id"], category["name"]
        except (KeyError, TypeError):
            raise RequestError(f"{path} has a category without id and name: {_short(category)}") from None
        if isinstance(written, bool) or not isinstance(written, str | int):
            raise RequestError(
                f"{path}: the category with the id {_quoted(ident)} has the name {_short(written, json.dumps)}: "
                "write it as text, in quotes"
            )
        name, given = str(written).strip(), ident
        ident = _whole(ident)
        if not name:
            raise RequestError(f"{path}: the category with the id {_quoted(given)} has an empty name: give it one")
        if ident is None:
            raise RequestError(
                f"{path} has the category {_short(name)} with the id {_short(given)}; ids are whole numbers"
            )
        if type(given) is not int:
            text = f"{shown(path, path.parent)} category {_quoted(given)}: {name}"
            report.add("id written as text or fraction, matched", "repaired", text)
        report.facts.classes[ident] = str(written)
        if names.setdefault(ident, name) != name:
            raise RequestError(
                f"{path} uses the category id {ident} for both {_short(names[ident])} and {_short(name)}"
            )
        if ident != 0 and isinstance(category.get("supercategory"), str):
            parents.add(category["supercategory"])
    # Roboflow writes a category 0 that is only the parent of the others; no box has it.
    if len(names) > 1 and 0 in names and names[0] in parents:
        packed = (PLAIN.unpack(a)[2] if isinstance(a, bytes) else a for a in content["annotations"])
        used = any(_whole(a.get("category_id") if isinstance(a, dict) else a) == 0 for a in packed)
        if not used:
            del report.facts.classes[0]
            report.facts.parents.append(names.pop(0))
    if not names:
        raise RequestError(f"{path} has no categories")
    classes: dict[str, int] = {}
    label_of = {ident: classes.setdefault(names[ident], len(classes)) for ident in sorted(names)}
    first: dict[int, int] = {}
    doubled = []
    for ident, label in label_of.items():
        if first.setdefault(label, ident) != ident:
            doubled.append(f"{ident} is {first[label]} ({_short(names[ident])})")
    if doubled:
        shown_ = "; ".join(doubled[:3]) + ("; …" if len(doubled) > 3 else "")
        report.notes.append(f"{len(doubled)} category ids have the name of another and are the same class: {shown_}")
    return list(classes), label_of, list(first.values())


def _base(path: Path, root: Path) -> Path:
    """The folder that images must lie in: DATA, or what holds the folder ``annotations`` of a JSON given alone."""
    return _beside(path) if root.is_relative_to(_beside(path)) else root


def _beside(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "annotations" else path.parent


class _Place(NamedTuple):
    """Where the images lie."""

    folder: Path
    """What the file names are relative to."""
    steps: int | None
    """How many folders of each name to leave out as those of another machine, see :func:`without_first`; None: the
    names are used as they are."""
    base: Path
    """What no name may lead out of."""


def _folder(images: list[Any], path: Path, split: str, root: Path) -> _Place:
    """The first folder that holds the most of a few images tried."""
    step = max(1, len(images) // 16)
    tried = [i["file_name"] for i in images[::step] if isinstance(i, dict) and isinstance(i.get("file_name"), str)]
    base = _beside(path)
    bare = split.rstrip("0123456789_-") or split
    places = (split, f"images/{split}", bare, f"images/{bare}", "", "images", "data", "JPEGImages")
    folders = list(dict.fromkeys([*(base / place for place in places), path.parent, root]))
    inside = [[name for name in tried if not leaves(name, folder, _base(path, root))] for folder in folders]
    found = [sum(os.path.isfile(folder / name) for name in names) for folder, names in zip(folders, inside)]
    locator = Locator()
    steps: int | None = None
    names = [name for name in tried if not os.path.isabs(name)]
    while (
        tried and not any(found) and (names or steps is None)
    ):  # in another spelling, then without the first folder, the first two, ...
        found = [sum(locator.find(folder, name) is not None for name in names) for folder in folders]
        if not any(found):
            steps = 0 if steps is None else steps + 1
            names = [short for name in tried if (short := without_first(name, steps))]
    there = [names for folder, names in zip(folders, inside) if os.path.isdir(folder)]
    if tried and not any(found) and not any(there):
        raise RequestError(
            f"{path} names images outside the data set, such as {printable(tried[0], 300)}, which are not read: "
            "put them into its folder, or links to them, and name them relative to it"
        )
    if tried and not any(found):
        looked = ", ".join(shown(folder, root) for folder in folders)
        raise RequestError(
            f"none of the images of {path} was found, such as {printable(tried[0], 300)}; looked in {looked}"
        )
    return _Place(folders[found.index(max(found))], steps, _base(path, root))
