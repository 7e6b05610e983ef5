"""A run that is killed and resumed ends with the weights of one that was not, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError
from retinanet.config.convert import to_plain
from retinanet.training.run_folder import read_metrics, read_run
from retinanet.training.trainer import train

# Measured after steps 10, 20 and 24.
SETTINGS = {"steps": 24, "ema": 0.9, "eval_every": 4.0, "save_every": "0.2s", "clip": 1.0}


def losses(folder):
    return [(row["step"], row["class_loss"], row["box_loss"]) for row in read_metrics(folder) if row["class_loss"]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in another order would differ in their last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken") / "run"
    train(data, tiny(**SETTINGS), output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 17])
def test_killed_run_equals_unbroken_run(data, unbroken, tmp_path, after):
    output, recipe = tmp_path / "run", tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(to_plain(tiny(**SETTINGS))))
    command = [sys.executable, "-m", "retinanet", "train", str(data), "--config", str(recipe), "--output", str(output)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None and not (
        (output / "metrics.csv").exists() and len(read_metrics(output)) >= after and (output / "resume.pt").exists()
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, printed

    where, settings = read_run(output)
    assert where == data.resolve()
    train(where, settings, output, resume=True)
    expected, got = load_file(unbroken / "last.safetensors"), load_file(output / "last.safetensors")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert losses(output) == losses(unbroken)
    best = [json.loads((folder / "evaluation.json").read_text())["AP"] for folder in (unbroken, output)]
    assert best[0] == best[1]


def test_other_settings_are_refused(data, unbroken):
    settings = tiny(**SETTINGS, batch_size=2)
    with pytest.raises(
        RequestError, match=r"cannot resume .* with other settings than it began with: train.batch_size"
    ):
        train(data, settings, unbroken, resume=True)


def test_nothing_to_resume(data, tmp_path):
    with pytest.raises(RequestError, match=r"there is no resume\.pt"):
        train(data, tiny(), tmp_path, resume=True)
    with pytest.raises(RequestError, match="is not the folder of a run"):
        read_run(tmp_path)


def test_a_run_can_be_made_longer(data, tmp_path):
    train(data, tiny(steps=2), tmp_path / "run")
    summary = train(data, tiny(steps=4), tmp_path / "run", resume=True)
    assert summary["steps"] == 4
    assert [int(step) for step, *_ in losses(tmp_path / "run")] == [1, 2, 3, 4]
