"""What a console prints: numbers, times, and names that a terminal would obey."""

import io

from helpers.hostile_names import NAMES, obeyed
from retinanet.terminal.console import Output, class_table, clock, number
from retinanet.terminal.printable_console import Terminal
from retinanet.terminal.progress import Progress


def test_times_and_numbers_as_they_are_shown():
    assert [clock(s) for s in (0, 65, 3599.6, 7265)] == ["0:00", "1:05", "1:00:00", "2:01:05"]
    assert [number(v) for v in (0.5, -1, None, float("nan"), 0)] == ["0.500", "–", "–", "–", "0.000"]


def test_no_markup_on_a_terminal():
    """Colours of rich's own are allowed there, none of a name's."""
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=True, width=200, color_system=None, legacy_windows=False)
    for name in NAMES:
        terminal.print(name, soft_wrap=True)
    terminal.print(class_table([{"name": name, "AP": 0.5, "AP50": 0.5, "boxes": 1} for name in NAMES]))
    text = file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert obeyed(text) == set()
    assert text.count("[red]x[/red][/][link=file:x]:car:") == 2


def test_a_progress_bar_shows_names(monkeypatch):
    output = Output()
    file = io.StringIO()
    output.progress = Terminal(file=file, force_terminal=True, width=200, color_system=None)
    with Progress(output) as progress:
        for name in NAMES:
            progress.count(name, 1, 2)
        progress._bars.refresh()
    assert "[red]x[/red]" in file.getvalue()
    assert r"\x1b]0;title\x07" in file.getvalue()
    assert "\x1b]0" not in file.getvalue()
    assert "\u202e" not in file.getvalue()
