"""Pascal VOC: one XML a picture, and lists of the pictures of each split.

VOC counts pixels from 1 and includes the last one: xmin 1, xmax 640 is the whole of a picture 640 wide, so the box is
(xmin - 1, ymin - 1, xmax, ymax) in continuous coordinates. Tools that write continuous coordinates into this format
give themselves away by a 0, which VOC does not have: where any xmin or ymin of the data set is 0, all numbers are
taken as they are. A box whose last pixel is its first (or before it) is a slip of the mouse and has no area in either
reading.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers import expat

from retinanet.data.listing import Layout, Listing, number, numbered, picture_files, shown
from retinanet.data.pictures import SUFFIXES
from retinanet.data.report import Report
from retinanet.data.safe_files import LIST, OUTSIDE, SHEET, leaves, read_bytes, read_text
from retinanet.errors import RequestError

NESTED = 50  # VOC's own elements lie four deep
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class Entry:
    """One <object>."""

    line: int
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class Sheet:
    """One annotation file."""

    size: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)


def find(root: Path) -> Layout | None:
    """Recognise a folder with JPEGImages, Annotations and ImageSets/Main."""
    if not root.is_dir() or not (root / "Annotations").is_dir() or not (root / "JPEGImages").is_dir():
        return None
    lists = {path.stem: stems for path in sorted((root / "ImageSets/Main").glob("*.txt")) if (stems := _stems(path))}
    if not lists:
        raise RequestError(
            f"{root} looks like Pascal VOC, but ImageSets/Main has no list of pictures such as train.txt"
        )
    counts = {name: partial(len, stems) for name, stems in lists.items()}
    return Layout("Pascal VOC", root, counts, lambda name, report: _read(root, name, lists, report))


def _stems(path: Path) -> list[str]:
    """The pictures of a split, or nothing: VOC's lists of one class have a second column and are no splits."""
    try:
        rows = [line.split() for line in read_text(path, LIST).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if rows and len(rows[0]) == 2 and rows[0][1] in ("-1", "0", "1"):
        return []
    names = (" ".join(row) for row in rows)
    return [name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name for name in names]


def parse(path: Path) -> Sheet:
    """Read one annotation file.

    Raises:
        expat.ExpatError: it is not XML; OSError: it cannot be read; ValueError, LookupError: it has entities of its
            own, elements far too deep in each other, or an unknown encoding.
    """
    sheet, trail = Sheet(), list[str]()
    text: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        trail.append(tag)
        if len(trail) > NESTED:
            raise ValueError(f"line {parser.CurrentLineNumber}: more than {NESTED} elements inside each other")
        text.clear()
        if trail[1:] == ["object"]:
            sheet.entries.append(Entry(parser.CurrentLineNumber))

    def end(tag: str) -> None:
        match trail[1:]:  # VOC's <part>s of an object lie deeper and are not looked at
            case ["size", name]:
                sheet.size[name] = "".join(text).strip()
            case ["object", name] | ["object", "bndbox", name]:
                sheet.entries[-1].values[name] = "".join(text).strip()
        trail.pop()
        text.clear()

    def entity(name: str, *_: object) -> None:  # a few lines of them can stand for gigabytes, or for another file
        raise ValueError(f"line {parser.CurrentLineNumber}: it declares the entity {name}, which is not read")

    parser.EntityDeclHandler = entity
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.Parse(read_bytes(path, SHEET), True)
    return sheet


def _read(root: Path, split: str, lists: dict[str, list[str]], report: Report) -> Listing:
    # Labels must not depend on the split: classes come from the annotations of all of them.
    wanted = set(lists[split])
    sheets: dict[str, Sheet] = {}
    broken: dict[str, str] = {}
    outside: set[str] = set()
    classes: set[str] = set()
    from_zero = False
    for stem in dict.fromkeys(stem for stems in lists.values() for stem in stems):
        path = root / "Annotations" / f"{stem}.xml"
        if leaves(f"{stem}.xml", path.parent, root):
            outside.add(stem)
            continue
        try:
            sheet = parse(path)
        except FileNotFoundError:
            continue
        except expat.ExpatError as error:
            broken[stem] = f"{shown(path, root)} line {error.lineno} column {error.offset + 1}: {_message(error)}"
            continue
        except (OSError, ValueError, LookupError) as error:
            broken[stem] = f"{shown(path, root)}: {getattr(error, 'strerror', None) or error}"
            continue
        classes.update(name for entry in sheet.entries if (name := entry.values.get("name")))
        from_zero |= any(number(entry.values.get(key)) == 0 for entry in sheet.entries for key in CORNERS[:2])
        if stem in wanted:
            sheets[stem] = sheet

    names = sorted(classes)
    label_of = {name: label for label, name in enumerate(names)}
    stems = list(dict.fromkeys(lists[split]))
    if not names:
        raise RequestError(f"{root / 'Annotations'} names no class: there is no <object> with a <name> in any split")
    if from_zero:
        report.notes.append("box coordinates count from 0 (some are 0), not from 1 as Pascal VOC's do")
    listing = Listing(names, list(range(1, len(names) + 1)), lambda i, line: f"{_file(stems_read[i])} line {line}")
    stems_read: list[str] = []
    files = {path.stem: path for path in picture_files(root / "JPEGImages")}
    for stem in [stem for stem, times in Counter(lists[split]).items() if times > 1]:
        report.add("picture listed twice", "left out", f"ImageSets/Main/{split}.txt: {stem}")
    background = 0
    for stem, ident in zip(stems, numbered(stems)):
        if stem in outside:
            report.add(OUTSIDE, "left out", f"ImageSets/Main/{split}.txt: {stem}")
            continue
        if stem in broken:
            report.add("unreadable annotation file", "left out", broken[stem])
            continue
        sheet = sheets.get(stem, Sheet())
        background += stem not in sheets
        height, width = (number(sheet.size.get(side)) for side in ("height", "width"))
        known = 0 < height < 1 << 31 and 0 < width < 1 << 31
        path = files.get(Path(stem).name, root / "JPEGImages" / f"{stem}.jpg")
        picture = listing.add_picture(path, ident, (int(height), int(width)) if known else (0, 0))
        stems_read.append(stem)
        for entry in sheet.entries:
            _add(listing, picture, entry, label_of, f"{_file(stem)} line {entry.line}", from_zero, report)
    if background == len(stems_read) > 0:
        raise RequestError(f"none of the {background} pictures of {split} has an annotation file in {root}/Annotations")
    if background:
        report.notes.append(f"{background} pictures without an annotation file are background")
    return listing


def _add(
    listing: Listing, picture: int, entry: Entry, label_of: dict[str, int], where: str, from_zero: bool, report: Report
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
    # "difficult" objects count neither for nor against a detector: what COCO's crowd regions are.
    listing.add_box(picture, (x1, y1, x2, y2), label_of[name], entry.line, entry.values.get("difficult") == "1")


def _file(stem: str) -> str:
    return f"Annotations/{stem}.xml"


def _message(error: expat.ExpatError) -> str:
    return expat.ErrorString(error.code)
