"""A run in a notebook, executed: lines of text, a bar that is replaced, a table as the result; no HTML blocks."""

import pytest

from helpers.notebooks import run_notebook
from retinanet.common.jupyter import in_notebook

CELL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.synthetic_data import bright_boxes
import retinanet
root = bright_boxes(Path({folder!r}) / "tiny")
result = retinanet.train(root, steps=3, batch_size=2, size=64, workers=0, weights="none", output=root.parent / "run",
    model={{"preprocessing": {{"longer": 64}}, "backbone": {{"name": "resnet18"}}, "pyramid": {{"channels": 16}},
           "head": {{"depth": 1, "width": 16}}}})
result
"""


def test_not_in_a_notebook_here():
    assert not in_notebook()


@pytest.mark.slow
def test_training_in_a_notebook(tmp_path, pytestconfig):
    nbformat = pytest.importorskip("nbformat")
    tests = str(pytestconfig.rootpath / "tests")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(CELL.format(tests=tests, folder=str(tmp_path)))]
    run_notebook(notebook, tmp_path)
    outputs = notebook.cells[0].outputs
    kinds = [output.output_type for output in outputs]
    assert set(kinds) == {"stream", "display_data", "execute_result"}
    assert kinds.count("display_data") == 1, "the bar"
    assert next(o for o in outputs if o.output_type == "display_data").data == {"text/plain": ""}, "gone at the end"
    streams = [output for output in outputs if output.output_type == "stream"]
    assert {output.name for output in streams} == {"stdout"}, "nothing on red"
    text = "".join(output.text for output in streams)
    for fact in ("plan: resnet18", "split train (COCO): 4 images", "3 steps in", "next:"):
        assert fact in text
    assert "\x1b" not in text
    assert set(outputs[-1].data) == {"text/plain", "text/html"}
    assert len(text) < 4000
