"""Which files a source names: a file, a folder with its subfolders, or a pattern such as ``holiday/**/*.jpg``."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError
from retinanet.data.image_io import SUFFIXES

SHOWN = 3  # files named in a message
RAW = "a camera's raw file"
UNREAD = {
    ".jxl": "JPEG XL",
    ".pdf": "PDF",
    ".svg": "SVG",
    ".psd": "PSD",
    ".eps": "EPS",
    ".exr": "OpenEXR",
    ".dcm": "DICOM",
    **dict.fromkeys(
        [".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2"], RAW
    ),
    **dict.fromkeys([".pef", ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".raw"], RAW),
}
"""Suffixes of images that are not read, and their formats."""


@dataclass(frozen=True)
class Kinds:
    """The files that are wanted from a folder."""

    suffixes: frozenset[str]
    """In lower case, with the dot."""
    name: str
    """What they are, for messages."""


IMAGES = Kinds(SUFFIXES, "image")


def is_pattern(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a pattern: it has ``*``, ``?`` or ``[...]``, and no file or folder has that name."""
    return glob.has_magic(os.fspath(source)) and not os.path.exists(source)


def expand(
    source: str | os.PathLike[str], skipped: list[tuple[str, str]], kinds: Kinds = IMAGES
) -> Iterator[tuple[Path, Path]]:
    """Files of one source, sorted, and their names below it.

    Args:
        skipped: the other files of its folders are added to this list, each with the reason.
        kinds: the files that are taken from folders. A file that is named, or matches a pattern, is always taken.

    Raises:
        RequestError: the source does not exist, matches nothing or holds no such file.
    """
    path = Path(source)
    if os.path.isdir(path):
        before, files = len(skipped), _files(path, skipped, kinds)
        if not files:
            others = ", ".join(f"{name} ({why})" for name, why in skipped[before:][:SHOWN])
            more = f"; skipped: {others}" if others else ""
            raise RequestError(f"there is no {kinds.name} in the folder {path} or its subfolders{more}")
        yield from ((file, file.relative_to(path)) for file in files)
    elif os.path.isfile(path):
        yield path, Path(path.name)
    elif os.path.exists(path):
        raise RequestError(f"{path} is neither a file nor a folder")
    elif is_pattern(source):
        empty = True
        for match in map(Path, sorted(glob.glob(os.fspath(source), recursive=True))):
            folder = os.path.isdir(match)
            for file in _files(match, skipped, kinds) if folder else [match]:
                empty = False
                yield file, file.relative_to(match if folder else match.parent)
        if empty:
            raise RequestError(f"nothing matches the pattern {source}")
    else:
        video = kinds is not IMAGES and path.suffix.lower() in kinds.suffixes - SUFFIXES
        raise RequestError(f"there is no {'video' if video else 'image or folder'} {source}")


def _files(folder: Path, skipped: list[tuple[str, str]], kinds: Kinds) -> list[Path]:
    """The wanted files in a folder and its subfolders, by their suffixes. All others are added to ``skipped``."""
    files: list[Path] = []
    others: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        others.append((str(error.filename), what_is_wrong(error)))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        for name in list(folders):
            path = Path(parent, name)
            if name.startswith("."):
                others.append((str(path), "hidden"))
                folders.remove(name)
            elif path.is_symlink():  # os.walk does not follow it
                others.append((str(path), "a link to a folder, not followed: give the folder itself"))
        for path in (Path(parent, name) for name in names):
            reason = _unused(path, kinds)
            if reason:
                others.append((str(path), reason))
            else:
                files.append(path)
    skipped += sorted(others)
    return sorted(files)


def _unused(path: Path, kinds: Kinds) -> str:
    """Why a file in a folder is not used; empty where it is wanted."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden"
    if not os.path.isfile(path):
        return "not a regular file" if os.path.exists(path) else "a link to nothing"
    if suffix in UNREAD:
        return f"{UNREAD[suffix]} is not read: convert it to JPEG or PNG"
    return "" if suffix in kinds.suffixes else f"not an {kinds.name} by its suffix"
