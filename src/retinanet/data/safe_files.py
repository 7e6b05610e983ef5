"""Files and folders of a data set that may come from a stranger: no opening blocks, nothing is read without bound."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 24  # bytes
ZEROS = bytes(64)  # in a row are no text in any encoding, but the holes of a file that is smaller than it says
OUTSIDE = "path outside the data set"
"""The fault of a name in an annotation file that leads out of the folder that was given: a stranger's file must not
bring other pictures of this machine into a page."""
LIST = 1 << 28
"""Bytes of the longest list of images, some millions of paths."""
SHEET = 1 << 24
"""Bytes of the longest annotation file of one image: 16 MiB are a million points of outlines."""


def require_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """What the file system says of a file or folder; links are followed.

    Raises:
        OSError: it is not there, or is a pipe, a socket or a device, which may be waited for without end.
    """
    known = os.stat(path)
    if not stat.S_ISREG(known.st_mode) and not stat.S_ISDIR(known.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", os.fspath(path))
    return known


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """All of a text file.

    Args:
        most: bytes it may have; any number by default, which is for files of a whole split.

    Raises:
        OSError: it cannot be read, is no file, is too large, or is a sparse file without text in it.
    """
    size = require_regular(path).st_size
    if most is not None and size > most:
        raise OSError(errno.EFBIG, f"it has {size} bytes; such a file has at most {most}", os.fspath(path))
    content = bytearray()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            if ZEROS in chunk:
                raise OSError(errno.EINVAL, "it holds zeros instead of text", os.fspath(path))
            content += chunk
    return bytes(content)


def read_text(path: str | os.PathLike[str], most: int | None = None) -> str:
    """All of a text file in UTF-8, as :func:`read_bytes`.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    return read_bytes(path, most).decode("utf-8-sig")


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
