"""Recipes: found by name, read, and laid between the defaults and the command line."""

from pathlib import Path

import pytest

from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import Settings, TrainSettings


@pytest.mark.parametrize("name", recipes.recipes())
def test_every_recipe_can_be_used(name):
    path = recipes.recipes()[name]
    assert recipes.load(name, None) != Settings()
    assert path.read_text().startswith("# "), "a recipe says first what it is for"
    assert recipes.load(f"{name}.yaml", None) == recipes.load(str(path), None) == recipes.load(name, None)


def test_the_paper_is_the_default_and_its_recipe_says_so():
    train = recipes.load("paper-r50-1x", None).train
    assert (train.steps, train.batch_size, train.lr, train.optimizer) == (90_000, 16, 0.01, "sgd")
    assert [round(m * train.steps) for m in train.milestones] == [60_000, 80_000]
    assert (train.momentum, train.weight_decay) == (0.9, 1e-4)


def test_the_command_line_goes_over_the_recipe_over_the_defaults(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {steps: 10, lr: 1e-3, batch_size: 4}\nmodel:\n  backbone: {name: resnet18}\n")
    made = recipes.load(str(file), {"train": {"lr": 0.5}, "model": {"backbone": {"options": {"drop_rate": "0.1"}}}})
    assert made.train == TrainSettings(steps=10, lr=0.5, batch_size=4)
    assert made.model.backbone.name == "resnet18"
    assert made.model.backbone.options == {"drop_rate": 0.1}
    assert recipes.load(str(file), None).train.lr == 1e-3, "YAML 1.1 would read 1e-3 as text"


def test_values_of_single_classes_come_from_recipe_and_command_line(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "loss:\n  class_weights: {Platelets: 2, 0: 3}\n  alphas: {WBC: 5e-1}\ndata: {repeat_threshold: 1}\n"
    )
    made = recipes.load(str(file), {"loss": {"class_weights": {"WBC": "1e-1", "0": "4"}}})
    assert made.loss.class_weights == {"Platelets": 2.0, "0": 4.0, "WBC": 0.1}
    assert made.loss.alphas == {"WBC": 0.5}
    assert made.data.repeat_threshold == 1.0
    assert all(type(value) is float for value in made.loss.class_weights.values())


def test_a_length_of_the_command_line_takes_the_place_of_the_recipes(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {steps: 10}\n")
    made = recipes.load(str(file), {"train": {"budget": "5m"}})
    assert (made.train.steps, made.train.budget) == (None, "5m")


def test_the_weights_to_begin_from_are_known_before_the_settings(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {weights: a.safetensors}\n")
    # A size that only goes with the checkpoint's longer side is no mistake yet.
    size = {"model": {"preprocessing": {"size": 2000}}}
    assert recipes.weights(str(file), size) == "a.safetensors"
    assert recipes.weights(str(file), {"train": {"weights": "b"}}) == "b"
    assert recipes.weights("scratch-small", None) == "none"
    assert recipes.weights(None, size) == "auto", "settings are fitted, and so is the start"
    assert recipes.weights(None, {"model": {"backbone": {"weights": "b.pth"}}}) == "none"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("train: {epoch: 3}", ("'train.epoch'", "'epochs'")),
        ("- 1", ("mapping", "not list")),
        ("train:\n  lr: [1", ("line 3: not YAML", "']'")),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(tmp_path: Path, text, facts):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RequestError) as caught:
        recipes.load(str(file), None)
    assert all(fact in str(caught.value) for fact in (str(file), *facts))


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(RequestError, match=r"^no recipe 'nowhere': give a YAML file or one of .*paper-r50-1x"):
        recipes.load("nowhere", None)
