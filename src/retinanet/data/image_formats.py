"""The formats of Pillow that are read."""

from __future__ import annotations

from functools import cache

from PIL import Image

FIRST = ("JPEG", "PNG")
"""The most frequent formats, tried first."""
REFUSED = frozenset({"EPS", "WMF"})
"""Files that are programs, which Ghostscript or Windows would run: an image must not start either."""


@cache
def formats() -> tuple[str, ...]:
    """Names for ``Image.open``: all formats that Pillow and its plugins read, without REFUSED."""
    Image.init()
    return (*FIRST, *(name for name in Image.OPEN if name not in REFUSED and name not in FIRST))
