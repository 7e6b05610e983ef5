"""The parts that all report pages share: tables, the text of numbers, and the HTML around them."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from retinanet.common.atomic_files import replacing
from retinanet.common.printable import printable
from retinanet.common.version import __version__

NONE = "–"
"""Shown where there is no number."""
TEXT = 10**7
"""The longest text of a page in characters; the data URI of an image is such a text."""
THIN = "\u202f"
"""A narrow space without a line break, between thousands."""
TEMPLATES = Path(__file__).parent / "templates"
_CODE = re.compile(r"`([^`]+)`|(?<![\w-])(--[a-z](?:[a-z0-9._-]*[a-z0-9])?(?: [0-9.]*[0-9])?)")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: the number behind the text, by which the page sorts a column.
        bar: length in 0..1 of a bar drawn in the cell.
        tone: "good", "bad" or "faint", which sets the colour.
    """

    text: str
    value: float | None = None
    bar: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = True
    note: str = ""
    """The tooltip of the title."""


@dataclass(frozen=True)
class Table:
    """A table that scrolls inside itself; ``name`` is its HTML id."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    settings: bool = False
    """The first column holds names of settings, which stay on one line."""


@dataclass(frozen=True)
class Figure:
    """A chart with its title and caption."""

    svg: Markup
    title: str
    caption: str


@dataclass(frozen=True)
class Fact:
    """A number in large print."""

    number: str
    name: str
    note: str = ""


# -------------------------------------------------------------------------------------------------- text of numbers


def known(value: Any) -> bool:
    """Whether a value is a finite number."""
    return value is not None and math.isfinite(value)


def measured(value: Any) -> float | None:
    """An AP or the like; None where there is no number, or COCO's -1."""
    return float(value) if known(value) and value >= 0 else None


def count(value: Any) -> str:
    """12 345, with narrow spaces."""
    return f"{round(value):,}".replace(",", THIN) if known(value) else NONE


def score(value: Any, digits: int = 3) -> str:
    """AP and the like, in 0..1; COCO's code writes -1 where there is no truth."""
    return f"{value:.{digits}f}" if known(value) and value >= 0 else NONE


def share(value: Any) -> str:
    """A fraction in 0..1 in percent. Only exactly 0 and 1 become "0 %" and "100 %"."""
    if not known(value):
        return NONE
    if 0 < value < 0.001 or 0.999 < value < 1:
        return f"{'<' if value < 0.5 else '>'}{THIN}{'0.1' if value < 0.5 else '99.9'}{THIN}%"
    digits = 1 if 0 < value < 0.0995 or 0.9905 < value < 1 else 0
    return f"{100 * value:.{digits}f}{THIN}%"


def short(value: Any) -> str:
    """Any number with about three digits."""
    if not known(value):
        return NONE
    if abs(value) >= 1000:
        return count(value)
    return f"{value:.3g}"


def duration(seconds: Any) -> str:
    """3 h 20 min, 5 min 3 s, 4.2 s."""
    if not known(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s" if seconds < 10 else f"{seconds:.0f}{THIN}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = ((hours, "h"), (minutes, "min")) if hours else ((minutes, "min"), (rest, "s"))
    return " ".join(f"{number}{THIN}{unit}" for number, unit in parts if number)


def plural(number: int, one: str, many: str = "") -> str:
    """1 box, 2 boxes."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def prose(text: Any) -> Markup:
    """Text to HTML. Text between backticks becomes code, and so does an option with its number."""
    safe = str(escape(printable(text, TEXT)))
    return Markup(_CODE.sub(lambda found: f"<code>{found[1] or found[2]}</code>", safe))


def number_cell(value: Any, write: Callable[[Any], str]) -> Cell:
    """A cell with a number and its text."""
    return Cell(write(value), value)


def share_cell(value: float | None, tone: str = "") -> Cell:
    """A cell with a fraction in 0..1 in percent, and a bar of this length."""
    return Cell(share(value), value, value, tone)


def plain_value(value: Any) -> str:
    """A setting as people write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain_value(item)}" for key, item in value.items()) or "none"
    return str(value)


# -------------------------------------------------------------------------------------------------------- the page


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Fill a template and write the page; an error leaves no half-written file.

    Raises:
        WorkError: the file cannot be written.
    """
    text = render(template, **values)
    with replacing(path) as temporary:
        # File names may contain bytes that are not UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def render(template: str, **values: Any) -> str:
    """The HTML of a page."""
    return _environment().get_template(template).render(version=__version__, **values) + "\n"


def _shown(value: Any) -> Any:
    """Text for a template, with control characters and direction marks written as escapes."""
    return printable(value, TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digest(script: str) -> str:
    """The hash of a script. The content security policy of a page allows only the script with this hash."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


@lru_cache(maxsize=1)
def _environment() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["prose"] = prose
    environment.filters["digest"] = _digest
    return environment
