"""What is given for rare classes reaches training: through the command line, into a run, and over an interruption."""

import json

import pytest
import torch

from helpers.tiny_run import TINY
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.data import open_data
from retinanet.data.loader import TrainingSteps
from retinanet.data.sampler import Repeats, repeat_factors
from retinanet.losses import Criterion
from retinanet.model import RetinaNet
from retinanet.ops.iou_assigner import match
from retinanet.training.run_folder import read_metrics, read_run
from retinanet.training.step import Learner
from retinanet.training.trainer import train

RARE = {
    "loss": {"alphas": {"green": 0.5}, "class_weights": {"green": 2.0, "red": 0.5}},
    "data": {"repeat_threshold": 0.9},
}


def rare(changes=RARE, **train):
    return recipes.load(None, recipes.merge(recipes.merge(TINY, {"train": {"eval_every": 0.0} | train}), changes))


def losses(folder):
    return [(row["step"], row["class_loss"], row["box_loss"]) for row in read_metrics(folder) if row["class_loss"]]


@pytest.mark.slow
def test_a_run_finishes_and_resumes_exactly(data, tmp_path):
    constant = {"schedule": "constant", "warmup": 0}
    train(data, rare(steps=2, **constant), tmp_path / "whole")
    train(data, rare(steps=1, **constant), tmp_path / "parts")
    assert read_run(tmp_path / "parts")[1].loss == rare().loss
    summary = train(data, rare(steps=2, **constant), tmp_path / "parts", resume=True)
    assert summary["steps"] == 2
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    saved = torch.load(tmp_path / "parts" / "resume.pt", weights_only=True)
    assert not [name for name in saved["model"] if "alphas" in name or "class_weights" in name]

    changed = rare({"loss": {"class_weights": {"green": 3.0}}}, steps=5, **constant)
    with pytest.raises(RequestError, match=r"cannot resume .*: loss.alphas, loss.class_weights$"):
        train(data, changed, tmp_path / "parts", resume=True)


def test_images_of_a_run_are_those_of_its_threshold(data):
    opened = open_data(data, "train")
    factors = repeat_factors(opened, 0.9)
    assert 1.1 < factors.max() < 2
    draws = Repeats.of(factors, 0).draws
    steps = TrainingSteps(opened, rare())
    first = [image for step in range(draws) for _, image in steps.images(step)][:draws]
    assert set(first) == set(range(len(opened)))
    assert len(first) > len(opened)


def test_a_class_that_is_not_in_the_data_ends_the_run_before_it_begins(data, tmp_path, capsys):
    with pytest.raises(RequestError) as caught:
        train(data, rare({"loss": {"alphas": {"gren": 0.5}}}), tmp_path / "run")
    assert str(caught.value) == "loss.alphas: the data set has no class 'gren'; did you mean 'green'?"
    assert not (tmp_path / "run").exists()


def test_the_command_line(data, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipes.merge(TINY, {"loss": {"class_weights": {"red": 3}}})))
    given = ["train", str(data), "--config", f"{tmp_path}/tiny.yaml", "--steps", "1"]
    options = ["--loss.class-weights.green", "2", "--loss.alphas.green=0.5", "--data.repeat-threshold", "0.9"]
    assert main([*given, *options, "--output", f"{tmp_path}/run", "--quiet"]) == 0
    settings = read_run(tmp_path / "run")[1]
    assert settings.loss.class_weights == {"red": 3.0, "green": 2.0}
    assert settings.loss.alphas == {"green": 0.5}
    assert settings.data.repeat_threshold == 0.9

    capsys.readouterr()
    assert main([*given, "--output", f"{tmp_path}/other", "--loss.class-weights", '{"traffic light": 2}']) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == "error: loss.class_weights: the data set has no class 'traffic light'; they are red, green"


def test_the_learner_counts_classes_by_their_weights():
    torch.manual_seed(0)
    model = RetinaNet(rare().model, 2)
    images, sizes = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), torch.tensor([[64, 64]])
    anchors = torch.cat(model.anchors(64, 64, torch.device("cpu")))
    targets = match(anchors, [torch.tensor([[8.0, 8, 40, 40]])], [torch.tensor([1])], MatchingSettings())

    def loss(**changes):
        learner = Learner(model, Criterion(LossSettings(**changes), class_names=("red", "green")))
        return [part.item() for part in learner(images, sizes, targets)]

    plain, none = loss(), loss(class_weights={"red": 0.0, "green": 0.0})
    assert none == [0, plain[1]]
    double = loss(class_weights={"red": 2.0, "green": 2.0})
    assert double == pytest.approx([2 * plain[0], plain[1]])
    red, green = (loss(class_weights={name: 0.0})[0] for name in ("green", "red"))
    assert red + green == pytest.approx(plain[0])
    assert loss(alphas={"green": 0.5})[0] > 1.5 * plain[0]  # of the one object, which is green


def test_the_vectors_move_with_the_learner_and_are_not_saved():
    learner = Learner(RetinaNet(rare().model, 2), Criterion(rare().loss, class_names=("red", "green")))
    assert {name for name, _ in learner.named_buffers()} >= {"criterion.alphas", "criterion.class_weights"}
    assert all(name.startswith("model.") for name in learner.state_dict())
    moved = learner.to("meta")
    assert moved.criterion.alphas.device.type == moved.criterion.class_weights.device.type == "meta"
    assert Criterion().alphas is None
