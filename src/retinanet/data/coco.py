"""COCO: one JSON of pictures, annotations and categories for each split; Roboflow's variant of it."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.listing import Layout, Listing, number, shown
from retinanet.data.report import Report
from retinanet.data.safe_files import OUTSIDE, leaves, read_text, require_regular
from retinanet.errors import RequestError
from retinanet.printable import printable

LISTS = ("images", "annotations", "categories")
ROBOFLOW = "_annotations.coco.json"
PLAIN = struct.Struct("<qqqddddd?")  # id, picture, category, x, y, width, height, area, crowd
NUMBERS = {int, float}
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
    """JSON files that may be COCO's; a data set has others too, with a tool's settings or results."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            require_regular(path)
            with open(path, "rb") as file:
                start = file.read(1 << 20)
        except OSError:
            continue
        if b'"images"' in start or b'"annotations"' in start or b'"categories"' in start:
            found.append(path)
    return found


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
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not valid JSON: it is not UTF-8 text") from None
    except _Twice as error:
        raise RequestError(f"{path} has two lists {error}: join them") from None
    except RecursionError:
        raise RequestError(f"{path} is not a COCO detection file: its lists lie too deep in each other") from None
    except (OSError, ValueError) as error:  # a number of thousands of digits is a ValueError
        raise RequestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
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
        if not {*map(type, bbox)} <= NUMBERS:  # True would become 1
            return entry
        area, crowd = entry.get("area", math.nan), entry.get("iscrowd") == 1
        return PLAIN.pack(entry["id"], entry["image_id"], entry["category_id"], x, y, width, height, area, crowd)
    except (KeyError, TypeError, ValueError, struct.error, OverflowError):
        return entry


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
        x, y, width, height = map(number, entry["bbox"])
        hash(ident)
        area = number(entry.get("area", math.nan))
        return cls(ident, image_id, category, x, y, width, height, area, entry.get("iscrowd") == 1)


def read(path: Path, split: str, root: Path, report: Report) -> Listing:
    content = load(path)
    file = shown(path, root)
    names, label_of, ids = _categories(content, path, report)

    def box_name(picture: int, reference: int) -> str:
        return f"{file} annotation {reference}" if reference >= 0 else f"{file} annotations[{-1 - reference}]"

    listing = Listing(names, ids, box_name, meaning="corner and sides")
    base = _base(path, root)
    folder = _folder(content["images"], path, split, root)

    index: dict[Any, int] = {}
    for position, image in enumerate(content["images"]):
        try:
            ident, name = image["id"], image["file_name"]
            hash(ident)
            if not isinstance(name, str) or isinstance(ident, float | bool | None):
                raise TypeError
        except (KeyError, TypeError):
            report.add("malformed picture entry", "left out", f"{file} images[{position}]: needs id and file_name")
            continue
        if ident in index:
            report.add("repeated picture id", "left out", f"{file} picture {ident}: {name}")
            continue
        if leaves(name, folder, base):
            report.add(OUTSIDE, "left out", f"{file} picture {ident}: {name}")
            continue
        size = number(image.get("height")), number(image.get("width"))
        known = all(0 < side < 1 << 31 for side in size)
        number_id = ident if isinstance(ident, int) and ident.bit_length() < 64 else position + 1
        index[ident] = listing.add_picture(folder / name, number_id, (int(size[0]), int(size[1])) if known else (0, 0))

    seen: dict[Any, int] = {}
    for position, annotation in enumerate(content["annotations"]):
        try:
            ident, image_id, category, x, y, width, height, area, crowd = found = _Annotation.of(annotation, position)
            known_picture, known_class = image_id in index, category in label_of
        except (KeyError, TypeError, ValueError, AttributeError):
            where = annotation.get("id") if isinstance(annotation, dict) else None
            name = f"annotation {where}" if where is not None else f"annotations[{position}]"
            text = f"{file} {name}: needs image_id, category_id and bbox [x, y, width, height]"
            report.add("malformed annotation", "left out", text)
            continue
        where = f"{file} annotation {ident}"
        if not known_picture:
            report.add("annotation of an unknown picture", "left out", f"{where}: picture {image_id}")
            continue
        if not known_class:
            report.add("unknown class", "left out", f"{where}: category {category}")
            if isinstance(category, int):
                report.facts.unknown[category] += 1
            continue
        first = seen.setdefault(ident, position)
        if first != position:
            if _Annotation.of(content["annotations"][first], first)[1:7] == found[1:7]:
                report.add("annotation written twice", "left out", where)
                continue
            report.add("repeated annotation id, given a new one", "repaired", where)
        # Other ids, and those that no 64 bits hold, are found by their place; places are told from ids by their sign.
        reference = ident if isinstance(ident, int) and 0 <= ident < 1 << 63 else -1 - position
        report.facts.used[category] += 1
        box = (x, y, x + width, y + height)
        listing.add_box(index[image_id], box, label_of[category], reference, crowd, area)
    return listing


