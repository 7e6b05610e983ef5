"""Bars that show how far work has come: in a terminal, or in a notebook."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from retinanet.common.printable import NAME, printable
from retinanet.terminal.notebook import NotebookText

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 14  # letters of a bar
REFRESH = 0.5  # seconds between two texts in a notebook, whose browser redraws its page


class Bars(Protocol):
    """Any number of bars, each with a name, a fraction that is done, and a text."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Remove all bars, so that later text starts on a new line."""

    def show(self, name: str, fraction: float, text: str) -> None:
        """Show or update the bar ``name``."""

    def remove(self, name: str) -> None:
        """Remove the bar ``name``, if there is one."""


class TerminalBars:
    """Bars in the last lines of a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        # In a narrow terminal the end of the text is cut, and not the name.
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=WIDTH),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[text]}", markup=False, table_column=rest),
            console=console,
            transient=True,
            expand=True,
        )
        self._tasks: dict[str, Any] = {}

    def start(self) -> None:
        self._bars.start()

    def stop(self) -> None:
        self._bars.stop()

    def show(self, name: str, fraction: float, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(printable(name, NAME), total=1.0, text="")
        self._bars.update(self._tasks[name], completed=fraction, text=printable(text))

    def remove(self, name: str) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))

    def refresh(self) -> None:
        """Draw now what would be drawn a moment later."""
        self._bars.refresh()


@dataclass
class _Bar:
    fraction: float
    text: str

    def line(self, name: str) -> str:
        full = round(WIDTH * min(1.0, max(0.0, self.fraction)))
        return f"{printable(name, NAME)} {'█' * full}{'░' * (WIDTH - full)} {self.fraction:4.0%} {printable(self.text)}"


class NotebookBars:
    """Bars as text below a cell."""

    def __init__(self) -> None:
        self._bars: dict[str, _Bar] = {}
        self._text = NotebookText()
        self._shown = -float("inf")
        self._used = False

    def start(self) -> None: ...

    def stop(self) -> None:
        self._bars.clear()
        if self._used:
            self._draw()

    def show(self, name: str, fraction: float, text: str) -> None:
        self._bars[name] = _Bar(fraction, text)
        if time.monotonic() - self._shown >= REFRESH:
            self._draw()

    def remove(self, name: str) -> None:
        self._bars.pop(name, None)

    def _draw(self) -> None:
        self._shown, self._used = time.monotonic(), True
        self._text.show("\n".join(bar.line(name) for name, bar in self._bars.items()))
