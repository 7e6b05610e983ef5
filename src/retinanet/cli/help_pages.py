"""The pages of ``--help``: short, with worked examples. ``--help-all`` shows every option with its full text."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from retinanet.cli.shared_options import OPTIONS

if TYPE_CHECKING:
    from rich.console import Console

SHORT = ("Commands", "Arguments", OPTIONS.name)
"""Titles of the panels that ``--help`` shows."""
NAMES = 24  # characters of the column of names, at most
WIDEST = 120  # characters of a line
YES_NO = {"True": "yes", "true": "yes", "False": "no", "false": "no"}
_FIRST_SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z\"\[])")
_DEFAULT = re.compile(r"\s*\[default: (.*)\]$", re.DOTALL)

START = """\
{about}

  retinanet demo                      Train on scenes of handwritten digits: four minutes, no data needed.
  retinanet train DATA --budget 15m   Train on a folder of labelled images.
  retinanet predict MODEL IMAGE...    Detect objects in images and videos, and draw them.

All commands: retinanet --help. The options of one: retinanet train --help."""
"""What ``retinanet`` alone shows."""
ABOUT_ALL = "Options of a command: retinanet COMMAND --help. Also: --version, --install-completion (Tab key)."
"""The end of the list of commands."""


def examples(function: Callable[..., Any] | None) -> list[str]:
    """The lines in the section "Examples" of a command's docstring."""
    lines = inspect.getdoc(function or examples) or ""
    _, found, section = lines.partition("\nExamples\n--------\n")
    return [line for line in section.split("\n\n")[0].splitlines() if line] if found else []


class HelpPage:
    """A help formatter of cyclopts for one command.

    Args:
        name: of the command; empty for the list of all commands.
        function: the command.
        order: names of options, in the order in which they are shown; the others follow.
        everything: show all panels and all sentences.
    """

    def __init__(
        self,
        name: str = "",
        function: Callable[..., Any] | None = None,
        order: Sequence[str] = (),
        everything: bool = False,
    ) -> None:
        self.name, self.function, self.order, self.everything = name, function, order, everything

    def render_usage(self, console: Console, options: Any, usage: Any) -> None:
        """Print how the command is called, with its arguments."""
        words = "COMMAND" if self.function is None else " ".join([self.name, *self._arguments().values()])
        _print(console, f"Usage: retinanet {words} [OPTIONS]", style="bold")

    def render_description(self, console: Console, options: Any, description: Any) -> None:
        """Print what the command does, and examples."""
        paragraphs = _plain(console, description).split("\n\n")
        for paragraph in paragraphs if self.everything else paragraphs[:2]:
            _print(console, "", *_wrapped(console, paragraph))
        if lines := examples(self.function):
            _print(console, "", *(f"  {line}" for line in lines))

    def __call__(self, console: Console, options: Any, panel: Any) -> None:
        """Print a panel: a list of commands, arguments or options."""
        entries = [entry for entry in panel.entries if panel.format != "command" or entry.display_labels[0][0] != "-"]
        if not entries or not (self.everything or panel.title in SHORT):
            return
        _print(console, "")
        _print(console, str(panel.title), style="bold")
        if self.everything and (about := _plain(console, panel.description)):
            _print(console, *_wrapped(console, about, indent=2))
        rows = [(self._names(entry), self._text(console, entry)) for entry in sorted(entries, key=self._rank)]
        column = min(max(len(names) for names, _ in rows), NAMES) + 4
        for names, text in rows:
            _print_row(console, names, text, column)

    def _arguments(self) -> dict[str, str]:
        """The arguments of the command as cyclopts names them, and as they are shown."""
        shown = {}
        for parameter in inspect.signature(self.function).parameters.values() if self.function else ():
            label = parameter.name.upper()
            if parameter.kind is parameter.POSITIONAL_ONLY:
                shown[label] = label
            elif parameter.kind is parameter.VAR_POSITIONAL:
                shown[label] = f"{label.removesuffix('S')}..."
        return shown

    def _rank(self, entry: Any) -> int:
        return min((self.order.index(n) for n in entry.positive_names if n in self.order), default=len(self.order))

    def _names(self, entry: Any) -> str:
        if entry.positional_label:
            return self._arguments().get(entry.positional_label, entry.positional_label)
        names = [*entry.positive_names[: None if self.everything else 1], *entry.positive_shorts, *entry.negative_names]
        return ", ".join(names) + (f" {entry.metavar}" if entry.metavar else "")

    def _text(self, console: Console, entry: Any) -> str:
        text = " ".join(_plain(console, entry.description).replace("``", "").split())
        default = entry.default
        if found := _DEFAULT.search(text):
            text, default = text[: found.start()], found[1]
        if not self.everything:
            text = _FIRST_SENTENCE.split(text)[0]
        notes = [f"choices: {', '.join(entry.choices)}"] if entry.choices else []
        notes += [f"default: {YES_NO.get(str(default), default)}"] if default not in (None, "None") else []
        return f"{text} [{'; '.join(notes)}]" if notes else text


def _plain(console: Console, description: Any) -> str:
    """The text of what cyclopts passes, without markup."""
    if description is None:
        return ""
    with console.capture() as captured:
        console.print(description, soft_wrap=True)
    return captured.get().strip()


def _wrapped(console: Console, text: str, first: str = "", indent: int = 0) -> list[str]:
    """The lines of a paragraph: the first begins with ``first``, the others with spaces."""
    width = min(console.width, WIDEST)
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=first or " " * indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def _print(console: Console, *lines: str, style: str = "") -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, style=style, soft_wrap=True)


def _print_row(console: Console, names: str, text: str, column: int) -> None:
    """Print names, and a text in the second column; below the names if they are too long."""
    from rich.text import Text

    begins = f"  {names}"
    apart = len(begins) + 2 > column
    lines = _wrapped(console, text, " " * column if apart else begins.ljust(column), column) or [begins]
    for line in [begins, *lines] if apart else lines:
        styled = Text(line)
        if line.startswith(begins):
            styled.stylize("cyan", 2, len(begins))
        console.print(styled, soft_wrap=True)
