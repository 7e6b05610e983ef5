"""The files of a table: results.csv, table.md and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from retinanet.common.atomic_files import replacing
from retinanet.paper import figures
from retinanet.paper.experiments import Experiment
from retinanet.paper.table_report import Row, as_csv, markdown, reading


def write(folder: Path, experiment: Experiment, rows: Sequence[Row], about: Mapping[str, str]) -> list[str]:
    """Write results.csv, table.md, and the plot as plot.svg and plot.png; return the table's summary in words.

    Args:
        about: what the runs have in common, name to text: data, recipe, length, machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = reading(experiment, rows)
    with replacing(folder / "results.csv") as place:
        place.write_text(as_csv(experiment, rows), encoding="utf-8")
    with replacing(folder / "table.md") as place:
        place.write_text(markdown(experiment, rows, about, said), encoding="utf-8")
    figures.save(figures.table(experiment, rows), folder, "plot")
    return said
