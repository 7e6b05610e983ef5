"""Pascal VOC: one XML a picture, and lists of the pictures of each split.

VOC counts pixels from 1 and includes the last one: xmin 1, xmax 640 is the whole of a picture 640 wide, so the box is
(xmin - 1, ymin - 1, xmax, ymax) in continuous coordinates. Tools that write continuous coordinates into this format
give themselves away by a 0, which VOC does not have: where any xmin or ymin of the data set is 0, all numbers are
taken as they are. A box whose last pixel is its first (or before it) is a slip of the mouse and has no area in either
reading.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers import expat

from retinanet.data.listing import Layout, Listing, number, numbered, picture_files, shown
from retinanet.data.locating import Locator, folded, without_first
from retinanet.data.pictures import SUFFIXES
from retinanet.data.report import RENAMED, Report
from retinanet.errors import RequestError
from retinanet.text import TextError, decode, lines, read_bytes, read_text

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FOLDERS = ("JPEGImages", "Annotations")
DECLARED = re.compile(rb"""^<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
PAIR = re.compile(rf"(.+(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))[\s,]+(\S.*\.xml)", re.IGNORECASE)


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
    lists = {path.stem: stems for path in sorted((root / "ImageSets/Main").glob("*.txt")) if (stems := listed(path))}
    if not lists:
        raise RequestError(
            f"{root} looks like Pascal VOC, but ImageSets/Main has no list of pictures such as train.txt"
        )
    counts = {name: partial(len, stems) for name, stems in lists.items()}
    return Layout("Pascal VOC", root, counts, lambda name, report: _read(root, name, lists, report))


def listed(path: Path) -> list[str]:
    """The pictures of a split, or nothing: VOC's lists of one class have a second column and are no splits.

    A line is a picture's name without its ending; other tools write the picture's path, or that and the XML's.

    Raises:
        RequestError: the list is no text, or a line pairs a picture with the annotations of another.
    """
    rows = [(number, line.strip()) for number, line in enumerate(lines(read_text(path)), 1) if line.strip()]
    of_a_class = all(re.fullmatch(r"\S+\s+(-1|0|1)", row) for _, row in rows)
    if of_a_class and rows and not (path.parents[2] / _file(rows[0][1])).exists():
        return []
    stems = []
    for line, row in rows:
        pair = PAIR.fullmatch(row)
        picture, sheet = pair.groups() if pair else (row, row)
        if _stem(picture) != _stem(sheet):
            raise RequestError(f"{path} line {line} pairs {picture} with {sheet}: their names must be the same")
        stems.append(_stem(picture))
    return stems


def _stem(name: str) -> str:
    """JPEGImages/a.jpg, Annotations/a.xml, /home/me/VOC/JPEGImages/a.jpg -> a; b/a.jpg -> b/a"""
    name = " ".join(name.split())
    if Path(name).suffix.lower() in (*SUFFIXES, ".xml"):
        name = name[: -len(Path(name).suffix)]
    steps = name.replace("\\", "/").split("/")
    last = max((i for i, step in enumerate(steps) if step in FOLDERS), default=-1)
    return "/".join(steps[last + 1 :])


def parse(path: Path) -> Sheet:
    """Read one annotation file.

    Raises:
        expat.ExpatError: it is not XML; TextError: it cannot be read, or is not text in the encoding that it declares.
    """
    sheet, trail = Sheet(), list[str]()
    text: list[str] = []
    parser = expat.ParserCreate("utf-8")

    def start(tag: str, attributes: dict[str, str]) -> None:
        trail.append(tag)
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

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.Parse(_xml(path).encode("utf-8"), True)
    return sheet


def _xml(path: Path) -> str:
    """The text of an XML: by its byte order mark, else in the encoding that it declares, else UTF-8."""
    content = read_bytes(path)
    declared = DECLARED.match(content)
    name = declared[1].decode("ascii") if declared else "utf-8"
    try:
        if codecs.lookup(name).name.startswith(("utf-16", "utf-32")):
            name = "utf-8"  # where it were true, the declaration could not be read as single bytes
        return decode(content, path, codecs.lookup(name).name)
    except (LookupError, UnicodeError):
        raise TextError(path, f"it declares the encoding {name}, which is not known") from None


def _sheets(root: Path, stems: Iterable[str], files: _Files) -> tuple[dict[str, Sheet], dict[str, str]]:
    """The annotations of pictures by their names, and what is wrong with those that cannot be read."""
    sheets: dict[str, Sheet] = {}
    broken: dict[str, str] = {}
    for stem in stems:
        path = files.annotation(stem)
        if path is None:
            continue
        try:
            sheets[stem] = parse(path)
        except expat.ExpatError as error:
            broken[stem] = f"{shown(path, root)} line {error.lineno} column {error.offset + 1}: {_message(error)}"
        except TextError as error:
            broken[stem] = f"{shown(path, root)}: {error.reason}"
    return sheets, broken


