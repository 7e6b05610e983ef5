"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinanet.errors import RequestError, WorkError


def require_new(folder: Path, how: str) -> None:
    """
    Args:
        how: what to do instead, such as "with --output".

    Raises:
        RequestError: there is something under that name, other than an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists and is not empty: name a new folder {how}".rstrip())


@contextmanager
def replacing(path: str | Path, *also: type[Exception], needs: int | None = None) -> Iterator[Path]:
    """A context that gives a place beside ``path`` to write to, and renames it to ``path`` when all went well.

    A kill or an error leaves what was there before; a half-written file never has the name.

    Args:
        path: the file to write or replace. The place beside it has the same ending, by which libraries know a format.
        also: what a writer raises, beside OSError, when it cannot write.
        needs: bytes that the file takes, about; said where the disk is full.

    Raises:
        WorkError: the file cannot be written (a full disk, no permission).
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    except Exception as error:
        if not isinstance(error, (OSError, *also)):
            raise
        beside.unlink(missing_ok=True)  # before the free space is looked up
        raise WorkError(f"cannot write {path}: {_reason(error, path.parent, needs)}") from error
    finally:
        beside.unlink(missing_ok=True)


def _reason(error: BaseException, folder: Path, needs: int | None) -> str:
    """Why a file could not be written, in the system's words where a library has its own."""
    number = _error_number(error)
    if number is None:
        return str(error)
    text = os.strerror(number)
    if number not in (errno.ENOSPC, errno.EDQUOT) or needs is None:
        return text
    return f"{text}: it needs {needs / 1e6:.1f} MB, and {shutil.disk_usage(folder).free / 1e6:.1f} MB are free"


def _error_number(error: BaseException | None) -> int | None:
    """The system's, of the first OSError that led to ``error``, or as libraries written in Rust quote it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if quoted := re.search(r"\(os error (\d+)\)", str(error)):
            return int(quoted[1])
        error = error.__cause__ or error.__context__
    return None
