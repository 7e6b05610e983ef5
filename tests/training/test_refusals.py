"""Requests that are refused before training or resuming, finished runs, and full disks."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.recorder import Recorder
from helpers.synthetic_data import Sample, png, rectangles, write
from helpers.tiny_run import tiny
from retinanet.checkpoints import native
from retinanet.cli import main
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import ModelSettings
from retinanet.config.settings import TrainSettings
from retinanet.training import launcher, resume_state
from retinanet.training.events import EvaluationDone, EvaluationProgress, Event, NothingToDo, StepDone
from retinanet.training.fabric import make_fabric
from retinanet.training.signals import Interrupt, Stopped
from retinanet.training.trainer import train


@pytest.mark.parametrize("text", ["3", "90", "1.5", "3.", " 3", "0"])
def test_a_time_needs_a_unit(text: str) -> None:
    with pytest.raises(RequestError, match=rf"train.budget .*{re.escape(text.strip())}m .*{re.escape(text.strip())}s "):
        TrainSettings(budget=text)
    with pytest.raises(RequestError, match=r"train.save_every"):
        TrainSettings(save_every=text)


@pytest.mark.parametrize("verb", ["train", "demo"])
def test_a_bare_budget_on_the_command_line(verb: str, data: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = [verb, *([str(data)] if verb == "train" else []), "--budget", "3", "--output", str(tmp_path / "run")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "3m" in error
    assert "3s" in error
    assert not (tmp_path / "run").exists()


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    train(data, tiny(steps=2, eval_every=0.0, report=True), run)
    return run


def test_a_finished_run_says_so_and_stays_as_it_is(finished: Path, data: Path, capsys: Any) -> None:
    before = files(finished)
    for more in ([], ["--steps", "1"], ["--steps", "2"], ["--train.patience", "2"]):
        assert main(["train", "--resume", str(finished), *more]) == 0
        assert "nothing was changed" in " ".join(capsys.readouterr().err.split())
        assert files(finished) == before
    recorder = Recorder()
    summary = train(data, tiny(steps=2, eval_every=0.0, report=True), finished, resume=True, callbacks=[recorder])
    assert [type(event) for event in recorder.events] == [NothingToDo]
    assert summary["steps"] == 2
    assert summary["last"]["AP"] == pytest.approx(json.loads((finished / "evaluation.json").read_text())["AP"])
    assert files(finished) == before


@pytest.mark.slow
def test_budgets_and_patience_that_are_used_up(data: Path, tmp_path: Path) -> None:
    for name, settings, longer in (
        ("budget", {"steps": None, "budget": "2s"}, {"steps": None, "budget": "5s"}),
        ("patience", {"steps": 9, "lr": 1e-12, "eval_every": 0.4, "patience": 1}, {"steps": 3, "eval_every": 0.0}),
    ):
        run = tmp_path / name
        done = train(data, tiny(**settings), run)
        before = files(run)
        assert train(data, tiny(**settings), run, resume=True)["steps"] == done["steps"]
        assert files(run) == before
        assert train(data, tiny(**longer), run, resume=True)["steps"] > done["steps"]


@pytest.mark.slow
def test_data_that_were_moved(data: Path, tmp_path: Path, capsys: Any) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(data, first)
    train(first, tiny(steps=1, eval_every=0.0), tmp_path / "run")
    first.rename(second)
    resume = ["--resume", str(tmp_path / "run"), "--steps", "2"]
    assert main(["train", *resume]) == 2
    assert f"retinanet train DATA --resume {tmp_path}/run" in " ".join(capsys.readouterr().err.split())
    assert main(["train", str(tmp_path / "nowhere"), *resume]) == 2
    rectangles(tmp_path / "other", count=7)
    assert main(["train", str(tmp_path / "other"), *resume]) == 2
    output = " ".join(capsys.readouterr().err.split())
    assert "on 10 images of 2 classes" in output
    assert "has 7 of 2" in output
    assert "boxes of" not in output, "nothing about the other data set is printed"
    assert main(["train", str(second), *resume]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"] == str(second.resolve())
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "3"]) == 0


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("boxes", "crowd", "reason"),
    [
        ([], 0, "none of its 2 images has an annotation"),
        ([[0, 500, 500, 600, 600]], 0, "left out"),
        ([[0, 2, 2, 40, 40]], 1, "ignore"),
    ],
)
def test_a_split_without_a_usable_box(
    boxes: Any, crowd: int, reason: str, split: str, tmp_path: Path, capsys: Any
) -> None:
    good = [Sample("v.png", png(9), [[0, 2, 2, 40, 40]])]
    bad = [Sample(f"{i}.png", png(i), boxes) for i in range(2)]
    root = write(tmp_path / "data", "coco", {"train": good, "val": good} | {split: bad})
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = crowd
    path.write_text(json.dumps(content))
    assert main(["train", str(root), "--budget", "1m", "--output", str(tmp_path / "run")]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "no usable box" in error
    assert reason in error
    assert not (tmp_path / "run").exists()


@pytest.fixture
def full_disk() -> Any:
    """Files cannot grow beyond 100 kB: a writer meets there what it meets on a full disk, but for the number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_writers_say_what_the_system_said(full_disk: Any, tmp_path: Path) -> None:
    weights = {"weight": torch.zeros(100_000)}
    for write_file in (
        lambda: resume_state.save(tmp_path / "resume.pt", {"model": weights}),
        lambda: native.save(tmp_path / "best.safetensors", weights, ModelSettings(), ["a"]),
    ):
        with pytest.raises(WorkError, match=r"^cannot write .*: file too large$"):
            write_file()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file beside the wanted one is a device that is full."""
    monkeypatch.setattr(resume_state, "open", lambda path, mode: open("/dev/full", mode), raising=False)  # noqa: SIM115
    with pytest.raises(WorkError) as caught:
        resume_state.save(tmp_path / "resume.pt", {"model": {"weight": torch.zeros(1_000_000)}})
    for fact in (f"{tmp_path}/resume.pt", "no space left on device", "4.0 MB", "free"):
        assert fact in str(caught.value)


def test_a_second_signal_stops_at_once() -> None:
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        with pytest.raises(Stopped) as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.code == 130
    with Interrupt(several=True) as interrupt:
        for _ in range(3):  # one signal, through the launcher too
            signal.raise_signal(signal.SIGTERM)
        interrupt._at -= 2
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("during", [StepDone, EvaluationProgress])
def test_one_process_saves_and_ends_with_its_code(
    number: int,
    code: int,
    during: type[Event],
    data: Path,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal during an evaluation does not wait for its end; resumed, the run evaluates there first."""
    from retinanet.terminal.progress import Progress

    def on_event(self: Any, event: Event) -> None:
        if isinstance(event, during) and getattr(event, "step", 3) == 3:
            signal.raise_signal(number)

    settings = tiny(steps=6, eval_every=2.0)  # after step 5
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_event", on_event)
        from helpers.several import write_recipe

        path = write_recipe(tmp_path / "tiny.yaml", {"train": {"steps": 6, "eval_every": 2.0}})
        assert main(["train", str(data), "--config", str(path), "--output", str(tmp_path / "run")]) == code
    step = 3 if during is StepDone else 5
    assert f"step {step} is saved" in capsys.readouterr().err
    saved = resume_state.load(tmp_path / "run" / "resume.pt")["progress"]
    assert (saved["step"], saved["evaluated"]) == (step, 0)
    recorder = Recorder()
    train(data, settings, tmp_path / "run", resume=True, callbacks=[recorder])
    assert [event.step for event in recorder.of(EvaluationDone)] == [5, 6]


def test_training_leaves_nothing_changed_in_the_process(data: Path, tmp_path: Path) -> None:
    import logging

    from retinanet.exporting.openvino import openvino_runtime

    before = list(warnings.filters)
    levels = [logging.getLogger(name).level for name in ("lightning.fabric", "lightning.pytorch")]
    make_fabric(tiny().train)
    assert warnings.filters == before
    assert [logging.getLogger(name).level for name in ("lightning.fabric", "lightning.pytorch")] == levels
    modules = dict(sys.modules)
    with openvino_runtime.without_telemetry(), pytest.raises(ImportError):
        __import__("openvino_telemetry")
    assert dict(sys.modules) == modules


def test_which_job_began_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert launcher.job() is None
    assert not launcher.begun_by_this_job(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    (tmp_path / "run.json").write_text(json.dumps({"job": launcher.job()}))
    assert not launcher.begun_by_this_job(tmp_path), "not restarted: a folder that is not empty is refused"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert launcher.begun_by_this_job(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not launcher.begun_by_this_job(tmp_path), "somebody else's run is not gone on with"
    (tmp_path / "run.json").write_text("[]")
    assert not launcher.begun_by_this_job(tmp_path)
