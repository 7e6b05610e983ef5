"""Reads Pascal VOC's annotation files: an XML with the objects of one image.

VOC counts pixels from 1 and includes the last one. So xmin 1 and xmax 640 span an image 640 pixels wide, and the box is
(xmin - 1, ymin - 1, xmax, ymax) in continuous coordinates. Some tools write continuous coordinates in this format. VOC
itself has no 0: where any xmin or ymin of the data set is 0, all numbers are used as they are. A box whose last pixel
is not behind its first is a slip of the mouse, and has no area in either case.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from retinanet.common.text import SHEET, TextError, decode, read_bytes
from retinanet.data.faults import Report
from retinanet.data.formats.listing import Listing, number, shown

NO_XML = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode_escape", "unicode-escape")
"""Python's encodings that no XML has; some take hours for a few megabytes."""
DEEPEST = 50  # nested elements; VOC's own are four deep
TRUE, FALSE = ("1", "1.0", "true", "yes"), ("", "0", "0.0", "false", "no", "unspecified")  # of <difficult>
CORNERS = ("xmin", "ymin", "xmax", "ymax")
DECLARED = re.compile(rb"""^<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
FROM_ZERO = "box coordinates count from 0 (some are 0), not from 1 as in Pascal VOC"


@dataclass
class Entry:
    """An <object> of an annotation file."""

    line: int
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class Sheet:
    """The content of an annotation file."""

    size: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    filename: str = ""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image as annotated; 0 where unknown."""
        height, width = (number(self.size.get(side)) for side in ("height", "width"))
        known = 0 < height < 1 << 31 and 0 < width < 1 << 31
        return (int(height), int(width)) if known else (0, 0)


def parse(path: Path) -> Sheet:
    """Read one annotation file.

    Raises:
        expat.ExpatError: it is not XML.
        TextError: it cannot be read, is not text in the encoding that it declares, declares entities, or is nested too
            deeply.
    """
    sheet, trail = Sheet(), list[str]()
    text: list[str] = []
    parser = expat.ParserCreate("utf-8")

    def start(tag: str, attributes: dict[str, str]) -> None:
        trail.append(tag)
        if len(trail) > DEEPEST:
            raise TextError(path, f"line {parser.CurrentLineNumber}: more than {DEEPEST} nested elements")
        text.clear()
        if trail[1:] == ["object"]:
            sheet.entries.append(Entry(parser.CurrentLineNumber))

    def end(tag: str) -> None:
        match trail[1:]:  # VOC's <part>s of an object are deeper, and not read
            case ["filename"]:
                sheet.filename = "".join(text).strip()
            case ["size", name]:
                sheet.size[name] = "".join(text).strip()
            case ["object", name] | ["object", "bndbox", name]:
                sheet.entries[-1].values[name] = "".join(text).strip()
        trail.pop()
        text.clear()

    def entity(name: str, *_: object) -> None:  # a few entities can stand for gigabytes, or for another file
        raise TextError(path, f"line {parser.CurrentLineNumber}: it declares the entity {name}, which is not read")

    parser.EntityDeclHandler = entity
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.Parse(_xml(path), True)
    return sheet


def _xml(path: Path) -> bytes:
    """An XML as UTF-8, decoded by its byte order mark, else by the encoding that it declares, else as UTF-8."""
    content = read_bytes(path, SHEET)
    declared = DECLARED.match(content)
    name = declared[1].decode("ascii") if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
        if codec in NO_XML:
            raise LookupError
        if codec.startswith(("utf-16", "utf-32")):
            codec = "utf-8"  # the declaration is wrong: it could not be read as single bytes otherwise
        return decode(content, path, codec).encode("utf-8")
    except (LookupError, UnicodeError):
        raise TextError(path, f"it declares the encoding {name}, which is not known") from None


@dataclass
class Sheets:
    """The annotations of a split, with facts about all splits, because labels must not depend on the split."""

    of: dict[str, Sheet] = field(default_factory=dict)
    """The annotation file of each image, by the image's name."""
    broken: dict[str, str] = field(default_factory=dict)
    """The reason why an annotation file cannot be read, by the image's name; for all splits."""
    classes: set[str] = field(default_factory=set)
    from_zero: bool = False


def gather(files: Iterable[tuple[str, Path]], wanted: Collection[str], root: Path) -> Sheets:
    """Read the annotation files of all splits.

    Args:
        files: the name of an image, and its annotation file.
        wanted: the names of the images of the split that is read.
    """
    sheets = Sheets()
    for image, sheet in _parsed(files, root):
        if isinstance(sheet, str):
            sheets.broken[image] = sheet
            continue
        sheets.classes.update(name for entry in sheet.entries if (name := entry.values.get("name")))
        sheets.from_zero |= any(number(entry.values.get(key)) == 0 for entry in sheet.entries for key in CORNERS[:2])
        if image in wanted:
            sheets.of[image] = sheet
    return sheets


def _parsed(files: Iterable[tuple[str, Path]], root: Path) -> Iterator[tuple[str, Sheet | str]]:
    """Names of images, each with its annotations or the reason why these cannot be read."""
    for name, path in files:
        try:
            yield name, parse(path)
        except expat.ExpatError as error:
            yield (
                name,
                f"{shown(path, root)} line {error.lineno} column {error.offset + 1}: {expat.ErrorString(error.code)}",
            )
        except TextError as error:
            yield name, f"{shown(path, root)}: {error.reason}"


def add_object(
    listing: Listing, image: int, entry: Entry, label_of: dict[str, int], where: str, from_zero: bool, report: Report
) -> None:
    name = entry.values.get("name")
    if not name:
        report.add("malformed annotation", "left out", f"{where}: the object has no name")
        return
    if missing := [key for key in CORNERS if key not in entry.values]:
        report.add("malformed annotation", "left out", f"{where}: the object has no {' '.join(missing)}")
        return
    x1, y1, x2, y2 = (number(entry.values[key]) for key in CORNERS)
    if not from_zero and x1 < x2 and y1 < y2:
        x1, y1 = x1 - 1, y1 - 1
    # "difficult" objects count neither for nor against a detector, like COCO's crowd regions.
    difficult = entry.values.get("difficult", "").lower()
    if difficult not in (*TRUE, *FALSE):
        report.add("malformed annotation", "left out", f"{where}: difficult is {difficult}, neither 0 nor 1")
        return
    listing.add_box(image, (x1, y1, x2, y2), label_of[name], entry.line, difficult in TRUE)
