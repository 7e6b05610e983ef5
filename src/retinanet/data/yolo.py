"""YOLO: a YAML with splits and class names; beside ``images`` a folder ``labels`` with one text file a picture.

A line is ``class cx cy w h`` in units of the picture's sides, or ``class x1 y1 x2 y2 x3 y3 …``, a polygon whose
bounding box is taken. A picture without a label file is a background picture.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from retinanet.data.listing import Layout, Listing, number, numbered, picture_files, shown
from retinanet.data.pictures import SUFFIXES
from retinanet.data.report import Report
from retinanet.errors import RequestError

SPLITS = ("train", "val", "valid", "validation", "test")


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
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RequestError(f"{path}{where} is not valid YAML: {problem}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from None


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
        if place.is_dir():
            return list(picture_files(place))
        if place.is_file() and place.suffix.lower() in SUFFIXES:
            return [place]
        if place.is_file():
            lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
            # "./" is the list's own folder, as in COCO's lists; other relative paths may be the data set's.
            return [_listed(line, [place.parent, *bases]) for line in lines if line]
    raise RequestError(f"{path}: {split} is {entry}, which is neither in {' nor in '.join(map(str, bases))}")


def _listed(line: str, bases: list[Path]) -> Path:
    return next((base / line for base in bases if (base / line).is_file()), bases[0] / line)


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
    ids = [next(key for key in names if label_of[key] == label) for label in range(len(classes))]
    report.facts.classes = dict(names)
    paths: list[str] = []  # not the listing: what names boxes may outlive its arrays
    listing = Listing(
        list(classes),
        ids,
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
            text = label_files[-1].read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            background += 1
            continue
        except (OSError, UnicodeDecodeError):
            listing.paths.pop(), listing.ids.pop(), label_files.pop()
            del listing.sizes[-2:]
            report.add("unreadable annotation file", "left out", f"{shown(label_file(picture), root)}: not UTF-8 text")
            continue
        _lines(listing, index, text, label_of, shown(label_files[-1], root), report)
    if background == len(pictures) > 0:
        raise RequestError(
            f"none of the {background} pictures of {split} has a label file; looked for {label_file(pictures[0])}"
        )
    if background:
        report.notes.append(f"{background} pictures without a label file are background")
    claimed = set(label_files)
    for folder in sorted({file.parent for file in label_files if "labels" in file.parts}):
        for file in sorted(folder.glob("*.txt")):
            if file not in claimed and file.name != "classes.txt" and not _of_another_split(file):
                report.add("label file without a picture", "left out", shown(file, root))
    return listing


def _of_another_split(file: Path) -> bool:
    """Lists of pictures may part one folder into splits: then a label file's picture exists, only not in this one."""
    parts = list(file.parts)
    last = max(i for i, part in enumerate(parts) if part == "labels")
    parts[last] = "images"
    return any(Path(*parts).with_suffix(suffix).is_file() for suffix in SUFFIXES)


def _lines(listing: Listing, picture: int, text: str, label_of: dict[int, int], file: str, report: Report) -> None:
    seen = set()
    for line, row in enumerate(text.splitlines(), 1):
        columns = row.split()
        if not columns:
            continue
        where = f"{file} line {line}"
        if len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
            kept = " ".join(columns)[:40]
            report.add("malformed line", "left out", f"{where}: {len(columns)} columns, not 5 or a polygon: {kept}")
            continue
        key, values = number(columns[0]), [number(column) for column in columns[1:]]
        if key not in label_of:
            if key != key:
                report.add("malformed line", "left out", f"{where}: the class is not a number: {columns[0]}")
            else:
                report.add("unknown class", "left out", f"{where}: class {columns[0]}")
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
