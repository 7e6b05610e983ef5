"""Several processes train as one does, even if the images of a process have no boxes."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.several import (
    PATIENCE,
    SMALL,
    Ranks,
    bad_image_in_second,
    full_disk_in_first,
    keeps_pythons_lock,
    own_parts,
    rows,
    second_is_killed,
    wait_for,
    write_recipe,
)
from helpers.tiny_run import TINY
from retinanet.config import recipes
from retinanet.data import open_data
from retinanet.data.loader import TrainingSteps
from retinanet.evaluation.coco_metrics import NAMES as METRICS
from retinanet.training import resume_state
from retinanet.training.run_folder import read_metrics
from retinanet.training.trainer import train

pytestmark = pytest.mark.slow

# Batches of 4 images of which half hold no boxes: in some steps one of three processes has none.
# They are evaluated after steps 3 and 5.
TRAIN = {"optimizer": "sgd", "lr": 0.02, "lr_batch": 0, "steps": 5, "eval_every": 1.2}


def ranks(count, data, tmp_path, *changes, prepare=None):
    """A run in processes that Fabric did not start."""
    path = write_recipe(tmp_path / "tiny.yaml", {"train": TRAIN | {"devices": str(count)}}, *changes)
    arguments = ["train", data, "--config", path, "--output", tmp_path / "run"]
    return Ranks(count, tmp_path / "output", arguments, prepare)


def numbers(folder, names):
    rows = [[float(row[name]) for name in names] for row in read_metrics(folder) if row[names[0]]]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(data, recipes.load(None, recipes.merge(TINY, {"train": TRAIN})), folder)
    return folder


def test_some_process_has_no_boxes(data):
    """What the test below is about does happen in it; and three share neither a batch of 4 nor 10 images evenly."""
    settings = recipes.load(None, recipes.merge(TINY, {"train": TRAIN}))
    steps = [TrainingSteps(open_data(data, "train"), settings, rank, 3) for rank in range(3)]
    boxes = [[sum(len(b) for part in rank[step] for b in part.boxes) for rank in steps] for step in range(5)]
    assert any(min(step) == 0 < sum(step) for step in boxes)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_make_the_steps_of_one(data, alone, tmp_path, count):
    codes, output = ranks(count, data, tmp_path).wait()
    assert codes == [0] * count, output
    folder = tmp_path / "run"
    names = ["class_loss", "box_loss"]
    torch.testing.assert_close(numbers(folder, names), numbers(alone, names), rtol=1e-4, atol=1e-6)
    # The evaluation is shared out, and no image counts twice: the numbers are those of one process.
    torch.testing.assert_close(numbers(folder, METRICS), numbers(alone, METRICS), rtol=1e-3, atol=1e-4)
    one, several = load_file(alone / "last.safetensors"), load_file(folder / "last.safetensors")
    for name in one:
        torch.testing.assert_close(
            several[name], one[name], rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_functions_of_the_users_own(data, alone, tmp_path):
    """Two processes with the built-in parts as functions make the steps of one without; the first one alone logs."""
    path = write_recipe(tmp_path / "tiny.yaml", {"train": TRAIN | {"devices": "2"}})
    arguments = ["train", data, "--config", path, "--output", tmp_path / "run", "--log", "tensorboard"]
    codes, output = Ranks(2, tmp_path / "output", arguments, own_parts).wait()
    assert codes == [0, 0], output
    names = ["class_loss", "box_loss"]
    torch.testing.assert_close(numbers(tmp_path / "run", names), numbers(alone, names), rtol=1e-4, atol=1e-6)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def saved_step(folder):
    return resume_state.load(folder / "resume.pt")["progress"]["step"]


def test_a_budget_ends_all_processes_together(data, tmp_path):
    """Their clocks differ; learning rate, evaluations and the end must not. Batch normalisation is trained too."""
    train = {"steps": None, "budget": "6s", "eval_every": 1.0, "schedule": "cosine"}
    model = {"backbone": {"frozen_norm": False}}
    codes, output = ranks(2, data, tmp_path, {"train": train, "model": model}).wait()
    assert codes == [0, 0], output
    rows = read_metrics(tmp_path / "run")
    assert sum(bool(row["AP"]) for row in rows) >= 1
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_mistake_that_the_first_process_finds_ends_all(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    codes, output = ranks(2, data, tmp_path).wait()
    assert codes == [2, 2]
    (error,) = [line for text in output for line in text.splitlines() if line.startswith("error: ")]
    assert f"{tmp_path}/run exists and is not empty" in error


@pytest.mark.parametrize("count", [2, 3])
def test_saves_on_the_clock_do_not_hang(data, tmp_path, count):
    """Each process has its own clock: asked in each, one saves while the others are a step ahead."""
    often = {"train": {"steps": 200, "eval_every": 0.0, "save_every": "0.3s"}}
    codes, output = ranks(count, data, tmp_path, SMALL, often).wait()
    assert codes == [0] * count, output
    assert sum(bool(row["class_loss"]) for row in read_metrics(tmp_path / "run")) == 200
    assert saved_step(tmp_path / "run") == 200


LONG = {"train": {"steps": 100_000, "eval_every": 0.0, "save_every": "1h"}}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("signalled", [[0], [1], [0, 1]])
def test_a_signal_to_any_process_saves_and_ends_all(data, tmp_path, number, code, signalled):
    """With Python's lock kept, since gloo's thread needs it once more when the run ends."""
    run = ranks(2, data, tmp_path, SMALL, LONG, prepare=keeps_pythons_lock)
    wait_for(lambda: rows(tmp_path / "run") >= 3, lambda: all(p.is_alive() for p in run.processes))
    for rank in signalled * 2:  # twice, as from a cluster manager and from the launcher that it stops too
        os.kill(run.processes[rank].pid, number)
    codes, output = run.wait()
    assert codes == [code, code], output
    step = saved_step(tmp_path / "run")
    assert step >= 3
    assert f"step {step} is saved; go on with --resume {tmp_path}/run" in output[0]


@pytest.mark.parametrize(
    ("prepare", "codes", "line"),
    [
        (bad_image_in_second, [1, 1], "error: process 1: "),
        (full_disk_in_first, [1, 1], "resume.pt: file too large"),
        (second_is_killed, [1, -signal.SIGKILL], "the connection to another process of this run is lost"),
    ],
)
def test_what_ends_one_process_ends_all(data, tmp_path, prepare, codes, line):
    ended, output = ranks(2, data, tmp_path, SMALL, LONG, prepare=prepare).wait()
    assert ended == codes, output
    assert line in "".join(output)
    errors = [row for text in output for row in text.splitlines() if row.startswith("error: ")]
    assert 1 <= len(errors) <= 2
    assert "Traceback" not in "".join(output)
    assert "unexpected" not in "".join(errors)


def children(pid):
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_torchrun_restarts_and_ends_a_run(data, tmp_path):
    """A worker that is killed brings all back from the last save; SIGTERM to torchrun saves and ends them."""
    path = write_recipe(
        tmp_path / "tiny.yaml", SMALL, {"train": TRAIN}, LONG, {"train": {"save_every": "0.2s", "devices": "2"}}
    )
    run = tmp_path / "runs" / f"{data.name}-1"  # no output is given: the restarted job has to find its own
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--max-restarts", "1", "-m", "retinanet", "train", str(data), "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "output.txt", "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=tmp_path)
    try:
        alive = lambda: process.poll() is None  # noqa: E731
        wait_for(lambda: (run / "resume.pt").exists() and saved_step(run) > 0, alive)
        first = children(process.pid)
        os.kill(first[1], signal.SIGKILL)
        wait_for(lambda: len(children(process.pid)) == 2 and not set(first) & set(children(process.pid)), alive)
        at_kill = saved_step(run)
        wait_for(lambda: saved_step(run) > at_kill, alive)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    output = (tmp_path / "output.txt").read_text()
    assert [folder.name for folder in run.parent.iterdir()] == [run.name]
    assert f"from step {at_kill}" in output, output
    assert f"step {saved_step(run)} is saved; go on with --resume" in output


def test_fabrics_own_launcher(data, tmp_path):
    """Ctrl-C in a terminal goes to all processes; the one that started the others waits for them and says the code."""
    path = write_recipe(tmp_path / "tiny.yaml", SMALL, {"train": TRAIN}, LONG)
    command = [sys.executable, "-m", "retinanet", "train", str(data), "--config", str(path), "--output", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "output.txt", "w") as file:
        process = subprocess.Popen(
            [*command, "--devices", "2"], stdout=file, stderr=file, env=environment, cwd=tmp_path, process_group=0
        )
    try:
        wait_for(lambda: rows(tmp_path / "run") >= 3, lambda: process.poll() is None)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output = (tmp_path / "output.txt").read_text()
    assert code == 130, output
    assert f"step {saved_step(tmp_path / 'run')} is saved" in output
