"""Reads the rows of a CSV one by one: a file may be larger than the memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError
from retinanet.common.text import MARKS, TextError, require_regular

LONGEST = 1 << 20  # characters of a line
DELIMITERS = ",;\t"


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of the line and the columns of each row that is not blank. The header decides the delimiter.

    Raises:
        RequestError: it cannot be read, or a line is no text or too long; the message names the line.
    """
    try:
        require_regular(path)
        with open(path, "rb") as file:
            head = file.read(4)
            mark, encoding = next(((m, name) for m, name in MARKS if head.startswith(m)), (b"", "utf-8"))
            file.seek(len(mark))
            with io.TextIOWrapper(file, encoding, newline="") as text:
                yield from _parsed(path, text)
    except OSError as error:
        raise TextError(path, what_is_wrong(error)) from None


def _parsed(path: Path, file: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    line = 0

    def lines() -> Iterator[str]:
        nonlocal line
        while text := file.readline(LONGEST):
            line += 1
            if len(text) == LONGEST:
                raise RequestError(f"{path} line {line} has more than {LONGEST} characters")
            yield text

    try:
        source = lines()
        first = next(source, "")
        delimiter = max(DELIMITERS, key=first.count)
        reader = csv.reader(_joined(first, source), delimiter=delimiter)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise RequestError(f"{path} line {line + 1} or later is not UTF-8 text ({byte}): save it as UTF-8") from None
    except csv.Error as error:
        raise RequestError(f"{path} line {line} is not CSV: {error}") from None


def _joined(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
