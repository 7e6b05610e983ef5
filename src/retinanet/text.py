"""Text files of annotations, decoded by their byte order mark, else as UTF-8; a file that is neither is named."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from retinanet.errors import RequestError

# UTF-32's mark begins with UTF-16's, so it is tried first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LINE_END = re.compile(r"\r\n|\r|\n")


class TextError(RequestError):
    """A file that cannot be read as text.

    Attributes:
        reason: what is wrong, without the file's name.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.reason = reason


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file without its byte order mark.

    Raises:
        TextError: it is not there, no file, or not text; one line that names it.
    """
    return decode(read_bytes(path), path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; nothing else is opened, as a pipe would be waited for.

    Raises:
        TextError: it is not there, or no file.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise TextError(path, "Is a directory" if os.path.isdir(path) else "it is not a regular file")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, TextError):
            raise
        raise TextError(path, getattr(error, "strerror", None) or str(error)) from None


def decode(content: bytes, path: object, encoding: str = "utf-8") -> str:
    """Bytes to text: by the byte order mark, else in ``encoding``.

    Raises:
        TextError: it is not text in that encoding; ``path`` is named.
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
    """The lines of a text. Unlike ``str.splitlines`` it leaves characters that may stand in a file's name alone."""
    return LINE_END.split(text)
