"""Reads Hugging Face's detection data sets: Parquet with a column ``objects``, or ImageFolder with metadata.

ImageFolder is a folder of images with metadata.jsonl or metadata.csv, which has ``file_name`` and ``objects``. Boxes
are x, y, width, height as in COCO; where they can only be corners, they are read as such, and a note says so.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.common.errors import RequestError
from retinanet.common.text import TextError, lines, read_text
from retinanet.data.faults import Report
from retinanet.data.formats.box_meaning import settle
from retinanet.data.formats.csv_rows import rows_of
from retinanet.data.formats.hf_objects import class_names, rows_of_objects
from retinanet.data.formats.image_lookup import ImageLookup
from retinanet.data.formats.listing import WHOLE, Layout, Listing, number, shown
from retinanet.data.formats.parquet_files import EXTRACTED, ParquetTable, extract
from retinanet.data.formats.split_folders import child, split_folders, split_in

SHARD = re.compile(r"^(.+?)-\d{5}-of-\d{5}")
METADATA = ("metadata.jsonl", "metadata.csv")
ONE_CLASS = "object"


class Entry(NamedTuple):
    """One row."""

    where: str
    image: Path | str | None
    """A path, or a name as the row has it."""
    values: dict[str, Any]


Parts = dict[str, list[Path]]


def find(root: Path) -> Layout | None:
    """Recognise Parquet files or metadata in a folder, or such a file.

    Raises:
        RequestError: there is Parquet, but pyarrow is not installed.
    """
    if root.is_file():
        split = split_in(root.stem)
        parts = {split or WHOLE: [root]}
        folder = root.parent
    else:
        folder, parts = root, _parquet(root) or _metadata(root)
    if not parts:
        return None
    first = next(iter(parts.values()))[0]
    if not _has_objects(first):
        return None
    counts = {name: partial(_count, files) for name, files in parts.items()}
    return Layout("Hugging Face", folder, counts, partial(_read, folder, parts), any_split=set(parts) == {WHOLE})


def _parquet(root: Path) -> Parts:
    """The Parquet files of each split, by their names or folders."""
    parts: Parts = {}
    default = child(root, ("default",)) or root
    folders = [root, root / "data", *split_folders(root).values(), *split_folders(root / "data").values()]
    for folder in dict.fromkeys([*folders, *split_folders(default).values()]):
        for path in sorted(folder.glob("*.parquet")):
            shard = SHARD.match(path.stem)
            inner = folder.name if folder not in (root, root / "data") else WHOLE
            parts.setdefault(shard[1] if shard else split_in(path.stem) or inner, []).append(path)
    return parts


def _metadata(root: Path) -> Parts:
    """The metadata of each split, in the folder of its images."""
    for base in (root, root / "data"):
        folders = split_folders(base) or {WHOLE: base}
        files = {name: [folder / file for file in METADATA] for name, folder in folders.items()}
        parts = {
            name: there[:1] for name, paths in files.items() if (there := [path for path in paths if path.is_file()])
        }
        if parts:
            return parts
    return {}


def _has_objects(path: Path) -> bool:
    if path.suffix == ".parquet":
        table = ParquetTable(path)
        return table.objects is not None and table.image is not None
    try:
        first = next(_values(path), None)
    except RequestError:  # it is reported when it is read
        return "metadata" in path.name and path.suffix == ".jsonl"
    return first is not None and _name(first[1]) is not None and "objects" in first[1]


def _count(files: list[Path]) -> int:
    return sum(
        len(ParquetTable(path)) if path.suffix == ".parquet" else sum(1 for _ in _values(path)) for path in files
    )


def _values(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of the line and the columns of each row of metadata.

    Raises:
        RequestError: a line is not JSON; the message names it.
    """
    if path.suffix == ".csv":
        rows = rows_of(path)
        header = next(rows, (0, []))[1]
        for line, row in rows:
            yield line, dict(zip(header, row))
        return
    for line, text in enumerate(lines(read_text(path)), 1):
        if not text.strip():
            continue
        try:
            content = json.loads(text)
            if not isinstance(content, dict):
                raise ValueError("it is not an object in braces")
        except (ValueError, RecursionError) as error:
            if isinstance(error, TextError):
                raise
            raise RequestError(f"{path} line {line} is not valid JSON: {error}") from None
        yield line, content


def _name(values: dict[str, Any]) -> str | None:
    name = next((values[key] for key in ("file_name", "image_file_name", "image") if key in values), None)
    return name if isinstance(name, str) else None


