"""Reads a CSV with a row for each box, as keras-retinanet, DeepForest, Open Images and Kaggle have it."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.data.faults import Report
from retinanet.data.formats.box_meaning import settle
from retinanet.data.formats.csv_columns import Columns, four_numbers, recognise
from retinanet.data.formats.csv_rows import rows_of
from retinanet.data.formats.image_lookup import ImageLookup
from retinanet.data.formats.listing import WHOLE, Layout, Listing, number, numbered, shown
from retinanet.data.formats.split_folders import split_folders, split_in

SAMPLE = 20  # rows by which the columns are recognised
CLASS_FILES: tuple[str, ...] = (
    "classes.csv",
    "class.csv",
    "class_mapping.csv",
    "class_map.csv",
    "class-descriptions-boxable.csv",
)
CLASS_FILES += ("oidv7-class-descriptions-boxable.csv",)
ONE_CLASS = "object"  # the name of the class, where a table has only boxes


def find(root: Path) -> Layout | None:
    """Recognise a CSV of boxes, in a folder or in the folders of its splits. Its columns decide, not its name.

    Raises:
        RequestError: a file has other columns, or a folder has several tables for one split.
    """
    if root.is_file():
        if columns_of(root) is None:
            first = next(rows_of(root), (0, []))[1]
            raise RequestError(
                f"{root} is no table of boxes: it needs the columns path, x1, y1, x2, y2, class (with these names in "
                f"the first row, or without a header), and begins with {printable(', '.join(first), 200)}"
            )
        split = split_in(root.stem)
        return _layout(root.parent, {split or WHOLE: root}, any_split=split is None)
    named: dict[str, Path] = {}
    unnamed = []
    for path in _tables(root):
        split = split_in(path.stem)
        if split is None:
            unnamed.append(path)
        elif named.setdefault(split, path) is not path:
            raise RequestError(
                f"{root} has two tables for the split {split}, {named[split].name} and {path.name}: give one of them"
            )
    if not named and not unnamed:
        inner = {name: list(_tables(folder)) for name, folder in split_folders(root).items()}
        named = {name: paths[0] for name, paths in inner.items() if len(paths) == 1}
    if named:
        return _layout(root, named)
    if len(unnamed) > 1:
        raise RequestError(
            f"{root} has several tables of boxes, {', '.join(path.name for path in unnamed[:5])}: give one of them, "
            "or call them train.csv and val.csv"
        )
    return _layout(root, {WHOLE: unnamed[0]}, any_split=True) if unnamed else None


def _tables(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*.csv")):
        try:
            if path.is_file() and columns_of(path) is not None:
                yield path
        except RequestError:  # not the table that is looked for
            continue


def unreadable(root: Path) -> str:
    """The reason why the first CSV in a folder that cannot be read is no table of boxes; "" if there is none."""
    for path in sorted(root.glob("*.csv")):
        try:
            columns_of(path)
        except RequestError as error:
            return str(error)
    return ""


def columns_of(path: Path) -> Columns | None:
    return recognise([row for _, row in itertools.islice(rows_of(path), SAMPLE)])


def _layout(root: Path, files: dict[str, Path], any_split: bool = False) -> Layout:
    counts = {name: partial(_count, path) for name, path in files.items()}
    return Layout("CSV", root, counts, lambda name, report: _Reader(root, files, name, report).listing, any_split)


def _count(path: Path) -> int:
    columns = columns_of(path)
    return len({row[columns.image].strip() for _, row in _rows(path, columns)}) if columns else 0


def _rows(path: Path, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table without its header; missing columns at the end are empty."""
    needed = 1 + max(columns.image, columns.label or 0, *columns.box, *(columns.size or ()), columns.group or 0)
    for line, row in itertools.islice(rows_of(path), int(columns.header), None):
        yield line, row + [""] * (needed - len(row))


