"""Checks of files: names that clash, images in no split, files that are not images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from retinanet.analysis.doctor.finding import EXAMPLES, Finding, Split, counted
from retinanet.common.printable import printable
from retinanet.data.formats.listing import shown
from retinanet.data.image_io import SUFFIXES

COMPANIONS = frozenset({".txt", ".json", ".xml", ".yaml", ".yml", ".csv", ".cache", ".md", ".npy", ".db", ".ini"})
"""Suffixes of files that tools and people put beside images, and that are not meant to be images."""


def check(splits: Sequence[Split]) -> Iterator[Finding]:
    for split in splits:
        yield from _clashes(split)
        yield from _turned(split)
    if splits:
        yield from _unlisted(splits)


def _clashes(split: Split) -> Iterator[Finding]:
    times = Counter(split.names)
    repeated = [name for name, n in times.items() if n > 1]
    if repeated:
        yield Finding(
            "files.listed-twice",
            "error",
            split.name,
            len(repeated),
            f"{counted(len(repeated), 'image is', 'images are')} listed under several ids, with different boxes",
            "list each image once, with all its boxes: in each copy the other's objects count as background",
            tuple(_shown(split, name) for name in repeated[:EXAMPLES]),
        )
    folded: dict[str, list[str]] = {}
    for name in times:
        folded.setdefault(name.lower(), []).append(name)
    same = [names for names in folded.values() if len(names) > 1]
    if same:
        yield Finding(
            "files.case",
            "warning",
            split.name,
            sum(map(len, same)),
            f"{counted(sum(map(len, same)), 'image')} with names that differ in upper and lower case only",
            "rename them: on Windows and macOS one file would replace the other",
            tuple(" and ".join(_shown(split, name) for name in names) for names in same[:EXAMPLES]),
        )
    if split.data.kind not in ("Pascal VOC", "YOLO", "labelme"):
        return  # the annotations name images with their suffix
    stems: dict[str, list[str]] = {}
    for name in times:
        stems.setdefault(os.path.splitext(name)[0], []).append(name)
    if split.data.kind == "Pascal VOC":
        for folder in {os.path.dirname(name) for name in times}:
            for entry in os.scandir(folder):
                stem, suffix = os.path.splitext(entry.path)
                if stem in stems and suffix.lower() in SUFFIXES and entry.path not in stems[stem]:
                    stems[stem].append(entry.path)
    shared = [sorted(names) for names in stems.values() if len(names) > 1]
    if shared:
        yield Finding(
            "files.same-stem",
            "warning",
            split.name,
            sum(map(len, shared)),
            f"{counted(len(shared), 'annotation file')} shared by images that only differ in their suffix",
            "keep one of them, or rename them and their annotations: the boxes fit one of the images at most",
            tuple(" and ".join(_shown(split, name) for name in names) for names in shared[:EXAMPLES]),
        )


def _turned(split: Split) -> Iterator[Finding]:
    turned = split.data.report.facts.turned
    if turned:
        yield Finding(
            "files.exif",
            "note",
            split.name,
            len(turned),
            f"{counted(len(turned), 'image is', 'images are')} rotated by a quarter turn as EXIF says, "
            "and the boxes are read as those of the rotated image",
            "check a few of them with their boxes; all programs read images alike that are saved upright",
            tuple(split.data.image_name(i) for i in turned[:EXAMPLES]),
        )


def _unlisted(splits: Sequence[Split]) -> Iterator[Finding]:
    """Files in the images' folders that are in no split."""
    known = {name for split in splits for name in split.names}
    left_out = {
        example.split(":")[0]
        for split in splits
        for kind in ("unreadable image", "size that disagrees with the file", "unreadable annotation file")
        if (fault := split.data.report.faults.get(kind))
        for example in fault.examples
    }
    folders = sorted({os.path.dirname(name) for name in known})
    unlisted, others = [], []
    for folder in folders:
        for entry in os.scandir(folder):
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith(".") or not entry.is_file() or suffix in COMPANIONS:
                continue
            if suffix not in SUFFIXES:
                others.append(_shown(splits[0], entry.path))
            elif entry.path not in known and (name := printable(_shown(splits[0], entry.path))) not in left_out:
                unlisted.append(name)
    # Images that were left out are in the folders too, but only the examples of a fault are known by name.
    left = sum(fault.count for split in splits for fault in split.data.report.faults.values() if "image" in fault.kind)
    if len(unlisted) > left:
        yield Finding(
            "files.unlisted",
            "note",
            "",
            len(unlisted),
            f"{counted(len(unlisted), 'image lies', 'images lie')} beside the others and in no split",
            "nothing, where that is meant; else list them",
            tuple(sorted(unlisted)[:EXAMPLES]),
        )
    if others:
        yield Finding(
            "files.no-images",
            "note",
            "",
            len(others),
            f"{counted(len(others), 'file')} among the images that cannot be read as images",
            f"convert them to JPEG or PNG if they are images; read are {', '.join(sorted(SUFFIXES))}",
            tuple(sorted(others)[:EXAMPLES]),
        )


def _shown(split: Split, path: str) -> str:
    root = split.data.root
    return shown(Path(path), root if root.is_dir() else root.parent)
