"""Reads labelme's layout: a JSON beside each image. Polygons, circles and masks are read as the box around them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from retinanet.common.errors import RequestError
from retinanet.common.text import LIST, TextError, read_text
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.image_lookup import ImageLookup
from retinanet.data.formats.listing import WHOLE, Layout, Listing, beginning, image_files, number, numbered, shown
from retinanet.data.formats.outlines import NO_BOX, Box, around
from retinanet.data.formats.safe_paths import files_below
from retinanet.data.formats.split_folders import child, split_folders
from retinanet.data.image_io import SUFFIXES

TRIED = 5  # JSON files that are inspected in a folder
HEAD = 1 << 20  # characters by which a file is recognised
FOLDERS = ("labels", "annotations", "json", "jsons")
OUTLINES = ("polygon", "oriented_rectangle", "rotation")
"""Shapes whose points are an outline; "rotation" is X-AnyLabeling's."""


def find(root: Path) -> Layout | None:
    """Recognise a folder of labelme's JSON files, or such folders for the splits."""
    if root.is_file():
        if not _is_sheet(root):
            return None
        raise RequestError(f"{root} is labelme's file of one image: give its folder")
    folders = {name: folder for name, folder in split_folders(root).items() if _has_sheets(folder)}
    whole = not folders
    if whole:
        inner = child(root, FOLDERS)
        folder = next((each for each in (root, inner) if each is not None and _has_sheets(each)), None)
        folders = {} if folder is None else {WHOLE: folder}
    if not folders:
        return None
    counts = {name: partial(_count, folder) for name, folder in folders.items()}
    return Layout("labelme", root, counts, partial(_read, root, folders), any_split=whole)


def _has_sheets(folder: Path) -> bool:
    files = itertools.islice((path for path in sorted(folder.glob("*.json")) if path.is_file()), TRIED)
    return any(_is_sheet(path) for path in files)


def _is_sheet(path: Path) -> bool:
    head = beginning(path, HEAD)
    return '"shapes"' in head and any(key in head for key in ('"imagePath"', '"imageData"', '"version"'))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.suffix.lower() == ".json" and not path.name.startswith("."))


def _count(folder: Path) -> int:
    return sum(1 for _ in _files(folder))


def _load(path: Path, root: Path) -> dict[str, Any] | str:
    """The content of a file without its embedded image, or the reason why it cannot be read."""
    try:
        content = json.loads(read_text(path, LIST))
    except json.JSONDecodeError as error:
        return f"{shown(path, root)} line {error.lineno} column {error.colno}: {error.msg}"
    except TextError as error:
        return f"{shown(path, root)}: {error.reason}"
    except (RecursionError, ValueError):
        return f"{shown(path, root)}: nested too deeply, or a number is too long"
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return f"{shown(path, root)}: it has no list 'shapes'"
    content["imageData"] = bool(content.get("imageData"))
    return content


def _read(root: Path, folders: dict[str, Path], split: str, report: Report) -> Listing:
    names = sorted(_names(root, folders))
    if not names:
        raise RequestError(f"no shape in the JSON files of {root} has a label")
    label_of = {name: label for label, name in enumerate(names)}
    files: list[str] = []
    lookups: dict[Path, ImageLookup] = {}  # one for each folder: it lists all images at most once
    listing = Listing(
        names,
        list(range(1, len(names) + 1)),
        lambda i, position: f"{files[i]} shape {position + 1}",
        sheet="a JSON",
    )
    for path in _files(folders[split]):
        content = _load(path, root)
        if isinstance(content, str):
            report.add("unreadable annotation file", "left out", content)
            continue
        lookup = lookups.setdefault(path.parent, ImageLookup(root, [path.parent]))
        image = _image(path, root, content, lookup, report)
        if image is None:
            continue
        sides = [number(content.get(key)) for key in ("imageHeight", "imageWidth")]
        height, width = (int(side) if 1 <= side < 1 << 31 else 0 for side in sides)
        index = listing.add_image(image, 0, (height, width) if height and width else (0, 0))
        files.append(shown(path, root))
        for position, shape in enumerate(content["shapes"]):
            _add(listing, index, shape, label_of, position, f"{files[-1]} shape {position + 1}", report)
    listed = {Path(path) for path in listing.paths}
    others = [image for image in image_files(folders[split]) if image not in listed]
    for image in others:
        listing.unlabelled.append(listing.add_image(image, 0))
        files.append(shown(image, root))
    listing.ids = numbered([Path(path).stem for path in listing.paths])
    if report.facts.polygons:
        report.notes.append(f"{report.facts.polygons} polygons, circles or masks are read as the box around them")
    return listing


def _names(root: Path, folders: dict[str, Path]) -> set[str]:
    """The labels of all splits, because labels must not depend on the split."""
    names = set()
    for path in (path for folder in folders.values() for path in _files(folder)):
        content = _load(path, root)
        for shape in content["shapes"] if isinstance(content, dict) else ():
            label = shape.get("label") if isinstance(shape, dict) else None
            if isinstance(label, str) and label.strip() and _takes_part(shape):
                names.add(label.strip())
    return names


def _takes_part(shape: dict[str, Any]) -> bool:
    return (shape.get("shape_type") or "polygon") in ("rectangle", "circle", "mask", *OUTLINES)


def _image(path: Path, root: Path, content: dict[str, Any], lookup: ImageLookup, report: Report) -> Path | None:
    """The image of a file: as it names it, or of the same name; the path that it should have if there is none."""
    written = content.get("imagePath")
    name = written.replace("\\", "/") if isinstance(written, str) else ""
    beside = next((image for image in _beside(path)), None)
    if beside is not None and Path(name).name in ("", beside.name):
        return beside
    image = lookup.locate(name, shown(path, root), Report()) if name else None
    if image is not None and image.is_file():
        return image
    if beside is not None:
        report.add(RENAMED, "repaired", f"{shown(path, root)}: {name} is {shown(beside, root)}")
        return beside
    if content["imageData"]:
        text = f"{shown(path, root)}: {name}, which is only in the JSON (imageData): save it beside"
        report.add("missing image", "left out", text)
        return None
    return lookup.locate(name or path.with_suffix(".jpg").name, shown(path, root), report)


def _beside(path: Path) -> Iterator[Path]:
    """The images beside a file that have its name."""
    for suffix in sorted(SUFFIXES):
        for each in (suffix, suffix.upper()):
            if (image := path.with_suffix(each)).is_file():
                yield image


def _add(
    listing: Listing, image: int, shape: Any, label_of: dict[str, int], position: int, where: str, report: Report
) -> None:
    try:
        kind = shape.get("shape_type") or "polygon"
        label = label_of.get(str(shape["label"]).strip())
        if not _takes_part(shape):
            report.add(NO_BOX, "left out", f"{where}: {kind}")
            return
        box = _box(kind, [(number(x), number(y)) for x, y in shape["points"]])
    except (AttributeError, KeyError, TypeError, ValueError):
        report.add("malformed annotation", "left out", f"{where}: needs label, points and shape_type")
        return
    if label is None:
        report.add("malformed annotation", "left out", f"{where}: no label")
        return
    report.facts.polygons += kind != "rectangle"
    listing.add_box(image, box, label, position)


def _box(kind: str, points: list[tuple[float, float]]) -> Box:
    """
    Raises:
        ValueError: the shape has another number of points.
    """
    if kind == "circle":  # its centre and a point on it
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        return x - radius, y - radius, x + radius, y + radius
    if kind in ("rectangle", "mask") and len(points) not in (2, 4):
        raise ValueError("two corners")
    return around(points)
