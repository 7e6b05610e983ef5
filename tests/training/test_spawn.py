"""The command line on systems that cannot fork a process, such as Windows: every process is a new Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.several import PATIENCE, write_recipe
from helpers.tiny_run import TINY
from retinanet.config import recipes
from retinanet.training.trainer import train

pytestmark = pytest.mark.slow

# Forking fails here, as it does where there is no such function.
PROGRAM = """\
import multiprocessing
import os
import sys

from retinanet.cli import main


def no_fork():
    raise OSError("this system cannot fork")


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    os.fork = no_fork
    sys.exit(main())
"""
TRAIN = {"steps": 3}


def run(folder: Path, *arguments: object) -> str:
    """What the program prints with these arguments; it runs in ``folder``."""
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.mark.parametrize("devices", [1, 2])
def test_train_evaluate_and_predict_without_fork(data: Path, devices: int, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", {"train": TRAIN})
    run(
        tmp_path,
        *("train", data, "--config", recipe, "--output", "run", "--data.workers", 1, "--train.devices", devices),
    )
    alone = tmp_path / "alone"
    train(data, recipes.load(None, recipes.merge(TINY, {"train": TRAIN})), alone)
    weights, expected = (load_file(folder / "last.safetensors") for folder in (tmp_path / "run", alone))
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-3, atol=1e-4)
    if devices == 1:
        run(tmp_path, "evaluate", "run", data, "--workers", 1, "--json", "numbers.json")
        assert json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))["stats"]["AP"] >= 0
        images = next(path.parent for path in data.rglob("*.png"))
        run(tmp_path, "predict", "run", images, "--output", "found")
        assert len(list((tmp_path / "found").rglob("*.png"))) == len(list(images.glob("*.png")))