def _categories(content: dict[str, Any], path: Path, report: Report) -> tuple[list[str], dict[Any, int], list[int]]:
    """Class names in the order of their ids, the label of each category id, and each class's id."""
    names: dict[int, str] = {}
    parents = set()
    for category in content["categories"]:
        try:
            ident, name = category["id"], category["name"]
        except (KeyError, TypeError):
            raise RequestError(f"{path} has a category without id and name: {_short(category)}") from None
        if not isinstance(name, str | int | float):
            raise RequestError(f"{path} has the category {_short(ident)} with the name {_short(name)}; names are texts")
        name = str(name).strip()
        if not isinstance(ident, int):
            raise RequestError(f"{path} has the category {name!r} with the id {_short(ident)}; ids are whole numbers")
        report.facts.classes[ident] = str(category["name"])
        if names.setdefault(ident, name) != name:
            raise RequestError(f"{path} uses the category id {ident} for both {names[ident]!r} and {name!r}")
        if ident != 0 and isinstance(category.get("supercategory"), str):
            parents.add(category["supercategory"])
    # Roboflow writes a category 0 that is only the parent of the others; no box has it.
    if len(names) > 1 and 0 in names and names[0] in parents:
        packed = (PLAIN.unpack(a)[2] if isinstance(a, bytes) else a for a in content["annotations"])
        used = any(a == 0 if isinstance(a, int) else isinstance(a, dict) and a.get("category_id") == 0 for a in packed)
        if not used:
            del report.facts.classes[0]
            report.facts.parents.append(names.pop(0))
    if not names:
        raise RequestError(f"{path} has no categories")
    classes: dict[str, int] = {}
    label_of = {ident: classes.setdefault(names[ident], len(classes)) for ident in sorted(names)}
    first: dict[int, int] = {}
    for ident, label in label_of.items():
        first.setdefault(label, ident)
    return list(classes), label_of, list(first.values())


def _short(value: Any) -> str:
    try:
        return printable(repr(value), 100)
    except RecursionError:
        return "nested too deeply"


def _base(path: Path, root: Path) -> Path:
    """The folder that pictures must lie in: DATA, or what holds the folder ``annotations`` of a JSON given alone."""
    return _beside(path) if root.is_relative_to(_beside(path)) else root


def _beside(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _folder(images: list[Any], path: Path, split: str, root: Path) -> Path:
    """The folder that the file names are relative to: the first one that holds the most of a few tried."""
    step = max(1, len(images) // 16)
    tried = [i["file_name"] for i in images[::step] if isinstance(i, dict) and isinstance(i.get("file_name"), str)]
    base = _beside(path)
    bare = split.rstrip("0123456789_-") or split
    places = (split, f"images/{split}", bare, f"images/{bare}", "", "images", "data", "JPEGImages")
    folders = list(dict.fromkeys([*(base / place for place in places), path.parent, root]))
    inside = [[name for name in tried if not leaves(name, folder, _base(path, root))] for folder in folders]
    found = [sum(os.path.isfile(folder / name) for name in names) for folder, names in zip(folders, inside)]
    if tried and not any(inside):
        raise RequestError(
            f"{path} names images outside the data set, such as {tried[0]}, which are not read: "
            "put them into its folder, or links to them, and name them relative to it"
        )
    if tried and not any(found):
        looked = ", ".join(shown(folder, root) for folder in folders)
        raise RequestError(f"none of the pictures of {path} was found, such as {tried[0]}; looked in {looked}")
    return folders[found.index(max(found))]
