"""``retinanet.train`` as a user calls it: the same run as the command makes, and a detector to use."""

import json
import subprocess
import sys

import pytest
import torch

import retinanet
from helpers.synthetic_data import bright_boxes
from helpers.tiny_run import tiny
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings
from retinanet.training.callbacks import Callback
from retinanet.training.events import StepDone
from retinanet.training.run_folder import read_run

SMALL = {
    "weights": "none",
    "batch_size": 2,
    "size": 64,
    "workers": 0,
    "precision": "fp32",
    "model": {
        "preprocessing": {"longer": 64},
        "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
        "pyramid": {"channels": 16},
        "head": {"depth": 1, "width": 16},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return bright_boxes(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def result(data, tmp_path_factory):
    return retinanet.train(data, steps=4, output=tmp_path_factory.mktemp("runs") / "run", progress=False, **SMALL)


class Steps(Callback):
    def __init__(self):
        self.count = 0

    def on_event(self, event):
        self.count += isinstance(event, StepDone)


def test_the_result_is_the_best_detector_with_its_metrics(result, data):
    assert result.path.is_dir()
    assert result.summary["steps"] == 4
    best = retinanet.load(result.path)
    state = result.detector.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in best.model.state_dict().items())
    assert result.detector.class_names == ("cat", "dog")
    assert len(result.metrics) == 12
    assert result.metrics == best.about["metrics"]
    assert str(result.path) in repr(result)
    assert len(repr(result)) < 200
    assert "<table>" in result._repr_html_()
    assert len(result._repr_html_()) < 2000


def test_the_same_settings_as_the_command(result, data, tmp_path):
    """Fitted ones too."""
    options = ["--weights", "none", "--batch-size", "2", "--model.preprocessing.size", "64", "--data.workers", "0"]
    options += ["--train.precision", "fp32", "--model.preprocessing.longer", "64", "--steps", "4"]
    options += ["--model.backbone.name", "resnet18", "--model.backbone.options.channels", "[8, 8, 16, 16]"]
    options += ["--model.pyramid.channels", "16", "--model.head.depth", "1", "--model.head.width", "16"]
    assert main(["train", str(data), "--output", str(tmp_path / "run"), "-q", *options]) == 0
    assert (tmp_path / "run" / "settings.yaml").read_text() == (result.path / "settings.yaml").read_text()
    chosen, kept = (json.loads((run / "run.json").read_text())["choices"] for run in (result.path, tmp_path / "run"))
    assert {row["setting"]: row["value"] for row in chosen} == {row["setting"]: row["value"] for row in kept}
    assert "model.anchors.sizes" in {row["setting"] for row in chosen}


def test_silent_without_progress_and_readable_with_it(data, tmp_path, capfd):
    retinanet.train(data, steps=1, output=tmp_path / "a", progress=False, **SMALL)
    assert capfd.readouterr() == ("", "")
    retinanet.train(data, steps=1, output=tmp_path / "b", explain=True, **SMALL)
    out, err = capfd.readouterr()
    for fact in ("plan: resnet18", "split train (COCO): 4 images", "train.batch_size", "step 1/1"):
        assert fact in err or fact == "train.batch_size"
    assert "model.anchors" in err
    for fact in ("class", "1 step in", "retinanet.load(", "retinanet.evaluate("):
        assert fact in out


def test_whole_settings_are_used_as_they_are(data, tmp_path):
    settings = tiny(steps=2)
    steps = Steps()
    result = retinanet.train(data, settings=settings, output=tmp_path / "run", callbacks=[steps], progress=False)
    assert steps.count == 2
    facts = json.loads((result.path / "run.json").read_text())
    assert facts["choices"] == []
    assert result.detector.settings.anchors == settings.model.anchors


def test_a_resumed_run_and_a_next_free_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = retinanet.train(data, steps=1, progress=False, **SMALL)
    assert first.path.parts == ("runs", "tiny-1")
    again = retinanet.train(resume=first.path, steps=2, progress=False)
    assert again.path == first.path
    assert again.summary["steps"] == 2


def test_loss_may_be_the_settings_of_the_section(data, tmp_path):
    """A dict changes some of them; LossSettings holds all."""
    whole = LossSettings(gamma=1.5)
    for name, loss, box in (("dict", {"gamma": 1.5}, "giou"), ("settings", whole, whole.box)):
        run = retinanet.train(data, steps=1, output=tmp_path / name, loss=loss, progress=False, **SMALL)
        used = read_run(run.path)[1].loss
        assert (used.gamma, used.box) == (1.5, box)


def test_own_parts_reach_the_trainer(data, tmp_path):
    calls = []

    def transform(image, boxes, labels):
        calls.append("transform")
        return image, boxes, labels

    def optimizer(parameters):
        calls.append("optimizer")
        return torch.optim.SGD(parameters, lr=1e-3)

    def loss(logits, labels):
        calls.append("loss")
        return logits.square().mean()

    retinanet.train(
        data,
        steps=1,
        output=tmp_path / "run",
        transform=transform,
        optimizer=optimizer,
        loss=loss,
        progress=False,
        **SMALL,
    )
    assert {"transform", "optimizer", "loss"} <= set(calls)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"data": 3}, "data must be a path"),
        ({"data": None}, "give a data set"),
        ({"data": "nowhere"}, "there is no data set nowhere"),
        ({"bach_size": 2}, "did you mean batch_size?"),
        ({"output": "a\0b"}, "null byte"),
        ({"callbacks": 3}, "callbacks= must be a list"),
        ({"callbacks": [print]}, "callbacks= must hold objects"),
        ({"callbacks": [Callback]}, "make one of the class"),
        ({"callback": []}, "did you mean callbacks?"),
        ({"batch_size": 0}, "train.batch_size must be at least 1"),
        ({"budget": "15"}, "no unit"),
        ({"budget": -1}, "train.budget"),
        ({"budget": 60, "epochs": 2}, "only one of"),
        ({"settings": {"train": {}}}, "retinanet.Settings"),
        ({"settings": retinanet.Settings(), "steps": 3}, "leave out train.steps"),
        ({"anchors": "auto", "model": {"anchors": {"sizes": [8, 16, 32]}}}, "model.anchors.sizes"),
        ({"resume": "nowhere"}, "nowhere"),
        ({"config": "nothing"}, "no recipe 'nothing'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(data, tmp_path, monkeypatch, arguments, fact):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as caught:
        retinanet.train(**({"data": data, "progress": False} | arguments))
    assert fact in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_in_seconds(data, tmp_path):
    result = retinanet.train(data, budget=20, output=tmp_path / "run", progress=False, **SMALL)
    assert result.summary["budget"] == 20
    assert result.summary["steps"] >= 1


def test_importing_the_package_stays_light():
    code = "import sys, retinanet; retinanet.Settings; print('torch' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
