"""YOLO: a YAML with splits and class names; beside ``images`` a folder ``labels`` with one text file a picture.

A line is ``class cx cy w h`` in units of the picture's sides, or ``class x1 y1 x2 y2 x3 y3 …``, a polygon whose
bounding box is taken. A picture without a label file is a background picture.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from retinanet.data import safe_yaml
from retinanet.data.listing import Layout, Listing, number, numbered, picture_files, shown
from retinanet.data.pictures import SUFFIXES
from retinanet.data.report import Report
from retinanet.data.safe_files import LIST, SHEET, leaves, read_text
from retinanet.errors import RequestError

SPLITS = ("train", "val", "valid", "validation", "test")
CLASSES = 100_000  # that a number alone may stand for
DESCRIPTION = 1 << 20  # bytes of the YAML
LINE = 1 << 20  # characters of a line, an outline of some 50 000 points


def find(root: Path) -> Layout | None:
    """Recognise a YAML, or a folder with one, that has ``names`` or ``nc`` and says where its splits are."""
    if root.is_file():
        content = _load(root)
        if not _describes(content):
            raise RequestError(f"{root} describes no data set: it needs names (or nc) and paths for train, val or test")
        return _layout(root, content)
    files = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    described = [(path, content) for path in files if _describes(content := _load(path))]
    if len(described) > 1:
        names = ", ".join(path.name for path, _ in described)
        raise RequestError(f"{root} has several YOLO data sets: {names}; give one of these files instead of the folder")
    if described:
        return _layout(*described[0])
    if (root / "images").is_dir() and (root / "labels").is_dir():
        raise RequestError(
            f"{root} looks like YOLO, but has no YAML with the class names: write data.yaml with the lines "
            "'train: images/train', 'val: images/val' and 'names: [first, second]'"
        )
    return None


def _load(path: Path) -> Any:
    import yaml

    try:
        return safe_yaml.load(read_text(path, DESCRIPTION))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        problem = (getattr(error, "problem", None) or str(error)).splitlines()[0]
        raise RequestError(f"{path}{where} is not valid YAML: {problem}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _describes(content: Any) -> bool:
    return isinstance(content, dict) and ("names" in content or "nc" in content) and any(content.get(s) for s in SPLITS)


def _layout(path: Path, content: dict[str, Any]) -> Layout:
    names = _class_names(path, content)
    splits = {split: content[split] for split in SPLITS if content.get(split)}
    bases = list(dict.fromkeys([path.parent / str(content.get("path") or "."), path.parent]))

    def find_pictures(split: str) -> list[Path]:
        entries = splits[split] if isinstance(splits[split], list) else [splits[split]]
        return [picture for entry in entries for picture in _pictures(entry, bases, path, split)]

    def count(split: str) -> int:
        try:
            return len(find_pictures(split))
        except RequestError:  # a split whose folder is not there, as in half-downloaded data
            return 0

    return Layout(
        "YOLO",
        path.parent,
        {split: partial(count, split) for split in splits},
        lambda split, report: _read(path.parent, split, find_pictures(split), names, report),
    )


def _class_names(path: Path, content: dict[str, Any]) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(count, int) and count > CLASSES:
        raise RequestError(f"{path}: nc is {count}; there are {CLASSES} classes at most")
    if names is None and isinstance(count, int):
        names = [str(i) for i in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(key, int) for key in names):
        raise RequestError(f"{path}: names must be a list of class names, or a mapping of numbers to names")
    if isinstance(count, int) and count != len(names):
        raise RequestError(f"{path}: nc is {count}, but there are {len(names)} names")
    return {key: str(names[key]) for key in sorted(names)}


def _pictures(entry: Any, bases: list[Path], path: Path, split: str) -> list[Path]:
    """The pictures of one entry: a folder, a text file of paths, or one picture."""
    # Roboflow's exports write ../train/images for a folder that lies beside the YAML.
    steps = [str(entry), str(entry).removeprefix("../")]
    for place in (base / step for step in steps for base in bases):
        if os.path.isdir(place):
            _require_below(place, bases, path, split)
            return list(picture_files(place))
        if os.path.isfile(place) and place.suffix.lower() in SUFFIXES:
            return [place]
        if os.path.isfile(place):
            # "./" is the list's own folder, as in COCO's lists; other relative paths may be the data set's.
            return [_listed(line, [place.parent, *bases]) for line in _lines_of_list(place)]
    raise RequestError(f"{path}: {split} is {entry}, which is neither in {' nor in '.join(map(str, bases))}")


def _require_below(folder: Path, bases: list[Path], path: Path, split: str) -> None:
    """A folder that holds the data set, such as /, is none of its splits: all files of a machine may lie in it."""
    absolute = os.path.abspath(folder)
    above = [base for base in map(os.path.abspath, bases) if base != absolute and Path(base).is_relative_to(absolute)]
    if above or absolute == os.path.dirname(absolute):
        raise RequestError(f"{path}: {split} is {folder}, which holds more than the data set: name the images' folder")


def _lines_of_list(place: Path) -> list[str]:
    """The lines of a list of pictures; another text is refused, and not quoted, as it may be anybody's."""
    try:
        lines = [line.strip() for line in read_text(place, LIST).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {place}: {getattr(error, 'strerror', None) or error}") from None
    lines = [line for line in lines if line]
    others = sum(os.path.splitext(line)[1].lower() not in SUFFIXES for line in lines)
    if others > len(lines) / 2:
        raise RequestError(f"{place} is no list of pictures: {others} of its {len(lines)} lines name none")
    return lines


def _listed(line: str, bases: list[Path]) -> Path:
    return next((base / line for base in bases if os.path.isfile(base / line)), bases[0] / line)


def label_file(picture: Path) -> Path:
    """images/a/b.jpg -> labels/a/b.txt; beside the picture where no folder is called images."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        last = max(i for i, part in enumerate(parts[:-1]) if part == "images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read(root: Path, split: str, found: list[Path], names: dict[int, str], report: Report) -> Listing:
    classes: dict[str, int] = {}
    label_of = {key: classes.setdefault(name.strip(), len(classes)) for key, name in names.items()}
    first: dict[int, int] = {}
    for key, label in label_of.items():
        first.setdefault(label, key)
    report.facts.classes = dict(names)
    paths: list[str] = []  # not the listing: what names boxes may outlive its arrays
    listing = Listing(
        list(classes),
        list(first.values()),
        lambda i, line: f"{shown(label_file(Path(paths[i])), root)} line {line}",
        fractions=True,
        meaning="centre and sides",
        paths=paths,
    )
    label_files: list[Path] = []
    pictures = list(dict.fromkeys(found))
    if len(pictures) < len(found):
        seen: set[Path] = set()
        for picture in found:
            if picture in seen:
                report.add("picture listed twice", "left out", f"{split}: {shown(picture, root)}")
            seen.add(picture)
    background = 0
    for picture, ident in zip(pictures, numbered([picture.stem for picture in pictures])):
        index = listing.add_picture(picture, ident)
        label_files.append(label_file(picture))
        try:
            text = read_text(label_files[-1], SHEET)
        except FileNotFoundError:
            background += 1
            continue
        except (OSError, ValueError) as error:  # not there to be read, not UTF-8, or no path at all
            listing.paths.pop(), listing.ids.pop(), label_files.pop()
            del listing.sizes[-2:]
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            report.add("unreadable annotation file", "left out", f"{shown(label_file(picture), root)}: {reason}")
            continue
        _lines(listing, index, text, label_of, shown(label_files[-1], root), report)
    if background == len(pictures) > 0:
        raise RequestError(
            f"none of the {background} pictures of {split} has a label file; looked for {label_file(pictures[0])}"
        )
    outside = [picture for picture in pictures if leaves(str(picture), "", root)]
    if outside:
        report.notes.append(f"images outside {root}: {len(outside)}, such as {outside[0]}")
    if background:
        report.notes.append(f"{background} pictures without a label file are background")
    claimed = set(label_files)
    for folder in sorted({file.parent for file in label_files if "labels" in file.parts}):
        for file in sorted(folder.glob("*.txt")):
            if file not in claimed and file.name != "classes.txt" and not _of_another_split(file):
                report.add("label file without a picture", "left out", shown(file, root))
    return listing


def _quoted(text: str, file: str, colon: str = ": ") -> str:
    """The beginning of a line, for messages; nothing of a file outside the data set, which may be anybody's letter."""
    return "" if os.path.isabs(file) or ".." in file else colon + text[:40]


def _of_another_split(file: Path) -> bool:
    """Lists of pictures may part one folder into splits: then a label file's picture exists, only not in this one."""
    parts = list(file.parts)
    last = max(i for i, part in enumerate(parts) if part == "labels")
    parts[last] = "images"
    return any(Path(*parts).with_suffix(suffix).is_file() for suffix in SUFFIXES)


def _lines(listing: Listing, picture: int, text: str, label_of: dict[int, int], file: str, report: Report) -> None:
    seen = set()
    for line, row in enumerate(text.splitlines(), 1):
        where = f"{file} line {line}"
        if len(row) > LINE:
            report.add("malformed line", "left out", f"{where}: {len(row)} characters")
            continue
        columns = row.split()
        if not columns:
            continue
        if len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
            kept = _quoted(" ".join(columns[:20]), file)
            report.add("malformed line", "left out", f"{where}: {len(columns)} columns, not 5 or a polygon{kept}")
            continue
        key, values = number(columns[0]), [number(column) for column in columns[1:]]
        if key not in label_of:
            if key != key:
                report.add(
                    "malformed line", "left out", f"{where}: the class is not a number{_quoted(columns[0], file)}"
                )
            else:
                report.add("unknown class", "left out", f"{where}: class{_quoted(columns[0], file, ' ')}")
                if key.is_integer():
                    report.facts.unknown[int(key)] += 1
            continue
        if tuple(columns) in seen:
            report.add("annotation written twice", "left out", where)
            continue
        seen.add(tuple(columns))
        report.facts.used[int(key)] += 1
        report.facts.polygons += len(values) > 4
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif all(value == value for value in values):
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            box = (float("nan"),) * 4
        listing.add_box(picture, box, label_of[int(key)], line)
