"""Reads Pascal VOC's XML without lists of images: beside each image (LabelImg, Roboflow), or in a folder Annotations.

The folders ``train``, ``valid`` and ``test`` are splits; without them all images are one list.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from retinanet.common.errors import RequestError
from retinanet.common.text import SHEET, TextError, read_bytes
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import WHOLE, Layout, Listing, image_files, numbered, shown
from retinanet.data.formats.path_matching import folded
from retinanet.data.formats.safe_paths import files_below
from retinanet.data.formats.split_folders import child, split_folders
from retinanet.data.formats.voc_sheets import FROM_ZERO, Sheet, Sheets, add_object, gather

SHEETS = ("annotations", "annotation", "xmls", "xml", "labels", "label")
IMAGES = ("jpegimages", "images", "image", "imgs", "img")
ROOT = re.compile(rb"<annotation[\s>]")
TRIED = 5  # XML files that are inspected in a folder


class Part(NamedTuple):
    """The folders of a split."""

    images: Path
    sheets: Path
    """The folder of the annotation files."""


def find(root: Path) -> Layout | None:
    """Recognise images with an XML each: side by side, or in folders of images and of annotations."""
    parts = {name: part for name, folder in split_folders(root).items() if (part := _part(folder))}
    if not parts and (images := child(root, IMAGES)) and (sheets := child(root, SHEETS)):
        inner = {name: Part(folder, sheets / name) for name, folder in split_folders(images).items()}
        parts = {name: part for name, part in inner.items() if part.sheets.is_dir() and _has_sheets(part.sheets)}
    whole = None if parts else _part(root)
    if whole is not None:
        parts = {WHOLE: whole}
    if not parts:
        return None
    counts = {name: partial(_count, part.images) for name, part in parts.items()}
    read = partial(_read, root, parts)
    return Layout("Pascal VOC", root, counts, read, any_split=whole is not None)


def _part(folder: Path) -> Part | None:
    images = child(folder, IMAGES) or folder
    if images != folder and next(image_files(images), None) is None:
        images = folder
    apart = [inner for each in dict.fromkeys((folder, images)) if (inner := child(each, SHEETS)) is not None]
    candidates = [*((each, True) for each in apart), (images, False), (folder, False)]
    sheets = next((each for each, below in candidates if _has_sheets(each, below)), None)
    return None if sheets is None else Part(images, sheets)


def _has_sheets(folder: Path, below: bool = True) -> bool:
    """Whether one of the first XML files of a folder (and of its subfolders, if ``below``) is Pascal VOC's."""
    try:
        files = _sheet_files(folder) if below else (path for path in folder.iterdir() if path.suffix.lower() == ".xml")
        return any(_is_sheet(path) for path in itertools.islice(files, TRIED))
    except OSError:
        return False


def _is_sheet(path: Path) -> bool:
    try:
        return bool(ROOT.search(read_bytes(path, SHEET)[:4096].replace(b"\0", b"")))
    except TextError:
        return False


def _sheet_files(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.suffix.lower() == ".xml" and not path.name.startswith("."))


def _count(folder: Path) -> int:
    return sum(1 for _ in image_files(folder))


def _pairs(part: Part, root: Path, report: Report) -> dict[Path, Path | None]:
    """The images of a split, each with its annotation file."""
    sheets = {path.relative_to(part.sheets).with_suffix("").as_posix(): path for path in _sheet_files(part.sheets)}
    pairs: dict[Path, Path | None] = {}
    for image in image_files(part.images):
        pairs[image] = sheets.get(image.relative_to(part.images).with_suffix("").as_posix())
    claimed = set(pairs.values())
    left: dict[str, list[Path]] = {}
    for path in sheets.values():
        if path not in claimed:
            left.setdefault(folded(path.stem), []).append(path)
    for image in [image for image, sheet in pairs.items() if sheet is None]:
        if len(others := left.get(folded(image.stem), [])) == 1:
            pairs[image] = others.pop()
            text = f"{shown(pairs[image] or image, root)} for {shown(image, root)}"
            report.add(RENAMED, "repaired", text)
    for path in itertools.chain.from_iterable(left.values()):
        report.add("label file without an image", "left out", shown(path, root))
    return pairs


def _read(root: Path, parts: dict[str, Part], split: str, report: Report) -> Listing:
    pairs = _pairs(parts[split], root, report)
    sheets = _gathered(root, parts, pairs)
    names = sorted(sheets.classes)
    if not names:
        for reason in sheets.broken.values():
            report.add("unreadable annotation file", "left out", reason)
        raise RequestError(f"the XML files in {root} name no class: there is no <object> with a <name> in any split")
    if sheets.from_zero:
        report.notes.append(FROM_ZERO)
    label_of = {name: label for label, name in enumerate(names)}
    files: list[str] = []
    listing = Listing(
        names, list(range(1, len(names) + 1)), lambda i, line: f"{files[i]} line {line}", sheet="an annotation file"
    )
    for image, ident in zip(pairs, numbered([image.stem for image in pairs])):
        path = pairs[image]
        if path is not None and str(path) in sheets.broken:
            report.add("unreadable annotation file", "left out", sheets.broken[str(path)])
            continue
        sheet = sheets.of.get(str(path), Sheet())
        index = listing.add_image(image, ident, sheet.image_size)
        files.append(shown(path or image, root))
        if path is None:
            listing.unlabelled.append(index)
        for entry in sheet.entries:
            add_object(listing, index, entry, label_of, f"{files[-1]} line {entry.line}", sheets.from_zero, report)
    if len(listing.unlabelled) == len(pairs) > 0:
        raise RequestError(f"none of the {len(pairs)} images of {split} has an XML of the same name: see {root}")
    return listing


def _gathered(root: Path, parts: dict[str, Part], pairs: dict[Path, Path | None]) -> Sheets:
    """The annotations of a split, by the path of their file, and the classes of all splits."""
    everything = dict.fromkeys(path for part in parts.values() for path in _sheet_files(part.sheets))
    wanted = {str(path) for path in pairs.values() if path is not None}
    return gather(((str(path), path) for path in everything), wanted, root)
