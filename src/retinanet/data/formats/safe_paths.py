"""Files and folders of a data set that may come from a stranger: which lie in it, and which names lead out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

OUTSIDE = "path outside the data set"
"""The fault of a name in an annotation file that leads out of the folder that was given: a stranger's file must not
bring other images of this machine into a page."""


def files_below(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Everything but folders in a folder and its subfolders, in the order of their names.

    Links are followed, as people make them to spread data over disks, but not to a folder that holds this one; each
    folder is entered once. So links in circles end. Folders that may not be read are passed over.
    """
    entered: set[tuple[int, int]] = set()
    here = Path(os.path.realpath(folder))

    def entries(path: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
        try:
            known = os.stat(path)
            if (place := (known.st_dev, known.st_ino)) in entered:
                return iter(())
            entered.add(place)
            with os.scandir(path) as there:
                return iter(sorted(there, key=lambda entry: entry.name))
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
    """Whether a file name that stands in an annotation file, relative to ``folder`` or absolute, lies outside ``root``.

    It is judged by its spelling: links inside ``root`` may lead anywhere.
    """
    if ".." not in name and not os.path.isabs(name):
        return False
    # Backslashes part names too, wherever the file was written.
    path = os.path.abspath(os.path.join(folder, name.replace("\\", "/")))
    return not Path(path).is_relative_to(os.path.abspath(root))
