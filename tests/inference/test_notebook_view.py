"""Detections in a notebook, and on a screen."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.common.errors import WorkError
from retinanet.inference.detections import Detections

NAMES = ("dog", "<b>cat</b>", "bird")


def found(source, count=3):
    boxes = torch.tensor([[100.0, 200, 400, 600], [0, 0, 50, 50], [300, 400, 900, 700]]).repeat(count // 3, 1)
    scores = torch.linspace(0.75, 0.25, count)
    return Detections(boxes, scores, torch.tensor([2, 1, 2]).repeat(count // 3), NAMES, source)


def embedded(text):
    kind, data = re.search(r'src="data:image/(\w+);base64,([^"]+)"', text).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_html_has_the_drawn_image(tmp_path):
    plain = np.full((1500, 2000, 3), 90, np.uint8)
    text = found(plain)._repr_html_()
    kind, image = embedded(text)
    assert (kind, image.size) == ("jpeg", (800, 600))
    assert len(text) < 200_000
    # the boxes are where they are in the large image, scaled by 800 / 2000
    changed = np.abs(np.asarray(image, int) - 90).max(axis=-1) > 40
    assert changed[160:280, 358:363].any(axis=1).mean() > 0.9  # the right edge of the third box
    assert not changed[300:590].any()
    assert "<details><summary>3 detections: 2 bird, 1 &lt;b&gt;cat&lt;/b&gt;</summary>" in text
    assert "<b>cat" not in text
    assert text.count("<tr>") == 4
    small = np.zeros((40, 30, 3), np.uint8)
    assert embedded(found(small)._repr_html_())[1].size == (30, 40)


def test_html_without_an_image(tmp_path):
    text = found(None)._repr_html_()
    assert "<img" not in text
    assert "<table>" in text
    text = found(tmp_path / "gone.jpg")._repr_html_()
    assert "<img" not in text
    assert "there is no such file" in text
    empty = found(np.zeros((9, 9, 3), np.uint8))[:0]
    assert "0 detections</summary>" in empty._repr_html_()
    assert "<img" in empty._repr_html_()


def test_html_of_many_is_short():
    text = found(None, 3000)._repr_html_()
    assert text.count("<tr>") == 102
    assert "and 2900 more" in text


def test_no_screen(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WorkError, match=r"\.save\("):
        found(np.zeros((9, 9, 3), np.uint8)).show()


@pytest.mark.slow
def test_in_a_notebook(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat")
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    code = (
        "import torch; from retinanet.inference.detections import Detections\n"
        "d = Detections(torch.tensor([[1., 2, 30, 40]]), torch.tensor([.5]), torch.tensor([0]), ('dog',), 'a.png')\n"
        "d.show(); d"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown, result = notebook.cells[0].outputs
    assert "image/png" in shown.data
    assert "<img" in result.data["text/html"]
    assert result.data["text/plain"] == "<Detections: 1 in a.png: 1 dog, scores 0.50 to 0.50>"