def _read(root: Path, split: str, lists: dict[str, list[str]], report: Report) -> Listing:
    everything = dict.fromkeys(stem for stems in lists.values() for stem in stems)
    files = _Files(root, everything)
    sheets, broken = _sheets(root, everything, files)
    # Labels must not depend on the split: classes come from the annotations of all of them.
    entries = [entry for sheet in sheets.values() for entry in sheet.entries]
    classes = {name for entry in entries if (name := entry.values.get("name"))}
    from_zero = any(number(entry.values.get(key)) == 0 for entry in entries for key in CORNERS[:2])
    names = sorted(classes)
    label_of = {name: label for label, name in enumerate(names)}
    stems = list(dict.fromkeys(lists[split]))
    if not names:
        for reason in broken.values():
            report.add("unreadable annotation file", "left out", reason)
        looked = "" if broken or sheets else f"; looked for {root / _file(stems[0])}"
        raise RequestError(
            f"{root / 'Annotations'} names no class: there is no <object> with a <name> in any split{looked}"
        )
    if from_zero:
        report.notes.append("box coordinates count from 0 (some are 0), not from 1 as Pascal VOC's do")
    listing = Listing(names, list(range(1, len(names) + 1)), lambda i, line: f"{_file(stems_read[i])} line {line}")
    stems_read: list[str] = []
    for stem in {s: None for s in lists[split] if lists[split].count(s) > 1} if len(stems) < len(lists[split]) else {}:
        report.add("picture listed twice", "left out", f"ImageSets/Main/{split}.txt: {stem}")
    background = 0
    for stem, ident in zip(stems, numbered(stems)):
        if stem in broken:
            report.add("unreadable annotation file", "left out", broken[stem])
            continue
        sheet = sheets.get(stem, Sheet())
        background += stem not in sheets
        height, width = (number(sheet.size.get(side)) for side in ("height", "width"))
        known = 0 < height < 1 << 31 and 0 < width < 1 << 31
        path = files.picture(stem)
        if stem in files.renamed:
            report.add(RENAMED, "repaired", files.renamed[stem])
        if path.stem != Path(stem).name:
            report.add(RENAMED, "repaired", f"{stem} is {shown(path, root)}")
        picture = listing.add_picture(path, ident, (int(height), int(width)) if known else (0, 0))
        stems_read.append(stem)
        for entry in sheet.entries:
            _add(listing, picture, entry, label_of, f"{_file(stem)} line {entry.line}", from_zero, report)
    if background == len(stems_read) > 0:
        raise RequestError(
            f"none of the {background} pictures of {split} has an annotation file in {root}/Annotations, such as "
            f"{Path(_file(stems_read[0])).name}"
        )
    if background:
        report.notes.append(f"{background} pictures without an annotation file are background")
    return listing


class _Files:
    """The files of a picture, by its name in a list."""

    def __init__(self, root: Path, stems: Collection[str]) -> None:
        self._root, self._stems, self._locator = root, stems, Locator()
        self._times = Counter(Path(stem).name for stem in stems)
        self.renamed: dict[str, str] = {}
        """For each XML that lies under another name: which for which."""
        folder = root / "JPEGImages"
        self._pictures = {path.relative_to(folder).with_suffix("").as_posix(): path for path in picture_files(folder)}
        self._alike: dict[str, list[Path]] = {}  # pictures in any folder, in any case
        for path in self._pictures.values():
            self._alike.setdefault(folded(path.stem), []).append(path)

    def annotation(self, stem: str) -> Path | None:
        """The XML of that name, in another spelling, or without folders that are those of another machine."""
        path = self._root / _file(stem)
        if path.exists():
            return path
        name: str | None = stem
        steps = 0
        while name is not None:
            located = self._locator.find(self._root / "Annotations", f"{name}.xml")
            if located is not None:
                if self._is_anothers(stem, located, "Annotations"):
                    return None
                self.renamed[stem] = f"{_file(stem)} is {shown(located, self._root)}"
                return located
            # Of two listed pictures of one name in different folders it would be that of either.
            name = without_first(stem, steps) if self._times[Path(stem).name] == 1 else None
            steps += 1
        return None

    def picture(self, stem: str) -> Path:
        """The picture of that name; where there is none, the only one that differs in folder, case or accents."""
        if stem in self._pictures:
            return self._pictures[stem]
        alike = self._alike.get(folded(Path(stem).name), [])
        if len(alike) != 1 or self._times[Path(stem).name] > 1 or self._is_anothers(stem, alike[0], "JPEGImages"):
            return self._root / "JPEGImages" / f"{stem}.jpg"
        return alike[0]

    def _is_anothers(self, stem: str, path: Path, folder: str) -> bool:
        """Whether a file is that of another listed name, just as it is written."""
        name = path.relative_to(self._root / folder).with_suffix("").as_posix()
        return name != stem and name in self._stems


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
