"""Grids: no run is trained twice, stopped runs continue, several processes share the work."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import yaml

from helpers.recorder import Recorder
from helpers.synthetic_data import rectangles
from helpers.tiny_run import tiny
from retinanet.cli import main
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.convert import to_plain
from retinanet.paper.grid import Grid, make_run
from retinanet.training import trainer
from retinanet.training.events import StepDone
from retinanet.training.run_folder import read_metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return rectangles(tmp_path_factory.mktemp("data") / "squares", 6)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def runs(count=2, **train):
    return [make_run(tiny(**train), {"loss.gamma": float(gamma)}, 0) for gamma in range(count)]


def test_finished_run_is_not_run_again(data, tmp_path):
    grid, recorder, results = Grid(tmp_path / "grid", data), Recorder(), []
    grid.work(runs(steps=2), callbacks=[recorder], on_result=lambda run, found: results.append(run.key))
    assert len(recorder.of(StepDone)) == 4
    assert results == [run.key for run in runs()]
    found = grid.result(runs(steps=2)[0])
    assert found["state"] == "done"
    assert found["steps"] == 2
    assert set(found["metrics"]) > {"AP", "AP50"}
    assert not list((tmp_path / "grid" / "runs").glob("*/resume.pt"))

    recorder.events.clear()
    grid.work(runs(steps=2), callbacks=[recorder])
    assert recorder.events == []


def test_other_settings_in_the_same_folder_are_refused(data, tmp_path):
    grid = Grid(tmp_path / "grid", data)
    grid.work(runs(1, steps=1))
    with pytest.raises(RequestError, match="another recipe, budget or data set"):
        grid.work(runs(1, steps=2))


def test_divergence_is_a_result(data, tmp_path):
    grid = Grid(tmp_path / "grid", data)
    (run,) = runs(1, optimizer="sgd", lr=1e30, warmup=0, steps=8)
    grid.work([run])
    found = grid.result(run)
    assert found["state"] == "diverged"
    assert "not finite" in found["reason"]


def test_failure_is_a_result_that_is_tried_again(data, tmp_path, monkeypatch):
    grid, (run,) = Grid(tmp_path / "grid", data), runs(1, steps=1)
    train = trainer.train

    def full(*_, **__):
        raise WorkError("no space left on the disk")

    monkeypatch.setattr(trainer, "train", full)
    grid.work([run])
    assert grid.result(run)["state"] == "failed"
    monkeypatch.setattr(trainer, "train", train)
    grid.work([run])
    assert grid.result(run)["state"] == "done"


@pytest.mark.slow
def test_two_workers_share_the_runs(data, tmp_path):
    todo, done, recorder = runs(4, steps=2), [], Recorder()
    workers = [
        threading.Thread(
            target=Grid(tmp_path / "grid", data).work,
            args=(todo,),
            kwargs={"on_result": lambda run, _: done.append(run.key), "callbacks": [recorder]},
        )
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(done) == sorted([run.key for run in todo] * 2)  # both saw all
    assert len(recorder.of(StepDone)) == 8  # and none was run twice


@pytest.mark.slow
def test_killed_grid_goes_on_and_ends_as_an_unbroken_one(data, tmp_path):
    """Two cells, killed in the second one; the same command resumes it and writes the table."""
    long = tmp_path / "long.yaml"
    long.write_text(yaml.safe_dump(to_plain(tiny(steps=25, save_every="0.1s", eval_every=0.0))))

    def command(output):
        options = ["--recipe", str(long), "--seeds", "1", "--output", str(output)]
        return ["paper", "hinge", "--data", str(data), *options]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "retinanet", *command(killed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )

    def second():
        done = {path.name for path in (killed / "results").glob("[!.]*.json")}  # not one that is being written
        begun = [f for f in (killed / "runs").glob("*") if done and f"{f.name}.json" not in done]
        return begun and (begun[0] / "metrics.csv").exists() and len(read_metrics(begun[0])) > 5 and begun[0]

    while process.poll() is None and not second():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output
    stopped = second()
    finished = next((killed / "results").glob("*.json"))
    stamp, steps = finished.stat().st_mtime_ns, len(read_metrics(stopped))

    for output in (killed, whole):
        assert main([*command(output), "--quiet"]) == 0
    assert finished.stat().st_mtime_ns == stamp  # not run again
    assert steps < 25
    for name in (p.name for p in (whole / "results").glob("*.json")):
        a, b = (json.loads((folder / "results" / name).read_text())["metrics"] for folder in (killed, whole))
        assert a == b  # bit for bit, as a single run is
    assert (killed / "hinge" / "plot.png").exists()
    assert "| hinge |" in (killed / "hinge" / "table.md").read_text()


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_plain(tiny(steps=2, eval_every=0.0))))
    return path


@pytest.mark.slow
def test_jobs_share_the_runs_and_the_table_is_written(data, recipe, tmp_path, capsys):
    output = tmp_path / "grid"
    options = ["--data", str(data), "--recipe", str(recipe), "--seeds", "2", "--output", str(output)]
    assert main(["paper", "hinge", *options, "--jobs", "2"]) == 0
    printed = capsys.readouterr()
    assert "[6/6]" in printed.err
    assert "Hinge loss on p_t" in printed.out
    assert len(list((output / "results").glob("*.json"))) == 6


def test_all_jobs_report_an_error_of_the_data_once(data, recipe, tmp_path, capsys):
    options = ["--data", str(data), "--recipe", str(recipe), "--val", "nothing", "--output", str(tmp_path / "grid")]
    assert main(["paper", "hinge", *options, "--jobs", "2"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "nothing" in line
