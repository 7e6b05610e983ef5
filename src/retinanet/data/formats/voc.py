"""Reads Pascal VOC's layout: an XML for each image, and lists of the images of each split."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

from retinanet.common.errors import RequestError
from retinanet.common.text import LIST, lines, read_text
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import Layout, Listing, image_files, numbered, shown
from retinanet.data.formats.path_matching import Locator, folded, without_first
from retinanet.data.formats.safe_paths import OUTSIDE, leaves
from retinanet.data.formats.voc_sheets import FROM_ZERO, Sheet, add_object, gather
from retinanet.data.image_io import SUFFIXES

FOLDERS = ("JPEGImages", "Annotations")
PAIR = re.compile(rf"(.+(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))[\s,]+([^\s,].*\.xml)", re.IGNORECASE)


def find(root: Path) -> Layout | None:
    """Recognise a folder with JPEGImages, Annotations and ImageSets/Main."""
    if not root.is_dir() or not (root / "Annotations").is_dir() or not (root / "JPEGImages").is_dir():
        return None
    lists = {path.stem: stems for path in sorted((root / "ImageSets/Main").glob("*.txt")) if (stems := listed(path))}
    if not lists:
        if not any((root / "ImageSets/Main").glob("*.txt")):
            return None  # all images are one list: see voc_pairs
        raise RequestError(f"{root} looks like Pascal VOC, but ImageSets/Main has no list of images such as train.txt")
    counts = {name: partial(len, stems) for name, stems in lists.items()}
    return Layout("Pascal VOC", root, counts, lambda name, report: _read(root, name, lists, report))


def listed(path: Path) -> list[str]:
    """The images of a split. It is empty for VOC's lists of one class, which have a second column and are not splits.

    A line is an image's name without its suffix. Other tools write the image's path, or the paths of image and XML.

    Raises:
        RequestError: the list is not text, or a line pairs an image with the annotations of another.
    """
    rows = [(number, line.strip()) for number, line in enumerate(lines(read_text(path, LIST)), 1) if line.strip()]
    is_of_class = all(re.fullmatch(r"\S+\s+(-1|0|1)", row) for _, row in rows)
    if is_of_class and rows and not os.path.lexists(path.parents[2] / _file(rows[0][1])):
        return []
    stems = []
    for line, row in rows:
        pair = PAIR.fullmatch(row) if row.lower().endswith(".xml") else None
        image, sheet = pair.groups() if pair else (row, row)
        if _stem(image) != _stem(sheet):
            raise RequestError(f"{path} line {line} pairs {image} with {sheet}: their names must be the same")
        stems.append(_stem(image))
    return stems


def _stem(name: str) -> str:
    """JPEGImages/a.jpg, Annotations/a.xml, /home/me/VOC/JPEGImages/a.jpg -> a; b/a.jpg -> b/a"""
    name = " ".join(name.split())
    if Path(name).suffix.lower() in (*SUFFIXES, ".xml"):
        name = name[: -len(Path(name).suffix)]
    steps = name.replace("\\", "/").split("/")
    last = max((i for i, step in enumerate(steps) if step in FOLDERS), default=-1)
    return "/".join(steps[last + 1 :])


def _read(root: Path, split: str, lists: dict[str, list[str]], report: Report) -> Listing:
    everything = dict.fromkeys(stem for stems in lists.values() for stem in stems)
    in_list = f"ImageSets/Main/{split}.txt"
    files = _Files(root, everything)
    stems = dict.fromkeys(lists[split])
    sheets = gather(((stem, path) for stem in everything if (path := files.annotation(stem)) is not None), stems, root)
    names = sorted(sheets.classes)
    label_of = {name: label for label, name in enumerate(names)}
    if not names:
        for reason in sheets.broken.values():
            report.add("unreadable annotation file", "left out", reason)
        for stem in everything:
            if stem not in sheets.of and files.image(stem) is None:
                report.add(OUTSIDE, "left out", stem)
        raise _no_class(root, "" if report.count or sheets.of else _file(next(iter(stems))))
    if sheets.from_zero:
        report.notes.append(FROM_ZERO)
    stems_read: list[str] = []
    listing = Listing(
        names,
        list(range(1, len(names) + 1)),
        lambda i, line: f"{_file(stems_read[i])} line {line}",
        sheet="an annotation file",
    )
    for stem in [stem for stem, times in Counter(lists[split]).items() if times > 1]:
        report.add("image listed twice", "left out", f"{in_list}: {stem}")
    for stem, ident in zip(stems, numbered(list(stems))):
        if stem in sheets.broken:
            report.add("unreadable annotation file", "left out", sheets.broken[stem])
            continue
        path = files.image(stem)
        if path is None:
            report.add(OUTSIDE, "left out", f"{in_list}: {stem}")
            continue
        sheet = sheets.of.get(stem, Sheet())
        if stem in files.renamed:
            report.add(RENAMED, "repaired", files.renamed[stem])
        if path.stem != Path(stem).name:
            report.add(RENAMED, "repaired", f"{stem} is {shown(path, root)}")
        image = listing.add_image(path, ident, sheet.image_size)
        stems_read.append(stem)
        if stem not in sheets.of:
            listing.unlabelled.append(image)
        for entry in sheet.entries:
            add_object(listing, image, entry, label_of, f"{_file(stem)} line {entry.line}", sheets.from_zero, report)
    if len(listing.unlabelled) == len(stems_read) > 0:
        raise RequestError(
            f"none of the {len(stems_read)} images of {split} has an annotation file in {root}/Annotations, such as "
            f"{Path(_file(stems_read[0])).name}"
        )
    return listing


def _no_class(root: Path, missing: str) -> RequestError:
    tried = f"; looked for {root / missing}" if missing else ""
    return RequestError(f"{root}/Annotations names no class: there is no <object> with a <name> in any split{tried}")


class _Files:
    """Finds the files of an image by its name in a list."""

    def __init__(self, root: Path, stems: Collection[str]) -> None:
        self._root, self._stems, self._locator = root, stems, Locator()
        self._times = Counter(Path(stem).name for stem in stems)
        self.renamed: dict[str, str] = {}
        """For each XML that has another name on disk, the message that says so."""
        folder = root / "JPEGImages"
        self._images = {path.relative_to(folder).with_suffix("").as_posix(): path for path in image_files(folder)}
        self._folded: dict[str, list[Path]] = {}  # images in any folder, by their folded names
        for path in self._images.values():
            self._folded.setdefault(folded(path.stem), []).append(path)

    def annotation(self, stem: str) -> Path | None:
        """The XML of a name, maybe in another spelling or without the folders of another machine; else None."""
        path = self._root / _file(stem)
        if not self._leaves(stem) and os.path.lexists(path):
            return path
        name: str | None = stem
        steps = 0
        while name is not None:
            located = self._locator.find(self._root / "Annotations", f"{name}.xml")
            if located is not None:
                if self._belongs_to_another(stem, located, "Annotations"):
                    return None
                self.renamed[stem] = f"{_file(stem)} is {shown(located, self._root)}"
                return located
            # Two listed images in different folders with one name could both have it.
            name = without_first(stem, steps) if self._times[Path(stem).name] == 1 else None
            steps += 1
        return None

    def image(self, stem: str) -> Path | None:
        """The image of a name, or the only one that differs in folder, case or accents.

        If there is none, it is the path that the image should have; None if the name leads out of the data set.
        """
        if stem in self._images:
            return self._images[stem]
        paths = self._folded.get(folded(Path(stem).name), [])
        unique = len(paths) == 1 and self._times[Path(stem).name] <= 1
        if not unique or self._belongs_to_another(stem, paths[0], "JPEGImages"):
            return None if self._leaves(stem) else self._root / "JPEGImages" / f"{stem}.jpg"
        return paths[0]

    def _leaves(self, stem: str) -> bool:
        return leaves(stem, self._root / "JPEGImages", self._root)

    def _belongs_to_another(self, stem: str, path: Path, folder: str) -> bool:
        """Whether a file has exactly the name of another listed image."""
        name = path.relative_to(self._root / folder).with_suffix("").as_posix()
        return name != stem and name in self._stems


def _file(stem: str) -> str:
    return f"Annotations/{stem}.xml"
