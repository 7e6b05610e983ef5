"""Names of new folders below ``runs``."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")


def data_name(data: Path) -> str:
    """The name of a data set: that of its folder, or of its YAML file without the ending."""
    return data.resolve().stem if data.is_file() else data.resolve().name


def next_folder(data: Path) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    name = data_name(data)
    number = 1
    while (folder := RUNS / f"{name}-{number}").exists():
        number += 1
    return folder
