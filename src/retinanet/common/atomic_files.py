"""Writing files so that they are complete or do not exist."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retinanet.common.errors import RequestError, WorkError, first_line

LONGEST_ENDING = 32  # bytes; no file format has a longer one
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) if sys.platform == "win32" else ()
"""Seconds between attempts to rename a file."""
NAME_FAULTS = frozenset([errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST])


def require_new(folder: Path, how: str) -> None:
    """
    Args:
        how: how to name another folder, such as "with --output".

    Raises:
        RequestError: ``folder`` exists, and is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists and is not empty: name a new folder {how}".rstrip())


def what_is_wrong(error: BaseException) -> str:
    """The reason why a file cannot be written or read, such as "no space left on device"."""
    known = getattr(error, "strerror", None)  # PyAV's errors have it too
    if not known and (number := _error_number(error)):
        known = os.strerror(number)
    return str(known).lower() if known else first_line(error)


def only_this(error: BaseException | None) -> bool:
    """Whether an error is about the name or content of one file, so that other files can still be written.

    An error without a number comes from an encoder, for example if an image is too large for its format.
    """
    return isinstance(error, OSError) and (error.errno is None or error.errno in NAME_FAULTS)


def beside(path: Path) -> Path:
    """A short, hidden and unused name in the same folder, with the same ending. Other hosts get other names."""
    ending = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_ENDING else ""
    return path.with_name(f".{secrets.token_hex(8)}.part{ending}")


def rename(source: Path, target: Path) -> None:
    """Give a file or a folder its final name, at which a file may stand.

    On Windows a file cannot be replaced while another program reads it, as virus scanners do for a moment: then this
    tries again for some seconds.

    Raises:
        OSError: it cannot be renamed.
    """
    for wait in WAITS:
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


@contextmanager
def replacing(path: str | Path, *also: type[Exception], needs: int | None = None) -> Iterator[Path]:
    """A context that gives a temporary file to write to, and renames it to ``path`` at its end.

    If the process is killed or an error is raised, the old file stays. A half-written file never has the name ``path``.
    Processes on several hosts may write to the same folder.

    Args:
        path: the file to write or replace. The temporary file has the same ending, because libraries choose a format
            by it.
        also: exceptions that a writer raises, besides OSError, when it cannot write.
        needs: size of the file in bytes, for the message about a full disk.

    Raises:
        WorkError: the file cannot be written, for example because the disk is full. Its cause is the writer's error.
    """
    path = Path(path)
    temporary = beside(path)
    try:
        yield temporary
        rename(temporary, path)
    except Exception as error:
        if not isinstance(error, (OSError, *also)):
            raise
        with suppress(OSError):
            temporary.unlink()  # before the free space is determined
        raise WorkError(f"cannot write {path}: {what_is_wrong(error)}{_space(error, path.parent, needs)}") from error
    finally:
        with suppress(OSError):  # the folder may be gone; the first error is more important
            temporary.unlink()


def _space(error: BaseException, folder: Path, needs: int | None) -> str:
    """The size of the file and the free space, if the disk is full."""
    if needs is None or _error_number(error) not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return f": it needs {needs / 1e6:.1f} MB, and {shutil.disk_usage(folder).free / 1e6:.1f} MB are free"


def _error_number(error: BaseException | None) -> int | None:
    """The system's number of the first OSError in the chain of ``error``. Rust libraries quote it in their text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if quoted := re.search(r"\(os error (\d+)\)", str(error)):
            return int(quoted[1])
        error = error.__cause__ or error.__context__
    return None
