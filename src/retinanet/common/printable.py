"""Text that is safe to show: file names, class names and other libraries' messages may hold control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

JOINERS = frozenset("\u200c\u200d")
"""Invisible letters that emoji and several scripts need; they change nothing around them."""
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters, lone surrogates, line and paragraph separators."""
LINE = 5000
"""Characters of the longest message: enough for the longest path on Linux."""
NAME = 60
"""Characters of the longest name in a table, a figure or a progress bar."""


def printable(text: object, most: int = LINE) -> str:
    r"""``text`` with unsafe characters escaped, and its middle cut out if it is long.

    These are escaped as Python writes them (``\x1b``, ``\n``, ``\u202e``, ``\udcff``): control characters, which
    terminals obey; line separators; invisible marks (Unicode's Cf, except the joiners of emoji); lone surrogates (bytes
    of file names that are not UTF-8). Letters of all scripts, emoji and spaces stay. Escaping twice changes nothing.

    Args:
        text: any object; it is converted by ``str``.
        most: the length of the result at most, 8 or more.
    """
    text = str(text)
    if not text.isprintable():
        if len(text) > 2 * most:  # escapes only make it longer: the middle would be cut anyway
            text = text[:most] + text[-most:]
        text = "".join(map(_shown, text))
    if len(text) <= most:
        return text
    front = (2 * (most - 3)) // 3
    return text[:front] + " … " + text[len(text) - (most - 3 - front) :]


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in UNSAFE or letter in JOINERS:
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def listed(names: Sequence[str], most: int) -> str:
    """The first ``most`` names, and how many more there are: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def amount(count: float) -> str:
    """A number of bytes in a readable unit: "1.3 GB", "12 bytes"."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def setting_text(value: Any) -> str:
    """A setting's value as a user types it."""
    if isinstance(value, list | tuple):
        return " ".join(map(setting_text, value))
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
