import csv
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import retinanet
from helpers.recorder import Calling, Recorder
from helpers.tiny_run import TINY, tiny
from retinanet.common.errors import RequestError, WorkError
from retinanet.config import recipes
from retinanet.data import open_data
from retinanet.data.loader import TrainingSteps
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.runner import detect_all
from retinanet.training import trainer
from retinanet.training.callbacks import Callback
from retinanet.training.events import (
    AnchorsCover,
    CheckingImages,
    DataExamined,
    DataOpened,
    Ended,
    EvaluationDone,
    EvaluationProgress,
    StartChosen,
    Started,
    StateSaved,
    StepDone,
)
from retinanet.training.trainer import train


def test_run_folder(data, tmp_path):
    recorder = Recorder()
    summary = train(data, tiny(steps=5, ema=0.9), tmp_path / "run", callbacks=[recorder])
    run = tmp_path / "run"
    expected = "best.safetensors evaluation.json last.safetensors metrics.csv resume.pt run.json settings.yaml"
    assert sorted(p.name for p in run.iterdir() if p.is_file()) == [*expected.split(), "validation.png"]
    assert [p.name for p in run.iterdir() if p.is_dir()] == []
    assert json.loads((run / "run.json").read_text())["own"] == {}
    with Image.open(run / "validation.png") as image:
        image.load()
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["class_loss"]] == list(range(1, 6))
    # 10 images in batches of 4: an epoch is 2.5 steps, evaluated after steps 2 and 4 and at the end
    assert [int(row["step"]) for row in rows if row["AP"]] == [2, 4, 5]
    assert json.loads((run / "evaluation.json").read_text())["AP"] == pytest.approx(summary["last"]["AP"])
    assert {type(event) for event in recorder.events} == {
        CheckingImages,
        DataOpened,
        AnchorsCover,
        DataExamined,
        StartChosen,
        Started,
        StepDone,
        EvaluationProgress,
        EvaluationDone,
        StateSaved,
        Ended,
    }
    detector = retinanet.load(run)
    assert detector.class_names == ("red", "green")
    detector.predict(data / "val" / "0.png")


@pytest.mark.slow
def test_loss_falls(data, tmp_path):
    recorder = Recorder()
    train(data, tiny(steps=60, lr=3e-3, eval_every=0.0), tmp_path / "run", callbacks=[recorder])
    losses = [e.class_loss + e.box_loss for e in recorder.of(StepDone)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.slow
@pytest.mark.parametrize(("normalizer", "chunks"), [("batch", (1, 3, 4)), ("image", (1, 3))])
def test_chunks_of_a_batch_make_the_same_step(data, tmp_path, normalizer, chunks):
    losses = []
    for accumulate in chunks:
        recorder = Recorder()
        settings = tiny(steps=4, accumulate=accumulate, optimizer="sgd", lr=0.01, eval_every=0.0)
        settings = replace(settings, loss=replace(settings.loss, normalizer=normalizer))
        train(data, settings, tmp_path / str(accumulate), callbacks=[recorder])
        losses.append([(e.class_loss, e.box_loss) for e in recorder.of(StepDone)])
    for other in losses[1:]:
        torch.testing.assert_close(torch.tensor(other), torch.tensor(losses[0]), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.9])
