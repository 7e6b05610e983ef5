"""Reads "CVAT for images 1.1": one XML with the boxes of all images. A project's subsets are splits.

CVAT's COCO and YOLO exports are read as those layouts. "CVAT for video" has tracks of frames without files: it is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers import expat

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError
from retinanet.common.text import CHUNK, TextError, require_regular
from retinanet.data.faults import Report
from retinanet.data.formats.image_lookup import ImageLookup
from retinanet.data.formats.listing import WHOLE, Layout, Listing, number, shown
from retinanet.data.formats.outlines import NO_BOX, ROTATED, around, rotated

ROOT = re.compile(rb"<annotations[\s>]")
HEAD = 1 << 16
DEEPEST = 50
SHAPES = ("box", "polygon", "mask", "polyline", "points", "ellipse", "cuboid", "skeleton")
FILES = ("annotations.xml", "annotations/annotations.xml")


@dataclass
class _Shape:
    tag: str
    line: int
    values: dict[str, str]


@dataclass
class _Image:
    line: int
    values: dict[str, str]
    shapes: list[_Shape] = field(default_factory=list)


def find(root: Path) -> Layout | None:
    """Recognise annotations.xml, in a folder or as this file."""
    path = root if root.is_file() else next((root / name for name in FILES if (root / name).is_file()), None)
    if path is None or not _is_export(path):
        return None
    folder = path.parent if root.is_file() else root
    subsets = dict.fromkeys(image.values.get("subset") or WHOLE for image in _images(path, []))
    counts = {name: partial(_count, path, name) for name in subsets or (WHOLE,)}
    unnamed = not subsets or set(subsets) <= {WHOLE, "default"}
    return Layout("CVAT", folder, counts, partial(_read, folder, path), any_split=unnamed and len(counts) == 1)


def _is_export(path: Path) -> bool:
    try:
        require_regular(path)
        with open(path, "rb") as file:
            return bool(ROOT.search(file.read(HEAD)))
    except OSError:
        return False


def _count(path: Path, subset: str) -> int:
    return sum((image.values.get("subset") or WHOLE) == subset for image in _images(path, []))


def _images(path: Path, labels: list[str]) -> Iterator[_Image]:
    """The images of a file, one after the other: the file may be larger than the memory.

    Args:
        labels: gets the names of the classes that the file declares, before the first image.

    Raises:
        RequestError: it is not XML, declares entities, or has tracks of a video; the message names the line.
    """
    parser = expat.ParserCreate()
    trail: list[str] = []
    text: list[str] = []
    complete: list[_Image] = []

    def line() -> int:
        return parser.CurrentLineNumber

    def start(tag: str, values: dict[str, str]) -> None:
        trail.append(tag)
        text.clear()
        if len(trail) > DEEPEST:
            raise RequestError(f"{path} line {line()}: more than {DEEPEST} nested elements")
        if trail[1:] == ["track"]:
            raise RequestError(f"{path} line {line()}: it is CVAT for video; export as CVAT for images, COCO or YOLO")
        if trail[1:] == ["image"]:
            complete.append(_Image(line(), values))
        elif trail[1:-1] == ["image"] and tag in SHAPES:
            complete[-1].shapes.append(_Shape(tag, line(), values))

    def end(tag: str) -> None:
        if trail[-3:] == ["labels", "label", "name"]:
            labels.append("".join(text).strip())
        trail.pop()

    def entity(name: str, *_: object) -> None:
        raise RequestError(f"{path} line {line()}: it declares the entity {name}, which is not read")

    parser.EntityDeclHandler, parser.CharacterDataHandler = entity, text.append
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        require_regular(path)
        with open(path, "rb") as file:
            while chunk := file.read(min(CHUNK, 1 << 20)):
                parser.Parse(chunk, False)
                yield from complete[:-1]  # the last may go on
                del complete[:-1]
            parser.Parse(b"", True)
            yield from complete
    except OSError as error:
        raise TextError(path, what_is_wrong(error)) from None
    except LookupError:  # by expat, of a name that Python has no codec for
        raise RequestError(f"{path} declares an encoding that is not known: save it as UTF-8") from None
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise RequestError(f"{path} line {error.lineno} column {error.offset + 1} is not XML: {reason}") from None


def _read(root: Path, path: Path, split: str, report: Report) -> Listing:
    declared: list[str] = []
    used = {shape.values.get("label", "").strip() for image in _images(path, declared) for shape in image.shapes}
    names = list(dict.fromkeys([*declared, *sorted(used)]))
    names = [name for name in names if name]
    if not names:
        raise RequestError(f"{path} names no class")
    label_of = {name: label for label, name in enumerate(names)}
    file = shown(path, root)
    listing = Listing(names, list(range(1, len(names) + 1)), lambda _, line: f"{file} line {line}")
    folders = [path.parent / "images" / split, path.parent / "images", path.parent / split, root / "images", root]
    lookup = ImageLookup(root, folders)
    seen: set[str] = set()
    for image in _images(path, []):
        if (image.values.get("subset") or WHOLE) != split:
            continue
        where = f"{file} line {image.line}"
        name = image.values.get("name", "")
        if not name or name in seen:
            kind = "image listed twice" if name else "malformed image entry"
            report.add(kind, "left out", f"{where}: {name or 'no name'}")
            continue
        seen.add(name)
        located = lookup.locate(name, where, report)
        if located is None:
            continue
        ident, height, width = (number(image.values.get(key)) for key in ("id", "height", "width"))
        known = all(1 <= side < 1 << 31 for side in (height, width))
        number_id = int(ident) if 0 <= ident < 1 << 53 else len(listing.paths)
        index = listing.add_image(located, number_id, (int(height), int(width)) if known else (0, 0))
        for shape in image.shapes:
            _add(listing, index, shape, label_of, f"{file} line {shape.line}", report)
    if report.facts.polygons:
        report.notes.append(f"{report.facts.polygons} polygons, masks or ellipses are read as the box around them")
    return listing


def _add(listing: Listing, image: int, shape: _Shape, label_of: dict[str, int], where: str, report: Report) -> None:
    label = label_of.get(shape.values.get("label", "").strip())
    if label is None:
        report.add("malformed annotation", "left out", f"{where}: no label")
        return
    try:
        match shape.tag:
            case "box":
                box = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
            case "mask":
                left, top, width, height = _numbers(shape, "left", "top", "width", "height")
                box = (left, top, left + width, top + height)
            case "ellipse":
                x, y, across, down = _numbers(shape, "cx", "cy", "rx", "ry")
                box = (x - across, y - down, x + across, y + down)
            case "polygon":
                pairs = (pair.split(",") for pair in shape.values["points"].split(";"))
                box = around((number(x), number(y)) for x, y in pairs)
            case _:
                report.add(NO_BOX, "left out", f"{where}: {shape.tag}")
                return
    except (KeyError, ValueError):
        report.add("malformed annotation", "left out", f"{where}: {shape.tag} without its coordinates")
        return
    degrees = number(shape.values.get("rotation", 0))
    if degrees % 360 != 0:  # about the centre
        box = rotated(box, degrees, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        report.add(ROTATED, "repaired", f"{where}: {degrees:g} degrees")
    report.facts.polygons += shape.tag != "box"
    listing.add_box(image, box, label, shape.line)


def _numbers(shape: _Shape, *names: str) -> tuple[float, float, float, float]:
    first, second, third, fourth = (number(shape.values[name]) for name in names)
    return first, second, third, fourth
