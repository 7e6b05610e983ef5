"""Whether this process is the kernel of a notebook, and text in it that is replaced in place."""

from __future__ import annotations

import sys
from typing import Any


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel, such as a notebook, Colab or VS Code."""
    ipython = sys.modules.get("IPython")  # not imported for this question: a kernel has it
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


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
