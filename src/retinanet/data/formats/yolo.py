"""Reads YOLO's layout: a description with splits and class names, and a text file of labels for each image.

The label files are in a folder ``labels`` beside ``images``, or beside their images. An image without a label file is a
background image.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.common.text import LIST, SHEET, TextError, lines, read_text
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import Layout, Listing, image_files, number, numbered, shown
from retinanet.data.formats.path_matching import Locator, without_first
from retinanet.data.formats.safe_paths import leaves
from retinanet.data.formats.yolo_description import SPLITS, Description, describe, describe_nameless, shorter
from retinanet.data.formats.yolo_labels import LongLines, add_lines, numbered_classes
from retinanet.data.image_io import SUFFIXES

QUOTED = re.compile(r"""^(["'])(.*)\1,?$""")  # a row of a list, as some programs write it
FEW = 20  # images whose label file is looked for in another spelling
MANY = 2000  # images that are inspected for a label file, where no file describes the data set
ELSEWHERE = ("labels", "label", "annotations")  # folders that may have label files that are not read
FOLDERS = ("images", "jpegimages")  # of images: "labels" beside such a folder has their label files

__all__ = ["SPLITS", "find", "find_described", "find_nameless", "find_usable", "label_file"]


def find(root: Path) -> Layout | None:
    """Recognise a description, or a folder that has one. A list of class names alone needs a label file too."""
    described = describe(root)
    if described is None or not (_is_complete(described) or _is_labelled(described)):
        return None
    return _layout(described)


def find_usable(root: Path) -> Layout | None:
    """As :func:`find`, but only if an image has a label file: then the folder does not have another layout."""
    try:
        described = describe(root)
    except RequestError:
        return None
    if described is None or not _is_complete(described):
        return None
    return _layout(described) if _is_labelled(described) else None


def find_nameless(root: Path) -> Layout | None:
    """Recognise images and label files without the names of the classes: these are called "0", "1", …"""
    described = describe_nameless(root)
    return _layout(described) if described is not None and _is_labelled(described, MANY) else None


def find_described(root: Path) -> Layout | None:
    """As :func:`find`, but a list of class names beside images is enough. Reading it says which label files miss."""
    described = describe(root)
    return None if described is None else _layout(described)


def _is_complete(described: Description) -> bool:
    """Whether a file names classes and splits."""
    return not described.any_split and described.file.suffix.lower() in (".yaml", ".yml", ".data")


def _is_labelled(described: Description, most: int | None = None) -> bool:
    """Whether one of the (first ``most``) images of a split has a label file."""
    for split in described.splits:
        try:
            images = _Images(described, Report()).of(split)
        except RequestError:
            continue
        exact = (label for image in images[:most] for label in _label_files(image) if label.is_file())
        respelled = (label for label in _labels(images[:FEW], described.bases[-1], Report()) if label is not None)
        if any(described.names or _looks_like_labels(label) for label in itertools.chain(exact, respelled)):
            return True
    return False


def _layout(described: Description) -> Layout:
    def count(split: str) -> int:
        try:
            return len(_Images(described, Report()).of(split))
        except RequestError:  # the split's folder is missing, as after half a download
            return 0

    return Layout(
        "YOLO",
        described.bases[-1],
        {split: partial(count, split) for split in described.splits},
        lambda split, report: _read(described, split, report),
        described.any_split,
    )


class _Images:
    """Finds the images of a split's entries."""

    def __init__(self, described: Description, report: Report) -> None:
        self._described, self._report, self._locator = described, report, Locator()

    def of(self, split: str) -> list[Path]:
        """The images of a split.

        Raises:
            RequestError: an entry does not exist, or no image of a list exists.
        """
        return [image for entry in self._described.splits[split] for image in self._entry(entry, split)]

    def _entry(self, entry: str, split: str) -> list[Path]:
        """The images of one entry: a folder, a text file of paths, or one image."""
        bases = self._described.bases
        steps = [entry, *shorter(entry)]
        path = next((base / step for step in steps for base in bases if os.path.exists(base / step)), None)
        if path is None:
            located = (self._locator.find(base, step) for step in steps for base in bases)
            path = next((each for each in located if each is not None), None)
            if path is None:
                tried = " nor in ".join(map(str, bases))
                raise RequestError(f"{self._described.file}: {split} is {entry}, which is neither in {tried}")
            self._renamed(f"{split}: {entry}", path)
        if path.is_dir():
            self._require_below(path, split)
            return list(image_files(path))
        if path.suffix.lower() in SUFFIXES:
            return [path]
        return self._list(path)

    def _require_below(self, folder: Path, split: str) -> None:
        """Refuse a folder that holds the data set, such as /: it may hold all files of a machine."""
        absolute = os.path.abspath(folder)
        bases = [base for base in map(os.path.abspath, self._described.bases) if base != absolute]
        if any(Path(base).is_relative_to(absolute) for base in bases) or absolute == os.path.dirname(absolute):
            raise RequestError(
                f"{self._described.file}: {split} is {folder}, which holds more than the data set: "
                "name the images' folder"
            )

    def _list(self, file: Path) -> list[Path]:
        """The images of a list."""
        rows = _rows(file)
        # Paths may be relative to the list's own folder, as in COCO's lists, or to the data set.
        bases = list(dict.fromkeys([file.parent, *self._described.bases]))
        paths = [self._listed(row, bases) for row in rows]
        if rows and not any(paths):
            looked = ", ".join(map(str, bases))
            rows = [row for row in rows if _is_image(row)]  # other rows may be private text, and are not quoted
            example = f"{printable(rows[0], 300)}; looked in {looked}"
            if len(rows) == 1:
                raise RequestError(f"the image that {file} lists does not exist: {example}")
            raise RequestError(f"none of the {len(rows)} images that {file} lists exists, such as {example}")
        return [path or bases[0] / row for row, path in zip(rows, paths)]

    def _listed(self, row: str, bases: list[Path]) -> Path | None:
        """The image of a row of a list, or None.

        If it does not exist as written, other spellings are tried, then the name without its first folders, which may
        be those of another machine or of the tool that wrote the list.
        """
        exact = next((base / row for base in bases if os.path.isfile(base / row)), None)
        if exact is not None:
            return exact
        name: str | None = row
        steps = 0
        while name is not None:
            paths = {base / name for base in bases if os.path.isfile(base / name)}
            paths = paths or {path for base in bases if (path := self._locator.find(base, name))}
            if len(paths) == 1:
                (path,) = paths
                self._renamed(row, path)
                return path
            name, steps = without_first(row, steps), steps + 1
        return None

    def _renamed(self, written: str, path: Path) -> None:
        text = f"{written} is {shown(path, self._described.bases[-1])}"
        self._report.add(RENAMED, "repaired", text)


def _rows(file: Path) -> list[str]:
    """The rows of a list of images. Another text is refused, and not quoted, because it may be private."""
    rows = [row for line in lines(read_text(file, LIST)) if (row := QUOTED.sub(r"\2", line.strip()))]
    others = sum(not _is_image(row) for row in rows)
    if others > len(rows) / 2:
        raise RequestError(f"{file} is no list of images: {others} of its {len(rows)} lines name no image")
    return rows


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def label_file(image: Path) -> Path:
    """images/a/b.jpg -> labels/a/b.txt; beside the image where no folder is called images."""
    return _label_files(image)[0]


def _label_files(image: Path) -> list[Path]:
    """The paths that an image's label file may have.

    It is in ``labels`` instead of the last folder called ``images``, or of one further up, else beside the image.
    """
    parts = image.parts[:-1]
    folders = [
        Path(*parts[:i], "labels", *parts[i + 1 :]) for i in reversed(range(len(parts))) if parts[i].lower() in FOLDERS
    ]
    name = f"{image.stem}.txt"
    return [folder / name for folder in (*folders, image.parent)]


def _read(described: Description, split: str, report: Report) -> Listing:
    root, names = described.bases[-1], described.names or _numbered_names(described, report)
    classes: dict[str, int] = {}
    label_of = {key: classes.setdefault(name.strip(), len(classes)) for key, name in names.items()}
    report.facts.classes = dict(names)
    paths: list[str] = []  # not in the listing: box_name outlives its arrays
    files: list[str] = []
    listing = Listing(
        list(classes),
        list(names),
        lambda i, line: f"{files[i]} line {line}",
        fractions=True,
        meaning="centre and sides",
        paths=paths,
    )
    listed = _Images(described, report).of(split)
    images = list(dict.fromkeys(listed))
    repeated = Counter(listed)
    repeated.subtract(images)
    for image in repeated.elements():
        report.add("image listed twice", "left out", f"{split}: {shown(image, root)}")
    labels = _labels(images, root, report)
    elsewhere = _labels_elsewhere(images, labels, root, report)
    background = sum(label is None for label in labels)
    if background == len(images) > 0:
        looked = " and ".join(dict.fromkeys(map(str, _label_files(images[0]))))
        raise RequestError(f"none of the {background} images of {split} has a label file; looked for {looked}")
    longer = LongLines(described.keypoints)
    for image, ident, label in zip(images, numbered([image.stem for image in images]), labels):
        text, file = "", shown(label or label_file(image), root)
        if label is not None:
            try:
                text = read_text(label, SHEET)
            except TextError as error:
                report.add("unreadable annotation file", "left out", f"{file}: {error.reason}")
                continue
        index = listing.add_image(image, ident)
        files.append(file)
        if label is None:
            listing.unlabelled.append(index)
        add_lines(listing, index, text, label_of, file, longer, report)
    longer.settle(listing, report)
    outside = [image for image in images if leaves(str(image), "", root)]
    if outside:
        report.notes.append(f"images outside {root}: {len(outside)}, such as {outside[0]}")
    _unused_labels(images, labels, elsewhere, root, report)
    return listing


def _numbered_names(described: Description, report: Report) -> dict[int, str]:
    """The numbers of the classes in the label files of all splits, because labels must not depend on the split."""
    root = described.bases[-1]
    images = [image for split in described.splits for image in _Images(described, Report()).of(split)]
    numbers = numbered_classes(label for label in _labels(images, root, Report()) if label is not None)
    if not numbers:
        raise RequestError(f"the label files of {root} have no line of the form: class cx cy w h")
    report.notes.append("no classes.txt, obj.names or YAML names the classes: they are called by their numbers")
    return {number: str(number) for number in numbers}


def _labels(images: list[Path], root: Path, report: Report) -> list[Path | None]:
    """The label file of each image, None where there is none."""
    labels = [next((file for file in _label_files(image) if os.path.lexists(file)), None) for image in images]
    claimed, locator = set(labels), Locator()
    for i, image in enumerate(images):
        if labels[i] is None:
            located = (locator.find_path(str(file)) for file in _label_files(image))
            label = next((file for file in located if file is not None and file not in claimed), None)
            if label is not None:
                text = f"{shown(label, root)} for {shown(image, root)}"
                report.add(RENAMED, "repaired", text)
                claimed.add(label)
                labels[i] = label
    return labels


def _labels_elsewhere(images: list[Path], labels: list[Path | None], root: Path, report: Report) -> set[Path]:
    """Report label files that are not read because the images' folder is not called ``images``.

    Their images would silently be background. Returns these label files.
    """
    claimed, locator = set(labels), Locator()
    unread = set()
    for image, label in zip(images, labels):
        if label is not None:
            continue
        parts = image.parts[:-1]
        last = max(len(parts) - 3, len(root.parts))  # imgs/train/a.jpg -> labels/train/a.txt
        folders = [Path(*parts[:i], name, *parts[i + 1 :]) for i in range(last, len(parts)) for name in ELSEWHERE]
        folders += [image.parent / name for name in ELSEWHERE]
        located = (locator.find(folder, f"{image.stem}.txt") for folder in folders)
        file = next((file for file in located if file is not None and file not in claimed), None)
        if file is not None:
            text = (
                f"{shown(file, root)} for {shown(image, root)}: call the images' folder images and the other "
                "labels, or put the label files beside the images"
            )
            report.add("label file that is not read", "left out", text)
            unread.add(file)
    return unread


def _unused_labels(
    images: list[Path], labels: list[Path | None], reported: set[Path], root: Path, report: Report
) -> None:
    """Report label files without an image, and those beside an image whose labels were read from another folder.

    Args:
        reported: label files that were reported already.
    """
    claimed = {label for label in labels if label is not None} | reported
    texts = {folder: _texts(folder) for folder in dict.fromkeys(image.parent for image in images)}
    for image, label in zip(images, labels):
        beside = _label_files(image)[-1]
        if label is not None and beside not in claimed and beside.name in texts[image.parent]:
            text = f"{shown(beside, root)}: {shown(label, root)} is read"
            report.add("label file that is not read", "left out", text)
            claimed.add(beside)
    for folder in sorted({label.parent for label in claimed}):
        apart = "labels" in map(str.lower, folder.parts)
        stems = [_stems(each) for each in (*_image_folders(folder), folder)]
        for name in sorted(_texts(folder)):
            file = folder / name
            if file in claimed or name == "classes.txt" or any(file.stem in known for known in stems):
                continue  # the image may belong to another split: lists of images can divide one folder
            if apart or _looks_like_labels(file):
                report.add("label file without an image", "left out", shown(file, root))


def _image_folders(folder: Path) -> list[Path]:
    """labels/a -> images/a, JPEGImages/a"""
    parts = folder.parts
    levels = [i for i in range(len(parts)) if parts[i].lower() == "labels"]
    return [Path(*parts[:i], name, *parts[i + 1 :]) for i in levels for name in ("images", "Images", "JPEGImages")]


def _texts(folder: Path) -> set[str]:
    return {name for name in _entries(folder) if name.endswith(".txt")}


def _stems(folder: Path) -> set[str]:
    """Names of the images in a folder, without their suffixes."""
    names = map(os.path.splitext, _entries(folder))
    return {stem for stem, suffix in names if suffix.lower() in SUFFIXES}


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):  # it does not exist, or its name is not valid
        return []


def _looks_like_labels(file: Path) -> bool:
    """Whether a text file among images has a line of numbers, so that it is not a list or a description."""
    try:
        rows = [row.split() for row in lines(read_text(file, SHEET)) if row.strip()]
    except TextError:
        return False
    return bool(rows) and len(rows[0]) >= 5 and all(number(column) == number(column) for column in rows[0])
