"""Tables: means, spreads, the paper's column, the summary in words."""

import csv
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from retinanet.paper.experiments import EXPERIMENTS, Cell
from retinanet.paper.grid import base_settings
from retinanet.paper.paper_run import write_table_files
from retinanet.paper.table_report import Row, summary


def result(ap, **more):
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    return {"state": "done", "metrics": dict.fromkeys(names, ap), "steps": 5, "seconds": 7.0, **more}


def row(gamma, *aps, paper=None):
    cell = Cell({"gamma": gamma, "alpha": 0.25}, {}, {} if paper is None else {"AP": paper})
    diverged = {"state": "diverged", "reason": "the loss is not finite at step 3"}
    return Row(cell, [(seed, diverged if ap is None else result(ap)) for seed, ap in enumerate(aps)])


def test_mean_and_standard_deviation():
    one = row(2.0, 0.30, 0.32, 0.34)
    assert one.mean() == pytest.approx(32.0)
    assert one.spread() == pytest.approx(2.0)
    assert one.shown() == "32.0 ± 2.0 (3)"
    assert row(2.0, 0.3).shown() == "30.0"
    assert row(2.0, 0.3, None, None).shown() == "30.0, 2 diverged"
    assert row(2.0, None).shown() == "1 diverged"


def test_metric_without_truth_is_left_out():
    assert Row(Cell({"a": 1}, {}), [(0, result(-1.0))]).shown() == "–"


def test_only_differences_larger_than_the_spread_are_clear():
    rows = [
        row(0.0, 0.10, 0.11, 0.12, paper=31.1),
        row(2.0, 0.30, 0.31, 0.32, paper=34.0),
        row(5.0, 0.29, 0.31, 0.33, paper=32.2),
    ]
    said = "\n".join(summary(EXPERIMENTS["table-1b"], rows))
    assert "best: gamma 2.0, alpha 0.25 with 31.0 ± 1.0 (3)" in said
    assert re.search(r"^not clearly worse than the best.*: gamma 5.0, alpha 0.25 \(.*\)$", said, re.MULTILINE)
    assert re.search(r"2 of 3 pairs of cells, 2 in the paper's order", said)


def test_single_runs_have_no_clear_differences():
    said = "\n".join(summary(EXPERIMENTS["table-1b"], [row(0.0, 0.1, paper=31.1), row(2.0, 0.3, paper=34.0)]))
    assert "pairs" not in said
    assert "--seeds 3" in said


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_files_of_every_table(name, tmp_path):
    experiment = EXPERIMENTS[name]
    cells = experiment.cells(base_settings("paper-digits", "10", {}))
    rows = [
        Row(cell, [(seed, result(0.2 + 0.01 * i + 0.001 * seed, ms=5.0 + i)) for seed in range(2)])
        for i, cell in enumerate(cells)
    ]
    rows[-1] = Row(rows[-1].cell, [(0, result(0.3, ms=9.0)), (1, {"state": "diverged", "reason": "not finite"})])
    write_table_files(tmp_path, experiment, rows, {"data": "digit scenes"})
    with open(tmp_path / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * len(cells)
    assert lines[0]["AP"] == "0.2000"
    assert lines[-1]["state"] == "diverged"
    text = (tmp_path / "table.md").read_text()
    assert "1 diverged" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(cells) + 2
    assert len({line.count("|") for line in table}) == 1
    ElementTree.parse(tmp_path / "plot.svg")
    assert Image.open(tmp_path / "plot.png").size[0] > 400