def _entries(root: Path, files: list[Path], with_images: bool) -> Iterator[Entry]:
    """The rows of a split.

    Args:
        with_images: False where only the classes are asked for: then no image is extracted.
    """
    for path in files:
        file = shown(path, root)
        if path.suffix != ".parquet":
            for line, values in _values(path):
                yield Entry(f"{file} line {line}", _name(values), values)
            continue
        table = ParquetTable(path)
        if table.objects is None or table.image is None:
            raise RequestError(f"{path} has other columns than the first file: {', '.join(table.columns[:8])}")
        images = extract(table, root) if with_images else {}
        wanted: list[str] = [name for name in ("image_id", "width", "height") if name in table.columns]
        if table.image_path and with_images:
            wanted.append(table.image_path)
        for position, row in enumerate(table.rows([table.objects, *wanted])):
            written = row.get(table.image)
            name = written.get("path") if isinstance(written, dict) else written
            yield Entry(f"{file} row {position}", images.get(position) or name, row | {"objects": row[table.objects]})


def _features(files: list[Path]) -> list[str] | None:
    """The names of the classes that the first file declares."""
    if files[0].suffix != ".parquet":
        return None
    table = ParquetTable(files[0])
    return class_names(table.features.get(table.objects or ""))


def _classes(root: Path, parts: Parts, split: str, report: Report) -> tuple[list[str], dict[Any, int]]:
    """The class names, and the label of each class as the rows write it."""
    declared = _features(parts[split])
    if declared:
        names = list(dict.fromkeys(declared))
        labels: dict[Any, int] = {name: names.index(name) for name in names}
        return names, labels | {i: names.index(name) for i, name in enumerate(declared)}
    written: set[Any] = set()
    boxes = 0
    for files in parts.values():  # labels must not depend on the split
        for entry in _entries(root, files, with_images=False):
            for row in rows_of_objects(entry.values.get("objects")):
                boxes += row is not None
                if row is not None and isinstance(row[1], int | str) and not isinstance(row[1], bool):
                    written.add(row[1])
    if not boxes:
        raise RequestError(f"{root} has no box in any row")
    if not written:
        report.notes.append(f"the boxes have no class: all are of one, {ONE_CLASS}")
        return [ONE_CLASS], {None: 0}
    ordered = sorted(written, key=lambda value: (isinstance(value, str), value))
    if not any(isinstance(value, str) for value in ordered):
        report.notes.append("no names of the classes are given: they are called by their numbers")
    names = list(dict.fromkeys(str(value) for value in ordered))
    return names, {value: names.index(str(value)) for value in ordered}


def _read(root: Path, parts: Parts, split: str, report: Report) -> Listing:
    names, label_of = _classes(root, parts, split, report)
    places: list[str] = []
    listing = Listing(
        names,
        list(range(len(names))),
        lambda i, position: f"{places[i]} object {position}",
        meaning="corner and sides",
    )
    report.facts.classes = dict(enumerate(names))
    files = parts[split]
    lookup = ImageLookup(root, [files[0].parent, root])
    written = array("d")
    idents: list[Any] = []
    seen: set[str] = set()
    for entry in _entries(root, files, with_images=True):
        image = _add_image(listing, lookup, entry, seen, report)
        if image is None:
            continue
        places.append(entry.where)
        idents.append(entry.values.get("image_id"))
        for position, row in enumerate(rows_of_objects(entry.values.get("objects"))):
            where = f"{entry.where} object {position}"
            if row is None:
                report.add(
                    "malformed annotation", "left out", f"{where}: needs bbox [x, y, width, height] and category"
                )
                continue
            box, name, crowd, area = row
            label = label_of.get(name) if isinstance(name, int | str | None) else None
            if label is None:
                report.add("unknown class", "left out", f"{where}: {name}")
                continue
            report.facts.used[label] += 1
            written.extend(box)
            listing.add_box(image, (0.0, 0.0, 0.0, 0.0), label, position, crowd, area)
    if all(type(ident) is int and 0 <= ident < 1 << 63 for ident in idents) and len({*idents}) == len(idents):
        listing.ids = idents
    settle(listing, written, shown(files[0], root), report)
    if listing.paths and EXTRACTED in Path(listing.paths[0]).parts:
        report.notes.append(f"the images in the Parquet files are extracted to {root / EXTRACTED}")
    return listing


def _add_image(listing: Listing, lookup: ImageLookup, entry: Entry, seen: set[str], report: Report) -> int | None:
    if isinstance(entry.image, Path):
        path: Path | None = entry.image
    elif entry.image:
        path = lookup.locate(entry.image, entry.where, report)
    else:
        report.add("malformed image entry", "left out", f"{entry.where}: it has no image")
        return None
    if path is None:
        return None
    if str(path) in seen:
        report.add("image listed twice", "left out", f"{entry.where}: {path.name}")
        return None
    seen.add(str(path))
    height, width = (number(entry.values.get(side)) for side in ("height", "width"))
    known = all(1 <= side < 1 << 31 for side in (height, width))
    return listing.add_image(path, len(listing.paths) + 1, (int(height), int(width)) if known else (0, 0))
