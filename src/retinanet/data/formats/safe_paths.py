"""Walks the files of a data set from an untrusted source, and finds names that lead out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

OUTSIDE = "path outside the data set"
"""The kind of fault where a name in an annotation file leads out of the data set. An untrusted file must not bring
other images of this machine into a page."""


def files_below(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """All files in a folder and its subfolders, in the order of their names.

    Links are followed, because people use them to spread data over disks, but not to a folder that holds this one. Each
    folder is entered once, so links in circles end. Folders that cannot be read are skipped.
    """
    entered: set[tuple[int, int]] = set()
    here = Path(os.path.realpath(folder))

    def entries(path: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
        try:
            status = os.stat(path)
            if (identity := (status.st_dev, status.st_ino)) in entered:
                return iter(())
            entered.add(identity)
            with os.scandir(path) as content:
                return iter(sorted(content, key=lambda entry: entry.name))
        except OSError:
            return iter(())

    opened = [entries(folder)]  # instead of recursion: folders may be nested deeply
    while opened:
        entry = next(opened[-1], None)
        if entry is None:
            opened.pop()
        elif not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)):
            yield Path(entry.path)
        elif not entry.is_symlink() or not here.is_relative_to(os.path.realpath(entry.path)):
            opened.append(entries(entry.path))


def leaves(name: str, folder: str | os.PathLike[str], root: str | os.PathLike[str]) -> bool:
    """Whether a file name of an annotation file, relative to ``folder`` or absolute, lies outside of ``root``.

    Only its spelling counts: links inside ``root`` may lead anywhere.
    """
    if ".." not in name and not os.path.isabs(name):
        return False
    # A file that was written on Windows has backslashes between names.
    path = os.path.abspath(os.path.join(folder, name.replace("\\", "/")))
    return not Path(path).is_relative_to(os.path.abspath(root))
