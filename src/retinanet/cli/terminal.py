"""The console that all text for people goes through: it shows text, and never obeys it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from retinanet.common.printable import printable


class Terminal(Console):
    """Rich's console without markup and emoji codes; strings, in tables too, are made printable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)
