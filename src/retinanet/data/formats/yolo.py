"""YOLO: a description with splits and class names; beside ``images`` a folder ``labels`` with one text file an image.

Label files may lie beside their images too. An image without one is a background image.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.common.text import LIST, SHEET, TextError, lines, read_text
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import Layout, Listing, image_files, number, numbered, shown
from retinanet.data.formats.path_matching import Locator, without_first
from retinanet.data.formats.safe_paths import leaves
from retinanet.data.formats.yolo_description import SPLITS, Description, describe, shorter
from retinanet.data.formats.yolo_labels import Longer, add_lines
from retinanet.data.image_io import SUFFIXES

QUOTED = re.compile(r"""^(["'])(.*)\1,?$""")  # a row of a list, as other programs write it
ELSEWHERE = ("labels", "label", "annotations")  # where label files may lie that no image's folder leads to
FOLDERS = ("images", "jpegimages")  # of images; beside one, a folder "labels" may have their label files

__all__ = ["SPLITS", "find", "find_usable", "label_file"]


def find(root: Path) -> Layout | None:
    """Recognise a description, or a folder with one."""
    described = describe(root)
    if described is not None:
        return _layout(described)
    if (root / "images").is_dir() and (root / "labels").is_dir():
        raise RequestError(
            f"{root} looks like YOLO, but has no YAML with the class names: write data.yaml with the lines "
            "'train: images/train', 'val: images/val' and 'names: [first, second]'"
        )
    return None


def find_usable(root: Path) -> Layout | None:
    """As :func:`find`, if an image of some split has a label file: then the folder is no other layout's."""
    try:
        described = describe(root)
    except RequestError:
        return None
    if described is None or described.any_split or described.file.suffix.lower() not in (".yaml", ".yml", ".data"):
        return None
    for split in described.splits:
        try:
            found = _Images(described, Report()).of(split)
        except RequestError:
            continue
        if any(label.is_file() for image in found for label in _label_files(image)):
            return _layout(described)
    return None


def _layout(described: Description) -> Layout:
    def count(split: str) -> int:
        try:
            return len(_Images(described, Report()).of(split))
        except RequestError:  # a split whose folder is not there, as in half-downloaded data
            return 0

    return Layout(
        "YOLO",
        described.bases[-1],
        {split: partial(count, split) for split in described.splits},
        lambda split, report: _read(described, split, report),
        described.any_split,
    )


class _Images:
    """Finds the images that entries of a description mean."""

    def __init__(self, described: Description, report: Report) -> None:
        self._described, self._report, self._locator = described, report, Locator()

    def of(self, split: str) -> list[Path]:
        """
        Raises:
            RequestError: an entry is nowhere, or a list names no image that exists.
        """
        return [image for entry in self._described.splits[split] for image in self._entry(entry, split)]

    def _entry(self, entry: str, split: str) -> list[Path]:
        """The images of one entry: a folder, a text file of paths, or one image."""
        bases = self._described.bases
        steps = [entry, *shorter(entry)]
        place = next((base / step for step in steps for base in bases if os.path.exists(base / step)), None)
        if place is None:
            located = (self._locator.find(base, step) for step in steps for base in bases)
            place = next((path for path in located if path is not None), None)
            if place is None:
                tried = " nor in ".join(map(str, bases))
                raise RequestError(f"{self._described.file}: {split} is {entry}, which is neither in {tried}")
            self._renamed(f"{split}: {entry}", place)
        if place.is_dir():
            self._require_below(place, split)
            return list(image_files(place))
        if place.suffix.lower() in SUFFIXES:
            return [place]
        return self._list(place)

    def _require_below(self, folder: Path, split: str) -> None:
        """A folder that holds the data set, such as /, is none of its splits: all files of a machine may lie in it."""
        absolute = os.path.abspath(folder)
        bases = [base for base in map(os.path.abspath, self._described.bases) if base != absolute]
        if any(Path(base).is_relative_to(absolute) for base in bases) or absolute == os.path.dirname(absolute):
            raise RequestError(
                f"{self._described.file}: {split} is {folder}, which holds more than the data set: "
                "name the images' folder"
            )

    def _list(self, file: Path) -> list[Path]:
        rows = _rows(file)
        # "./" is the list's own folder, as in COCO's lists; other relative paths may be the data set's.
        bases = list(dict.fromkeys([file.parent, *self._described.bases]))
        found = [self._listed(row, bases) for row in rows]
        if rows and not any(found):
            looked = ", ".join(map(str, bases))
            rows = [row for row in rows if _is_image(row)]  # others may be anybody's, and are not quoted
            some = "the image" if len(rows) == 1 else f"none of the {len(rows)} images"
            raise RequestError(
                f"{some} that {file} lists {'does not exist' if len(rows) == 1 else 'exists, such as'}"
                f"{':' * (len(rows) == 1)} {printable(rows[0], 300)}; looked in {looked}"
            )
        return [path or bases[0] / row for row, path in zip(rows, found)]

    def _listed(self, row: str, bases: list[Path]) -> Path | None:
        """The image that a row of a list means.

        Where it is not there as written: in another spelling, or without the first folders, which may be those of
        another machine or of the tool that wrote the list.
        """
        exact = next((base / row for base in bases if os.path.isfile(base / row)), None)
        if exact is not None:
            return exact
        name: str | None = row
        steps = 0
        while name is not None:
            there = {base / name for base in bases if os.path.isfile(base / name)}
            there = there or {path for base in bases if (path := self._locator.find(base, name))}
            if len(there) == 1:
                (path,) = there
                self._renamed(row, path)
                return path
            name, steps = without_first(row, steps), steps + 1
        return None

    def _renamed(self, written: str, path: Path) -> None:
        text = f"{written} is {shown(path, self._described.bases[-1])}"
        self._report.add(RENAMED, "repaired", text)


def _rows(file: Path) -> list[str]:
    """The lines of a list of images; another text is refused, and not quoted, as it may be anybody's."""
    rows = [row for line in lines(read_text(file, LIST)) if (row := QUOTED.sub(r"\2", line.strip()))]
    others = sum(not _is_image(row) for row in rows)
    if others > len(rows) / 2:
        raise RequestError(f"{file} is no list of images: {others} of its {len(rows)} lines name none")
    return rows


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def label_file(image: Path) -> Path:
    """images/a/b.jpg -> labels/a/b.txt; beside the image where no folder is called images."""
    return _label_files(image)[0]


def _label_files(image: Path) -> list[Path]:
    """Where an image's label file may be: in ``labels`` in place of the last folder called ``images``, or of one
    further up, else beside it."""
    parts = image.parts[:-1]
    folders = [
        Path(*parts[:i], "labels", *parts[i + 1 :]) for i in reversed(range(len(parts))) if parts[i].lower() in FOLDERS
    ]
    name = f"{image.stem}.txt"
    return [folder / name for folder in (*folders, image.parent)]


def _read(described: Description, split: str, report: Report) -> Listing:
    root, names = described.bases[-1], described.names
    classes: dict[str, int] = {}
    label_of = {key: classes.setdefault(name.strip(), len(classes)) for key, name in names.items()}
    report.facts.classes = dict(names)
    paths: list[str] = []  # not the listing: what names boxes may outlive its arrays
    files: list[str] = []
    listing = Listing(
        list(classes),
        list(names),
        lambda i, line: f"{files[i]} line {line}",
        fractions=True,
        meaning="centre and sides",
        paths=paths,
    )
    found = _Images(described, report).of(split)
    images = list(dict.fromkeys(found))
    if len(images) < len(found):
        seen: set[Path] = set()
        for image in found:
            if image in seen:
                report.add("image listed twice", "left out", f"{split}: {shown(image, root)}")
            seen.add(image)
    labels = _labels(images, root, report)
    elsewhere = _labels_elsewhere(images, labels, root, report)
    background = sum(label is None for label in labels)
    if background == len(images) > 0:
        looked = " and ".join(dict.fromkeys(map(str, _label_files(images[0]))))
        raise RequestError(f"none of the {background} images of {split} has a label file; looked for {looked}")
    longer = Longer(described.keypoints)
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
    """Report label files that are not read, as the images' folder is not called ``images``: those would be background
    without a word."""
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
        found = next((file for file in located if file is not None and file not in claimed), None)
        if found is not None:
            text = (
                f"{shown(found, root)} for {shown(image, root)}: call the images' folder images and the other "
                "labels, or put the label files beside the images"
            )
            report.add("label file that is not read", "left out", text)
            unread.add(found)
    return unread


def _unused_labels(images: list[Path], labels: list[Path | None], told: set[Path], root: Path, report: Report) -> None:
    """Report label files of no image, and those beside an image whose labels were read elsewhere.

    Args:
        told: label files that were reported already.
    """
    claimed = {label for label in labels if label is not None} | told
    texts = {folder: _texts(folder) for folder in dict.fromkeys(image.parent for image in images)}
    for image, label in zip(images, labels):
        beside = _label_files(image)[-1]
        if label is not None and beside not in claimed and beside.name in texts[image.parent]:
            text = f"{shown(beside, root)}: {shown(label, root)} is read"
            report.add("label file that is not read", "left out", text)
            claimed.add(beside)
    for folder in sorted({label.parent for label in claimed}):
        apart = "labels" in map(str.lower, folder.parts)
        stems = [_stems(place) for place in (*_image_folders(folder), folder)]
        for name in sorted(_texts(folder)):
            file = folder / name
            if file in claimed or name == "classes.txt" or any(file.stem in known for known in stems):
                continue  # lists of images may part one folder into splits: the image is another split's
            if apart or _looks_like_labels(file):
                report.add("label file without an image", "left out", shown(file, root))


def _image_folders(folder: Path) -> list[Path]:
    """labels/a -> images/a, JPEGImages/a"""
    parts = folder.parts
    spots = [i for i in range(len(parts)) if parts[i].lower() == "labels"]
    return [Path(*parts[:i], name, *parts[i + 1 :]) for i in spots for name in ("images", "Images", "JPEGImages")]


def _texts(folder: Path) -> set[str]:
    return {name for name in _entries(folder) if name.endswith(".txt")}


def _stems(folder: Path) -> set[str]:
    """Names of the images in a folder without their endings."""
    names = map(os.path.splitext, _entries(folder))
    return {stem for stem, suffix in names if suffix.lower() in SUFFIXES}


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):  # not there, or no name that a folder can have
        return []


def _looks_like_labels(file: Path) -> bool:
    """Whether a text among images has lines of numbers, and is no list or description."""
    try:
        rows = [row.split() for row in lines(read_text(file, SHEET)) if row.strip()]
    except TextError:
        return False
    return bool(rows) and len(rows[0]) >= 5 and all(number(column) == number(column) for column in rows[0])
