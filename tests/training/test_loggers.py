"""What TensorBoard, W&B (offline) and MLflow (in files) have of a run, read back from their own files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import wandb_files
from helpers.recorder import Recorder
from helpers.several import wait_for
from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError, WorkError
from retinanet.training import loggers
from retinanet.training.callbacks import Callback
from retinanet.training.events import Problem, StepDone
from retinanet.training.loggers import LOGGERS, make_loggers
from retinanet.training.run_logger import RunLogger
from retinanet.training.trainer import train


class Fail(Callback):
    """Ends the run with an error at a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_step(self, trainer: Any, event: StepDone) -> None:
        if event.step == self.step:
            raise self.error


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def in_csv(run: Path, column: str) -> list[tuple[int, float]]:
    """(step, value) of a column of metrics.csv."""
    return [(int(row["step"]), float(row[column])) for row in rows(run) if row[column]]


def approximately(pairs: list[tuple[int, float]]) -> list[Any]:
    return [(step, pytest.approx(value, rel=1e-4)) for step, value in pairs]


def test_tensorboard(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    train(data, tiny(steps=3), run, log="tensorboard")
    log = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    log.Reload()
    for column, tag in (("class_loss", "train/class_loss"), ("lr", "train/lr"), ("AP50", "val/AP50")):
        assert [(event.step, event.value) for event in log.Scalars(tag)] == approximately(in_csv(run, column))
    assert len(in_csv(run, "class_loss")) == 3
    assert len(log.Images("validation")) == 1
    (text,) = log.Tensors("settings/text_summary")
    assert "train.batch_size: 4" in text.tensor_proto.string_val[0].decode()
    assert str(run) in text.tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_wandb(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails, and the same run resumed: one W&B run, whose two parts have every number."""
    pytest.importorskip("wandb")
    run, folder = tmp_path / "run", tmp_path / "run" / "wandb"
    monkeypatch.setenv("WANDB_PROJECT", "of-the-test")
    settings = tiny(steps=6, eval_every=1.2)
    with pytest.raises(OSError, match="no power"):
        train(data, settings, run, callbacks=[Fail(4, OSError("no power"))], log="wandb")
    train(data, settings, run, resume=True, log=("wandb",))
    # W&B's own process writes the end of a file after finish() has returned.
    wait_for(lambda: [each.exit_code for each in wandb_files.of_kind(folder, "exit")] == [1, 0])
    begun = wandb_files.of_kind(folder, "run")
    assert {(each.run_id, each.project, each.display_name) for each in begun} == {
        (json.loads((run / "run.json").read_text())["wandb"], "of-the-test", "run")
    }
    history = wandb_files.history(folder)
    for column, key in (("class_loss", "train/class_loss"), ("lr", "train/lr"), ("AP", "val/AP")):
        logged = {row["step"]: row[key] for row in history if key in row}  # step 4 was made twice
        assert list(logged.items()) == approximately(in_csv(run, column))
    (image,) = [row for row in history if "validation/_type" in row]
    assert image["validation/_type"] == "image-file"
    assert list(folder.glob(f"offline-run-*/files/{image['validation/path']}"))
    config = {
        wandb_files.name(item): item.value_json
        for record in wandb_files.of_kind(folder, "config")
        for item in record.update
    }
    assert json.loads(config["train.batch_size"]) == 4
    assert json.loads(config["run_folder"]) == str(run)
    summary = {
        wandb_files.name(item): item.value_json
        for record in wandb_files.of_kind(folder, "summary")
        for item in record.update
    }
    assert json.loads(summary["stopped"]) == "finished"


@pytest.mark.slow
def test_mlflow(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    run, settings = tmp_path / "run", tiny(steps=6, eval_every=1.2)
    client = MlflowClient()
    with pytest.raises(KeyboardInterrupt):
        train(data, settings, run, callbacks=[Fail(4, KeyboardInterrupt())], log="mlflow")
    ident = json.loads((run / "run.json").read_text())["mlflow"]
    assert client.get_run(ident).info.status == "KILLED"
    train(data, settings, run, resume=True, log="mlflow")
    found = client.get_run(ident)
    experiment = client.get_experiment_by_name("retinanet")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    for column, key in (("class_loss", "train/class_loss"), ("lr", "train/lr"), ("AP", "val/AP")):
        logged = {metric.step: metric.value for metric in client.get_metric_history(ident, key)}
        assert sorted(logged.items()) == approximately(in_csv(run, column))
    assert found.data.params["train.batch_size"] == "4"
    assert found.data.tags["run_folder"] == str(run)
    assert found.data.tags["stopped"] == "finished"
    assert [file.path for file in client.list_artifacts(ident)] == ["validation.png"]


def test_nothing_is_logged_unless_asked(data: Path, tmp_path: Path) -> None:
    train(data, tiny(steps=2, eval_every=0.0), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert not [path for path in (tmp_path / "run").iterdir() if path.is_dir()]


def test_a_package_that_is_missing_is_reported_before_any_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    for name, logger in LOGGERS.items():
        recorder = Recorder()
        with pytest.raises(RequestError) as error:
            train(data, tiny(), tmp_path / "run", callbacks=[recorder], log=name)
        assert f"pip install 'retinanet[{name}]'" in str(error.value)
        assert logger.name in str(error.value)
        assert not recorder.events
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_wandb_without_a_key_is_reported_before_any_work(data: Path, tmp_path: Path) -> None:
    """In a process of its own, since W&B reads its environment once."""
    pytest.importorskip("wandb")
    names = ("WANDB_MODE", "WANDB_API_KEY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    program = "from retinanet.training.loggers import make_loggers; make_loggers('wandb')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "RequestError" in last
    assert "wandb login" in last
    assert "WANDB_MODE=offline" in last


@pytest.mark.parametrize("log", ["clearml", ["wandb", 3], 5, {"wandb"}])
def test_unknown_loggers(log: Any) -> None:
    with pytest.raises(RequestError, match="tensorboard, wandb, mlflow"):
        make_loggers(log)


def test_names_and_callbacks_together() -> None:
    own = Callback()
    made = make_loggers(("tensorboard", own, "tensorboard"))
    assert [type(each).__name__ for each in made] == ["TensorBoardLog", "Callback"]
    assert make_loggers(own) == (own,)


def test_a_service_that_cannot_be_started(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://server")
    with pytest.raises(WorkError, match=r"^MLflow could not be started: .*MLFLOW_TRACKING_URI") as error:
        train(data, tiny(), tmp_path / "run", log="mlflow")
    assert "\n" not in str(error.value)


def test_a_service_that_fails_later_ends_no_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")

    def broken(self: Any, step: int, values: Any) -> None:
        raise OSError("the server is gone")

    monkeypatch.setattr(LOGGERS["tensorboard"], "scalars", broken)
    recorder = Recorder()
    summary = train(data, tiny(steps=3), tmp_path / "run", callbacks=[recorder], log="tensorboard")
    assert summary["steps"] == 3
    (problem,) = recorder.of(Problem)
    assert "TensorBoard" in problem.text
    assert "the server is gone" in problem.text


class Lost(RunLogger):
    """A service that is gone when the run ends, or before."""

    name, package = "Lost", "lost"

    def __init__(self, *fails: str) -> None:
        super().__init__()
        self.fails, self.closed = fails, 0

    def open(self, run: Any, settings: Any) -> None:
        self._call("open")

    def scalars(self, step: int, values: Any) -> None:
        self._call("scalars")

    def end(self, step: int, summary: Any, images: Path) -> None:
        self._call("end")

    def close(self, error: BaseException | None) -> None:
        self.closed += 1
        self._call("close")

    def _call(self, name: str) -> None:
        if name in self.fails:
            raise OSError("the server is gone\nsecond line")


@pytest.mark.parametrize("fails", [("close",), ("scalars",), ("scalars", "close"), ("end", "close")])
def test_a_service_that_fails_at_the_end_ends_no_run_and_is_closed_once(
    data: Path, tmp_path: Path, fails: tuple[str, ...]
) -> None:
    recorder, logger = Recorder(), Lost(*fails)
    assert train(data, tiny(steps=2), tmp_path / "run", callbacks=[recorder], log=logger)["steps"] == 2
    (problem,) = recorder.of(Problem)
    assert "the server is gone)" in problem.text
    assert logger.closed == 1


def test_a_service_that_was_half_started_is_closed(data: Path, tmp_path: Path) -> None:
    logger = Lost("open")
    with pytest.raises(WorkError, match="could not be started"):
        train(data, tiny(steps=2), tmp_path / "run", log=logger)
    assert logger.closed == 1


def test_a_package_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> None:
        raise ImportError("numpy.core.multiarray failed to import\nmore")

    monkeypatch.setattr(loggers, "find_spec", lambda name: True)
    monkeypatch.setattr(LOGGERS["wandb"], "require_usable", broken)
    with pytest.raises(RequestError, match=r"^W&B cannot be used here: ImportError: numpy.* to import$"):
        make_loggers("wandb")
