"""Files that are there whole or not at all."""

from __future__ import annotations

import os
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
def replacing(path: str | Path, *also: type[Exception]) -> Iterator[Path]:
    """A context that gives a place beside ``path`` to write to, and renames it to ``path`` when all went well.

    A kill or an error leaves what was there before; a half-written file never has the name.

    Args:
        path: the file to write or replace. The place beside it has the same ending, by which libraries know a format.
        also: what a writer raises, beside OSError, when it cannot write.

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
        raise WorkError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        beside.unlink(missing_ok=True)
