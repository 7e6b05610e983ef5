"""Text from outside (file names, class names, messages of other libraries) made safe to show."""

from __future__ import annotations

import unicodedata

JOINERS = frozenset("\u200c\u200d")
"""Invisible, but emoji and several scripts are spelled with them; they move no other letter."""
OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control characters, format characters, half surrogates, line and paragraph separators."""
LINE = 5000
"""Characters of the longest message: room for a path as long as Linux allows, not for a file in a file name."""

NAME = 60
"""Characters of a name in a table, a figure or a progress bar."""


def printable(text: object, most: int = LINE) -> str:
    r"""Text with everything escaped that would be obeyed instead of shown, and cut in its middle where it is long.

    Escaped as Python writes them (``\x1b``, ``\n``, ``\u202e``, ``\udcff``) are control characters (terminals obey
    them), line separators, marks that change the direction of writing or cannot be seen (Unicode's Cf, without the
    joiners of emoji) and halves of surrogate pairs (bytes of file names that are no UTF-8). Letters of all scripts,
    emoji and all kinds of spaces stay. The result does not change when it is escaped again.

    Args:
        text: anything; ``str`` of it is taken.
        most: characters of the result at most, 8 or more.
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
    if unicodedata.category(letter) not in OBEYED or letter in JOINERS:
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def amount(count: float) -> str:
    """A number of bytes in the unit that leaves digits before the point: "1.3 GB", "12 bytes"."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"
