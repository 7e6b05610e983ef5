"""Reading any model file, run folder or recipe ends soon, takes little memory, and says what is wrong in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HELPERS = Path(__file__).parents[1] / "helpers"
FACTS = {
    "onnx with an endless loop": "a graph inside a graph",
    "onnx with a huge constant": "huge constant size",
    "onnx with a huge expansion": "huge constant size",
    "onnx with a huge range": "huge constant size",
    "onnx with weights in another file": "weights in another file",
    "onnx with an operator of others": "com.microsoft",
    "pickle of a list that is copied": "copies itself",
    "pickle of deep tuples": "operations",
    "a zip bomb": "compressed",
    "a zip bomb as a program": "--trust",
    "an archive of half a million files": "too many files",
    "settings head.depth 1000000": "model.head.depth",
    "settings backbone.name hf-hub:a/b": "model.backbone.name",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In one process of its own: importing what reads the files takes longer than reading them."""
    path = os.pathsep.join(filter(None, [str(HELPERS.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, HELPERS / "hostile_files.py", tmp_path_factory.mktemp("hostile")],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"ended at {done.stderr[-2000:]}"
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_every_file_is_read_or_refused_in_a_line(outcomes: dict[str, str]) -> None:
    assert len(outcomes) > 400
    wrong = {name: what for name, what in outcomes.items() if what != "read" and not what.startswith("refused: ")}
    assert not wrong


def test_what_is_refused_and_why(outcomes: dict[str, str]) -> None:
    for name, words in FACTS.items():
        assert outcomes[name].startswith("refused: "), name
        assert words in outcomes[name], name
    made = [name for name in outcomes if name.startswith(("settings ", "pickle of", "onnx with", "recipe '"))]
    assert len(made) > 80
    assert {name for name in made if outcomes[name] == "read"} == set()


def test_files_that_nobody_changed_are_read(outcomes: dict[str, str]) -> None:
    for name, what in outcomes.items():
        if name.endswith(" unchanged"):
            known = name.startswith(("zip", "legacy", "blobs"))  # weights of no network, but read
            assert ("no known RetinaNet" in what) if known else what == "read", f"{name}: {what}"
