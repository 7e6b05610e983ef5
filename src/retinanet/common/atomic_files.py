"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retinanet.common.errors import RequestError, WorkError, first_line

LONGEST_ENDING = 32  # bytes; a longer one belongs to no format
NAME_FAULTS = frozenset([errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST])


def require_new(folder: Path, how: str) -> None:
    """
    Args:
        how: what to do instead, such as "with --output".

    Raises:
        RequestError: there is something under that name, other than an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists and is not empty: name a new folder {how}".rstrip())


def what_is_wrong(error: BaseException) -> str:
    """Why a file cannot be written or read, in a few words such as "no space left on device"."""
    known = getattr(error, "strerror", None)  # PyAV's errors have it too
    if not known and (number := _error_number(error)):
        known = os.strerror(number)
    return str(known).lower() if known else first_line(error)


def only_this(error: BaseException | None) -> bool:
    """Whether one file cannot be written because of its name or content, so that others in the same folder can.

    An error without a number is an encoder's, such as of an image larger than its format allows.
    """
    return isinstance(error, OSError) and (error.errno is None or error.errno in NAME_FAULTS)


def beside(path: Path) -> Path:
    """A hidden, unused name beside ``path`` with the same ending: unique among hosts, and short."""
    ending = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_ENDING else ""
    return path.with_name(f".{secrets.token_hex(8)}.part{ending}")


@contextmanager
def replacing(path: str | Path, *also: type[Exception], needs: int | None = None) -> Iterator[Path]:
    """A context that gives a file beside ``path`` to write to, and renames it to ``path`` when all went well.

    A kill or an error leaves what was there before; a half-written file never has the name. Processes on several hosts
    may write to one folder.

    Args:
        path: the file to write or replace. The file beside it has the same ending, by which libraries know a format.
        also: what a writer raises, beside OSError, when it cannot write.
        needs: bytes that the file takes, about; said where the disk is full.

    Raises:
        WorkError: the file cannot be written (a full disk, no permission); its cause is the writer's error.
    """
    path = Path(path)
    part = beside(path)
    try:
        yield part
        os.replace(part, path)
    except Exception as error:
        if not isinstance(error, (OSError, *also)):
            raise
        with suppress(OSError):
            part.unlink()  # before the free space is looked up
        raise WorkError(f"cannot write {path}: {what_is_wrong(error)}{_space(error, path.parent, needs)}") from error
    finally:
        with suppress(OSError):  # the folder may be gone, and what went wrong is more worth telling
            part.unlink()


def _space(error: BaseException, folder: Path, needs: int | None) -> str:
    """What a file needs and what there is, where the disk is full."""
    if needs is None or _error_number(error) not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return f": it needs {needs / 1e6:.1f} MB, and {shutil.disk_usage(folder).free / 1e6:.1f} MB are free"


def _error_number(error: BaseException | None) -> int | None:
    """The system's, of the first OSError that led to ``error``, or as libraries written in Rust quote it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if quoted := re.search(r"\(os error (\d+)\)", str(error)):
            return int(quoted[1])
        error = error.__cause__ or error.__context__
    return None