class _Reader:
    """Reads one split."""

    def __init__(self, root: Path, files: dict[str, Path], split: str, report: Report) -> None:
        path = files[split]
        columns = columns_of(path)
        assert columns is not None
        self._columns, self._report, self._file = columns, report, shown(path, root)
        names, self._label_of = self._classes(path, files)
        self.listing = Listing(
            list(names),
            list(range(len(names))),
            lambda _, line: f"{shown(path, root)} line {line}",
            meaning=columns.meaning,
        )
        report.facts.classes = dict(enumerate(names))
        folders = [path.parent, path.parent / "images", root / split, root / "images" / split, root / "images"]
        self._lookup = ImageLookup(root, folders)
        self._index: dict[str, int | None] = {}
        self._of_path: dict[str, int] = {}
        numbers = array("d")
        for line, row in _rows(path, columns):
            self._add(line, row, numbers)
        settle(self.listing, numbers, self._file, report)
        stems = [Path(each).stem for each in self.listing.paths]
        self.listing.ids = numbered(stems)

    def _classes(self, path: Path, files: dict[str, Path]) -> tuple[list[str], dict[str, int]]:
        """The class names, and the label of each class as the rows write it."""
        column = self._columns.label
        if column is None:
            self._report.notes.append(f"{self._file} has no column of classes: all boxes are of one, {ONE_CLASS}")
            return [ONE_CLASS], {"": 0}
        for name in CLASS_FILES:
            if (listed := path.parent / name).is_file():
                return _listed_classes(listed)
        written: set[str] = set()
        for table in files.values():
            columns = columns_of(table)
            if columns is None or columns.label is None:
                continue
            label = columns.label
            rows = _rows(table, columns)
            written.update(row[label].strip() for _, row in rows if any(row[i].strip() for i in columns.box))
        names = sorted(written - {""}, key=lambda name: (not name.isdigit(), len(name) if name.isdigit() else 0, name))
        if not names:
            raise RequestError(f"{path} names no class in any row with a box")
        if all(name.isdigit() for name in names):
            self._report.notes.append(
                f"no classes.csv names the classes of {self._file}: they are called by their numbers"
            )
        return names, {name: label for label, name in enumerate(names)}

    def _add(self, line: int, row: list[str], numbers: array[float]) -> None:
        columns, report = self._columns, self._report
        where = f"{self._file} line {line}"
        image = self._image(row, where)
        if image is None:
            return
        written = [row[index].strip() for index in columns.box]
        if not any(written):
            return  # an image without objects
        values = four_numbers(written[0]) if len(written) == 1 else [number(cell) for cell in written]
        if len(written) == 1 and not written[0].strip("[](){} "):
            return
        if len(values) != 4 or any(value != value for value in values):
            text = " ".join(cell or "''" for cell in written)
            report.add("malformed annotation", "left out", f"{where}: the box is {text}, not four numbers")
            return
        name = row[columns.label].strip() if columns.label is not None else ""
        label = self._label_of.get(name)
        if label is None:
            kind = "unknown class" if name else "malformed annotation"
            report.add(kind, "left out", f"{where}: {name}" if name else f"{where}: no class")
            return
        crowd = columns.group is not None and row[columns.group].strip() in ("1", "true", "True")
        report.facts.used[label] += 1
        numbers.extend(values)
        self.listing.add_box(image, (0.0, 0.0, 0.0, 0.0), label, line, crowd)

    def _image(self, row: list[str], where: str) -> int | None:
        """The index of a row's image in the listing; None if it cannot be used."""
        name = row[self._columns.image].strip()
        if name in self._index:
            return self._index[name]
        index = None
        if not name:
            self._report.add("malformed annotation", "left out", f"{where}: no image")
        elif (path := self._lookup.locate(name, where, self._report)) is not None:
            size = [0, 0]
            if self._columns.size is not None:
                width, height = (number(row[column].strip()) for column in self._columns.size)
                size = [int(height), int(width)] if all(1 <= side < 1 << 31 for side in (height, width)) else size
            key = os.path.normpath(path)  # a.jpg and ./a.jpg are one image
            if key not in self._of_path:
                self._of_path[key] = self.listing.add_image(path, 0, (size[0], size[1]))
            index = self._of_path[key]
        self._index[name] = index
        return index


def _listed_classes(path: Path) -> tuple[list[str], dict[str, int]]:
    """Read a table of classes: name and number (keras-retinanet), or id and name (Open Images).

    Returns:
        The names, and the label of each class as the boxes' rows write it.
    """
    rows = [(line, [cell.strip() for cell in row]) for line, row in rows_of(path)]
    numbers = {}
    for line, row in rows:
        if len(row) == 2 and all(row) and row[1].isdigit() and row[0] not in numbers:
            numbers[row[0]] = int(row[1])
        elif len(row) != 2 or not all(row) or row[0] in numbers:
            raise RequestError(f"{path} line {line} is not a class name and its number, or repeats a name")
    if numbers and len(numbers) >= len(rows) - 1:  # the first row may be a header
        names = sorted(numbers, key=lambda name: numbers[name])
        return names, {name: label for label, name in enumerate(names)}
    if not rows:
        raise RequestError(f"{path} names no class: it is empty")
    labels = {row[0]: label for label, (_, row) in enumerate(rows)}
    return [row[1] for _, row in rows], labels
