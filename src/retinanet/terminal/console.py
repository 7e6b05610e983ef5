"""The output of runs and commands: text for people, JSON for programs, both from the first process only."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError
from retinanet.common.jupyter import in_notebook
from retinanet.common.printable import NAME, printable

if TYPE_CHECKING:
    from rich.console import Console


def rank() -> int:
    """The rank of this process in its run, as torchrun, Slurm or Fabric's launcher set it; 0 by default."""
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    # Fabric's launcher numbers the nodes, and the processes of each node.
    return int(os.environ.get("LOCAL_RANK") or 0) or int(os.environ.get("NODE_RANK") or 0)


NO_NUMBER = "–"  # the AP of a class without ground truth


class Output:
    """Text for people, and one JSON value for programs."""

    def __init__(self, json: str | None = None, quiet: bool = False) -> None:
        """
        Args:
            json: the file for the JSON value; "-" is standard output, and all text goes to standard error then.
            quiet: print nothing but the JSON value.

        Raises:
            RequestError: the file cannot be written there.
        """
        from retinanet.terminal.printable_console import Terminal

        self.target = json
        self.silent = quiet or rank() > 0
        if json not in (None, "-"):
            # Checked before the work begins. The ending protects an image that was meant as an argument.
            path = Path(json or "").absolute()
            if path.suffix.lower() != ".json" or path.is_dir():
                raise RequestError(
                    f"--json {json}: the name of the file must end in .json; for standard output give --json -"
                )
            if not path.parent.is_dir():
                raise RequestError(f"--json {json}: there is no folder {path.parent}")
        self.notebook = in_notebook()
        if self.notebook:  # tqdm, which other packages import, misses widgets that nothing here uses
            warnings.filterwarnings("ignore", message="IProgress not found")
        # The output of a notebook's cell says that it is a terminal, but lines that are overwritten would all stay.
        plain = {"force_terminal": False, "color_system": None} if self.notebook else {}
        self.console: Console = Terminal(stderr=json == "-", quiet=self.silent, **plain)
        """Results."""
        # A notebook shows standard error on red, as if something were wrong.
        self.progress: Console = Terminal(stderr=not self.notebook, quiet=self.silent, **plain)
        """Progress and notes."""

    def say(self, *lines: str) -> None:
        """Print lines of the result."""
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def note(self, *lines: str) -> None:
        """Print notes to standard error, or to the output of a notebook's cell."""
        for line in lines:
            self.progress.print(line, soft_wrap=True)

    def table(self, table: Any) -> None:
        """Print a table of rich as a part of the result."""
        self.console.print(table)

    def json(self, value: Mapping[str, Any]) -> None:
        """Write the result as JSON to its file, if there is one."""
        if self.target is None or rank() > 0:
            return
        text = json.dumps(_to_json(value), indent=2) + "\n"
        if self.target == "-":
            sys.stdout.write(text)
            return
        with replacing(self.target) as path:
            path.write_text(text, encoding="utf-8")


def _to_json(value: Any) -> Any:
    """``value`` in JSON's types: paths become text, NaN and infinity null, arrays lists."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "tolist"):
        return _to_json(value.tolist())
    if isinstance(value, Iterable):
        return [_to_json(item) for item in value]
    return str(value)


def clock(seconds: float) -> str:
    """65 -> 1:05, 7265 -> 2:01:05."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def number(value: float | None) -> str:
    """A value of average precision or recall; a dash if there is no ground truth for it."""
    return NO_NUMBER if value is None or not math.isfinite(value) or value < 0 else f"{value:.3f}"


def class_table(per_class: Iterable[Mapping[str, Any]], most: int | None = None) -> Any:
    """A rich table of AP, AP50 and the number of ground-truth boxes of each class.

    Args:
        most: rows at most. Of more classes those with the highest and the lowest AP are shown, in this order; classes
            without ground truth have no AP, and are counted only.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for column in ("AP", "AP50", "boxes"):
        table.add_column(column, justify="right")
    best, worst = list(per_class), list[Mapping[str, Any]]()
    left_out = 0
    if most is not None and len(best) > most:
        total, known = len(best), [row for row in best if number(row["AP"]) != NO_NUMBER]
        ranked = sorted(known, key=lambda row: -row["AP"])
        best = ranked[: most // 2]
        worst = ranked[len(best) :][-(most - 1 - most // 2) :]
        left_out = total - len(best) - len(worst)
    for row in best:
        table.add_row(*_cells(row))
    if left_out:
        table.add_row(f"... {left_out} more ...")
    for row in worst:
        table.add_row(*_cells(row))
    return table


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return printable(row["name"], NAME), number(row["AP"]), number(row["AP50"]), str(row["boxes"])
