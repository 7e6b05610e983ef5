"""Which of the formats that Pillow knows a file may have."""

from __future__ import annotations

from functools import cache

from PIL import Image

FIRST = ("JPEG", "PNG")
"""The commonest, tried before all others."""
REFUSED = frozenset({"EPS", "WMF"})
"""Programs that draw, run by another program (Ghostscript) or by Windows: an image must not start either."""


@cache
def formats() -> tuple[str, ...]:
    """Names for ``Image.open``: all that this Pillow and its plugins read, without those that are programs."""
    Image.init()
    return (*FIRST, *(name for name in Image.OPEN if name not in REFUSED and name not in FIRST))
