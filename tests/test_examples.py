"""The notebooks of ``examples`` run from top to bottom, in a folder of their own, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.notebooks import run_notebook

nbformat = pytest.importorskip("nbformat")

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
LARGEST = 150_000  # bytes of a notebook with its outputs
SHORTER = {'budget = "2m"': 'budget = "20s"'}  # what the test changes, to take less time


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_outputs_are_small_and_whole(name: str) -> None:
    path = EXAMPLES / name
    assert path.stat().st_size < LARGEST
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it from top to bottom"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("/root/", "/home/", "/tmp/", "/work/") if word in text]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / name, 4)
    for cell in notebook.cells:
        for text, shorter in SHORTER.items():
            cell.source = cell.source.replace(text, shorter)
    run_notebook(notebook, tmp_path)