def test_evaluating_changes_nothing_and_measures_what_is_saved(data, tmp_path, ema):
    """Batch normalisation is trained here: an evaluation in training mode would use and change its statistics.

    There is one after step 8; the four steps that follow would show it.
    """
    changes = {"model": {"backbone": {"frozen_norm": False}}, "train": {"steps": 12, "lr": 3e-3, "ema": ema}}
    settings = recipes.load(None, recipes.merge(TINY, changes))
    often = replace(settings, train=replace(settings.train, eval_every=3.2))
    seldom = replace(settings, train=replace(settings.train, eval_every=0.0))
    summaries = [train(data, s, tmp_path / name) for s, name in ((often, "often"), (seldom, "seldom"))]
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("often", "seldom"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    val = open_data(data, "val")
    detections = detect_all(retinanet.load(tmp_path / "often" / "last.safetensors", precision="fp32"), val)
    assert coco_metrics.evaluate(val, detections).stats == pytest.approx(summaries[0]["last"], abs=1e-6)
    assert summaries[0]["last"]["AR100"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine"])
def test_bf16(data, tmp_path, schedule):
    """On any machine: where the CPU does not compute in bf16, torch emulates it."""
    recorder = Recorder()
    settings = tiny(steps=40, lr=3e-3, eval_every=0.0, precision="bf16", clip=1.0, schedule=schedule)
    train(data, settings, tmp_path / "run", callbacks=[recorder])
    assert recorder.of(Started)[0].precision == "bf16"
    losses = [e.class_loss + e.box_loss for e in recorder.of(StepDone)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    weights = load_file(tmp_path / "run" / "last.safetensors")
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}, "master weights stay fp32"
    longer = replace(settings, train=replace(settings.train, steps=41))
    assert train(data, longer, tmp_path / "run", resume=True)["steps"] == 41


def test_weights_that_are_not_finite_replace_no_good_checkpoint(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train(data, tiny(steps=2), run)
    good = (run / "last.safetensors").read_bytes()
    real = trainer.backward

    def overflowing(fabric, learner, *rest):
        losses = real(fabric, learner, *rest)
        next(p for p in learner.parameters() if p.requires_grad).grad.fill_(float("inf"))
        return losses

    # The loss of step 3 is sound, its update is not, and the last evaluation is due after it.
    monkeypatch.setattr(trainer, "backward", overflowing)
    with pytest.raises(WorkError, match=r"weight is not finite .*after step 3"):
        train(data, tiny(steps=3), run, resume=True)
    assert (run / "last.safetensors").read_bytes() == good


def test_loss_that_is_not_finite_stops_the_run(data, tmp_path):
    with pytest.raises(WorkError) as caught:
        train(data, tiny(steps=50, optimizer="sgd", lr=1e18, warmup=0), tmp_path / "run")
    text = str(caught.value)
    assert "the loss is not finite at step " in text or "a weight is not finite any more after step " in text
    assert str(tmp_path / "run") in text
    resume = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in resume["model"].values())


def test_images_of_a_bad_step_are_named(data, tmp_path, monkeypatch):
    real, settings = trainer.backward, tiny()
    monkeypatch.setattr(trainer, "backward", lambda *arguments: real(*arguments) * float("nan"))
    with pytest.raises(WorkError) as caught:
        train(data, settings, tmp_path / "run")
    order = [data_index for _, data_index in TrainingSteps(open_data(data, "train"), settings).images(0)]
    names = ", ".join(f"{index}.png" for index in order)
    for fact in ("not finite at step 1 (class nan, box nan)", f"{tmp_path}/run/resume.pt", names, "train.lr"):
        assert fact in str(caught.value)


def test_early_stopping(data, tmp_path):
    # A learning rate of next to nothing: the AP does not rise after the first evaluation.
    settings = tiny(steps=50, lr=1e-12, eval_every=0.4, patience=2)
    summary = train(data, settings, tmp_path / "run")
    assert summary["stopped"] == "patience"
    assert summary["steps"] == 3


@pytest.mark.slow
def test_budget_ends_the_run(data, tmp_path):
    summary = train(data, tiny(steps=None, budget="4s"), tmp_path / "run")
    assert summary["steps"] >= 1
    assert (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.slow
def test_a_resumed_budget_keeps_time_for_the_last_evaluation(data, tmp_path):
    settings = tiny(steps=None, budget="3s", eval_every=0.0)

    def stop(event):
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(data, settings, tmp_path / "run", callbacks=[Calling(stop)])
    recorder = Recorder()
    summary = train(data, settings, tmp_path / "run", resume=True, callbacks=[recorder])
    assert summary["steps"] >= 3
    assert len(recorder.of(EvaluationDone)) == 1


def test_used_folder_is_refused(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match=r"run exists and is not empty: .*--output$"):
        train(data, tiny(), tmp_path / "run")


def test_interrupt_saves_first(data, tmp_path):
    def stop(event):
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"step 3 is saved; go on with --resume .*run"):
        train(data, tiny(eval_every=0.0), tmp_path / "run", callbacks=[Calling(stop)])
    assert signal.getsignal(signal.SIGINT) is before
    assert train(data, tiny(eval_every=0.0), tmp_path / "run", resume=True)["steps"] == 6


def test_devices_that_are_not_there(data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(RequestError, match=r"train.accelerator cuda.* cannot be used here"):
        train(data, tiny(accelerator="cuda"), tmp_path / "run")


def test_evaluation_on_some_images_and_the_last_on_all(data, tmp_path):
    recorder = Recorder()
    train(data, tiny(steps=4, eval_images=3), tmp_path / "run", callbacks=[recorder])
    totals = [event.total for event in recorder.of(EvaluationProgress)]
    assert min(totals) == 3
    assert totals[-1] == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0"])
def test_backbones_with_dropout_resume_exactly(data, tmp_path, name):
    settings = tiny(steps=2, eval_every=0.0)
    backbone = replace(settings.model.backbone, name=name, options={"drop_path_rate": 0.5})
    settings = replace(settings, model=replace(settings.model, backbone=backbone))
    whole, parts = Recorder(), Recorder()
    constant = replace(settings, train=replace(settings.train, schedule="constant", warmup=0))
    train(data, replace(constant, train=replace(constant.train, steps=3)), tmp_path / "b", callbacks=[whole])
    train(data, constant, tmp_path / "c", callbacks=[parts])
    torch.manual_seed(99)
    longer = replace(constant, train=replace(constant.train, steps=3))
    train(data, longer, tmp_path / "c", resume=True, callbacks=[parts])
    a, b = ([e.class_loss for e in run.of(StepDone)] for run in (whole, parts))
    assert a == b


def test_callbacks_of_users(data, tmp_path):
    """They see the trainer, and may end the run early."""

    class Watch(Callback):
        def __init__(self):
            self.calls = []

        def on_step(self, trainer, event):
            assert trainer.progress.step == event.step
            self.calls.append(("step", event.step))
            if event.step == 3:
                trainer.finish_early("enough")

        def on_evaluation(self, trainer, event):
            assert trainer.evaluation.stats == event.metrics
            self.calls.append(("evaluation", event.step))

        def on_end(self, trainer, event):
            self.calls.append(("end", event.summary["stopped"]))

    watch = Watch()
    summary = train(data, tiny(steps=9, eval_every=0.0), tmp_path / "run", callbacks=[watch])
    assert watch.calls == [("step", 1), ("step", 2), ("step", 3), ("evaluation", 3), ("end", "enough")]
    assert (summary["steps"], summary["stopped"]) == (3, "enough")
