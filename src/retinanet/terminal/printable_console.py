"""The console for all text: it shows control characters and markup instead of obeying them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from retinanet.common.printable import printable


class Terminal(Console):
    """Rich's console without markup and emoji codes. All strings are made printable, in tables too."""

    def __init__(self, **options: Any) -> None:
        # In a notebook rich would make an HTML block of every line.
        super().__init__(markup=False, emoji=False, highlight=False, force_jupyter=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)
