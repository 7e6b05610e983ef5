"""Text in the output of a notebook's cell that is replaced in place."""

from __future__ import annotations

from typing import Any


class NotebookText:
    """Text in the output of a cell. Widgets would need a package, and would be missing in the saved notebook."""

    def __init__(self) -> None:
        self._display: Any = None

    def show(self, text: str) -> None:
        """Show ``text`` in place of the text before."""
        from IPython.display import display

        if self._display is None:
            self._display = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._display.update({"text/plain": text}, raw=True)
