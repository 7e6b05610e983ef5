"""Fonts for text in images: which one has the letters of a text, and how wide the text is."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

from retinanet.common.printable import printable

# Pillow looks these up in the folders of the system. They hold the letters of East Asia and of India, among others.
OF_SYSTEM = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJK-Bold.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"),
    *("msyh.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "Nirmala.ttc", "Nirmala.ttf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf"),
    *("NotoSans-Regular.ttf", "FreeSans.ttf"),
)
NOWHERE = "\U0010ffff"
"""A code point without a letter: what a font draws for it stands for every letter that it lacks."""
SPACES = frozenset(" \u200c\u200d\u3000")


@lru_cache(maxsize=64)
def load_font(size: int, bold: bool = False) -> Any:
    """The usual font, for Latin, Greek, Cyrillic, Arabic and Hebrew letters, of ``size`` pixels."""
    # Pillow's own font has no letter beyond English ones. Matplotlib's wheel brings one that has, and draws no curve.
    found = importlib.util.find_spec("matplotlib")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / f"DejaVuSans{'-Bold' * bold}.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def font_with(text: str, size: int, bold: bool = False) -> Any:
    """The first font that has all letters of ``text``: the usual one, else one of the system; None without any."""
    return next((font for font in _fonts(size, bold) if all(_has(font, letter) for letter in text)), None)


def one_line(text: str, most: int) -> str:
    """At most ``most`` characters of a name, which may hold line breaks, which Pillow refuses to measure."""
    return printable(" ".join(text.split()), most)


def shortened(text: str, font: Any, room: float, keep_end: bool = False) -> str:
    """The beginning or the end of a text that is wider than ``room`` pixels, with "…"."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[1:] if keep_end else text[:-1]
    return "…" + text if keep_end else text + "…"


def _fonts(size: int, bold: bool) -> Iterator[Any]:
    yield load_font(size, bold)
    for name in OF_SYSTEM:
        if font := _system_font(name, size):
            yield font


@lru_cache(maxsize=256)
def _system_font(name: str, size: int) -> Any:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(font: Any, letter: str) -> bool:
    if letter in SPACES:
        return True
    drawn, missing = font.getmask(letter), font.getmask(NOWHERE)
    return bool(drawn.size != missing.size or bytes(drawn) != bytes(missing))
