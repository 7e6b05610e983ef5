"""Several processes make the steps of one, a process whose pictures hold no boxes included."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from retinanet import recipe
from retinanet.config import to_plain
from retinanet.data import open_data
from retinanet.data.loading import TrainingSteps
from retinanet.evaluation.coco import NAMES as METRICS
from retinanet.training.loop import train
from retinanet.training.run_folder import read_metrics
from tiny_run import TINY

# Batches of 4 pictures of which half hold no boxes: in some steps one of three processes has none.
# They are measured after steps 3 and 5.
TRAIN = {"optimizer": "sgd", "lr": 0.02, "lr_batch": 0, "steps": 5, "eval_every": 1.2}


def run(data, folder, processes, launcher, code=0, **changes):
    settings = recipe.load(None, recipe.merge(TINY, {"train": TRAIN, **changes}))
    path = folder.parent / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_plain(settings)))
    arguments = ["-m", "retinanet", "train", str(data), "--config", str(path), "--output", str(folder)]
    if launcher == "torchrun":
        rendezvous = ["--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, "-m", "torch.distributed.run", *rendezvous, *arguments]
    else:
        command = [sys.executable, *arguments]
    command += ["--train.devices", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def numbers(folder, names):
    rows = [[float(row[name]) for name in names] for row in read_metrics(folder) if row[names[0]]]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(data, recipe.load(None, recipe.merge(TINY, {"train": TRAIN})), folder)
    return folder


def test_some_process_has_no_boxes(data):
    """What the test below is about does happen in it; and three share neither a batch of 4 nor 10 pictures evenly."""
    settings = recipe.load(None, recipe.merge(TINY, {"train": TRAIN}))
    steps = [TrainingSteps(open_data(data, "train"), settings, rank, 3) for rank in range(3)]
    boxes = [[sum(len(b) for part in rank[step] for b in part.boxes) for rank in steps] for step in range(5)]
    assert any(min(step) == 0 < sum(step) for step in boxes)


@pytest.mark.parametrize(("processes", "launcher"), [(2, "fabric"), (3, "torchrun")])
def test_processes_make_the_steps_of_one(data, alone, tmp_path, processes, launcher):
    folder = tmp_path / "run"
    run(data, folder, processes, launcher)
    names = ["class_loss", "box_loss"]
    torch.testing.assert_close(numbers(folder, names), numbers(alone, names), rtol=1e-4, atol=1e-6)
    # The evaluation is shared out, and no picture counts twice: the numbers are those of one process.
    torch.testing.assert_close(numbers(folder, METRICS), numbers(alone, METRICS), rtol=1e-3, atol=1e-4)
    one, several = load_file(alone / "last.safetensors"), load_file(folder / "last.safetensors")
    for name in one:
        torch.testing.assert_close(
            several[name], one[name], rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_a_budget_ends_all_processes_together(data, tmp_path):
    """Their clocks differ; learning rate, evaluations and the end must not. Batch normalisation is trained too."""
    train = {"steps": None, "budget": "6s", "eval_every": 1.0, "schedule": "cosine"}
    model = {"backbone": {"frozen_norm": False}}
    run(data, tmp_path / "run", 2, "fabric", train=TRAIN | train, model=model)
    rows = read_metrics(tmp_path / "run")
    assert sum(bool(row["AP"]) for row in rows) >= 1
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_mistake_that_the_first_process_finds_ends_all(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    done = run(data, tmp_path / "run", 2, "fabric", code=2)
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: the output folder {tmp_path}/run is not empty; choose another with --output"
    ]
