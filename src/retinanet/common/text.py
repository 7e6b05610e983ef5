"""Reading of text files that may come from strangers: reading never blocks, and its size is limited.

Text is decoded by its byte order mark, otherwise as UTF-8.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError

# UTF-32's mark begins with UTF-16's, so it comes first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CHUNK = 1 << 24  # bytes
ZEROS = bytes(64)  # a row of zeros is text in no encoding, but a hole in a sparse file
DESCRIPTION = 1 << 20
"""Bytes of the longest description of a data set, or of the list of its classes."""
LIST = 1 << 28
"""Bytes of the longest list of images, some millions of paths."""
SHEET = 1 << 24
"""Bytes of the longest annotation file of one image: 16 MiB are a million points of outlines."""
LINE_END = re.compile(r"\r\n|\r|\n")


class TextError(RequestError):
    """A file cannot be read as text.

    Attributes:
        reason: what is wrong, without the name of the file.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.reason = reason


def require_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """The status of a file or folder; links are followed.

    Raises:
        OSError: it does not exist, or is a pipe, a socket or a device, which could block for ever.
    """
    known = os.stat(path)
    if not stat.S_ISREG(known.st_mode) and not stat.S_ISDIR(known.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a regular file", os.fspath(path))
    return known


def read_text(path: str | os.PathLike[str], most: int | None = None) -> str:
    """The text of a file, without its byte order mark.

    Args:
        most: limit of its size in bytes; none by default, for files that describe a whole split.

    Raises:
        TextError: it does not exist, is no regular file, is too large, or is not text.
    """
    return decode(read_bytes(path, most), path)


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a text file.

    Raises:
        TextError: it cannot be read, is no regular file, is too large, or is a sparse file.
    """
    content = bytearray()
    try:
        size = require_regular(path).st_size
        if most is not None and size > most:
            raise TextError(path, f"it has {size} bytes; such a file has at most {most}")
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                if ZEROS in chunk:
                    raise TextError(path, "it holds zeros instead of text")
                content += chunk
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, TextError):
            raise
        raise TextError(path, what_is_wrong(error)) from None
    return bytes(content)


def decode(content: bytes, path: object, encoding: str = "utf-8") -> str:
    """Decode ``content`` by its byte order mark, otherwise by ``encoding``.

    Args:
        path: the name of the file, for the message.

    Raises:
        TextError: it is not text in that encoding.
    """
    mark, encoding = next(((m, name) for m, name in MARKS if content.startswith(m)), (b"", encoding))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, len(mark) + error.start) + 1
        if mark and encoding != "utf-8":
            raise TextError(path, f"its byte order mark says {encoding.upper()}, and it is not that") from None
        if b"\0" in content:
            raise TextError(path, "it is not text") from None
        byte = f"byte 0x{error.object[error.start]:02x}"
        seems = "; perhaps Latin-1 or another 8-bit encoding" if encoding == "utf-8" else ""
        reason = f"not {encoding.upper()} text (line {line}, {byte}{seems}): save it as UTF-8"
        raise TextError(path, reason) from None
    if "\0" in text:
        raise TextError(path, "it holds zero bytes (UTF-16 without a byte order mark?): save it as UTF-8")
    return text


def lines(text: str) -> list[str]:
    """The lines of a text. (``str.splitlines`` would also split at characters that file names may contain.)"""
    return LINE_END.split(text)
