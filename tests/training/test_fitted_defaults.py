"""Settings chosen for the data and the machine: those of the user stay, the other ones have reasons."""

import json

import pytest
import torch

import retinanet
from helpers.synthetic_data import black_images, rectangles
from retinanet.cli import main
from retinanet.common.fields import from_plain
from retinanet.config import recipes
from retinanet.config.convert import dotted, to_plain
from retinanet.config.settings import Settings
from retinanet.training import fitted_defaults, step_cost
from retinanet.training.run_folder import read_run
from retinanet.training.step_cost import Machine

HERE = Machine(torch.device("cpu"), "fp32", 1, 0)
SMALL = {"model": {"preprocessing": {"size": 64, "longer": 96}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty-four pixels, two objects of about twenty in each image."""
    boxes = [(4, 6, 22, 28, 0), (30, 20, 52, 40, 1)]
    return black_images(tmp_path_factory.mktemp("data"), [((64, 64), boxes)] * 16)


def chosen(data, given, anchors=True):
    settings, choices = fitted_defaults.fit(given, anchors, data, data, HERE)
    assert from_plain(Settings, to_plain(settings)) == settings
    assert all(choice.reason for choice in choices)
    values = dotted(to_plain(settings))
    for choice in choices:  # the settings are what the choices report
        if choice.setting in values and choice.setting not in ("train.precision", "data.workers"):
            expected = list(choice.value) if isinstance(choice.value, tuple) else choice.value
            assert values[choice.setting] == expected, choice
    return settings, {choice.setting: choice.value for choice in choices}


def test_what_the_user_gave_stays(data):
    given = {
        "model": {"preprocessing": {"size": 96, "longer": 96}, "anchors": {"sizes": [20.0, 40.0]}},
        "train": {"steps": 7, "batch_size": 3, "lr": 0.5, "ema": 0.9, "eval_every": 0.0, "accumulate": 2},
        "loss": {"gamma": 1.0},
    }
    settings, made = chosen(data, given)
    kept = dotted(given)
    assert {name: value for name, value in dotted(to_plain(settings)).items() if name in kept} == kept
    assert not set(made) & set(kept)
    assert settings.train.budget is None


def test_without_a_length_there_is_one(data):
    settings, made = chosen(data, SMALL)
    assert settings.train.budget is None
    assert settings.train.steps == made["train.steps"] == fitted_defaults.SCRATCH.steps[0]
    assert settings.train.batch_size == fitted_defaults.BATCH


def test_a_short_budget_gets_small_batches_where_images_are_full(tmp_path):
    boxes = [(4 + 14 * i, 4 + 14 * j, 14 + 14 * i, 15 + 14 * j, 0) for i in range(6) for j in range(5)]
    full = black_images(tmp_path, [((96, 96), boxes)] * 4)
    settings, _ = chosen(full, {**SMALL, "train": {"budget": "1s"}})
    assert settings.train.batch_size == 1
    assert settings.train.lr == pytest.approx(2e-3 * (30 / fitted_defaults.OBJECTS) ** 0.5, rel=1e-2)


def test_a_short_budget_gets_a_light_network(data):
    settings, made = chosen(data, {**SMALL, "train": {"budget": "1s"}})
    assert made["model"] == fitted_defaults.NETWORKS[-1].name
    assert settings.model.pyramid.channels == 64
    assert settings.train.batch_size == fitted_defaults.BATCH, "there are two objects an image: fewer would be too few"
    assert settings.train.lr == pytest.approx(2e-3 * (16 / fitted_defaults.OBJECTS) ** 0.5, rel=1e-2)
    assert settings.train.budget == "1s"


@pytest.mark.parametrize(("side", "smaller"), [(100, True), (20, False)])
def test_a_short_budget_gets_smaller_images_unless_objects_become_too_small(tmp_path, side, smaller):
    """The smallest objects ask for whole images at first; half of the objects have this side or a larger one."""
    sides = [20, side, side, side]
    boxes = [(4 + 110 * i, 8, 4 + 110 * i + each, 8 + each, i % 2) for i, each in enumerate(sides)]
    data = black_images(tmp_path, [((448, 448), boxes)] * 4)
    size = {budget: chosen(data, {"train": {"budget": budget}})[0].model.preprocessing.size for budget in ("1s", "10h")}
    assert size["1s"] < size["10h"] if smaller else size["1s"] == size["10h"]


def test_a_long_budget_gets_the_larger_network(data):
    settings, made = chosen(data, {**SMALL, "train": {"budget": "10h"}})
    assert made["model"] == fitted_defaults.NETWORKS[1].name
    assert settings.train.batch_size == fitted_defaults.BATCH


def test_a_network_that_was_given_is_not_changed(data):
    given = {**SMALL, "train": {"budget": "1s"}}
    given["model"] = {**given["model"], "head": {"width": 32, "depth": 1}}
    settings, made = chosen(data, given)
    assert "model" not in made
    assert (settings.model.head.width, settings.model.pyramid.channels) == (32, 128)


def test_anchors_of_the_recipe_on_request(data):
    assert chosen(data, SMALL, anchors=False)[0].model.anchors == recipes.load(recipes.FITTED, {}).model.anchors
    assert chosen(data, SMALL)[0].model.anchors != recipes.load(recipes.FITTED, {}).model.anchors


@pytest.mark.parametrize(("processes", "chunks"), [(1, 8), (4, 2)])
def test_a_batch_that_does_not_fit_is_cut(data, processes, chunks):
    free = step_cost.free_memory(torch.device("cpu"))
    if free is None:
        pytest.skip("this system does not tell its free memory")
    cost = step_cost.Cost(1.0, free * fitted_defaults.MEMORY_SHARE / 1.1)  # one image fits, two do not
    settings = recipes.load(recipes.FITTED, {"train": {"batch_size": 8}})
    (choice,) = fitted_defaults._chunks(settings, cost, torch.device("cpu"), processes)
    assert (choice.setting, choice.value) == ("train.accumulate", chunks)


def test_a_trial_costs_more_for_larger_images():
    settings = recipes.load("scratch-small", {"model": {"pyramid": {"channels": 32}, "head": {"width": 32}}})
    small, large = (step_cost.measure(settings, 3, size, HERE.device, "fp32") for size in ((64, 64), (128, 256)))
    assert large.bytes == pytest.approx(8 * small.bytes, rel=0.2), "memory goes with the pixels"
    assert small.seconds > 0


@pytest.mark.slow
def test_the_default_command(tmp_path, capsys):
    """No recipe: choices are reported and kept, the report is written, predict uses the threshold of the best F1."""
    root = rectangles(tmp_path / "data")
    run = tmp_path / "run"
    light = ["--model.backbone.options.channels", "[8, 8, 16, 16]", "--model.head.width", "16"]
    assert main(["train", str(root), "--steps", "3", "--output", str(run), "--explain", *light]) == 0
    printed = capsys.readouterr().err
    kept = json.loads((run / "run.json").read_text())["choices"]
    assert {"model.preprocessing.size", "model.anchors.sizes", "train.batch_size"} <= {c["setting"] for c in kept}
    for choice in kept:
        assert f"{choice['setting']} " in printed
        assert choice["reason"] in printed
    assert read_run(run)[1].train.steps == 3
    page = (run / "report.html").read_text()
    assert "What to do next" in page
    threshold = retinanet.load(run).threshold
    assert threshold is not None
    assert json.loads((run / "evaluation.json").read_text())["threshold"] == threshold
    assert main(["predict", str(run), str(root / "val"), "--output", str(tmp_path / "found"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == threshold


@pytest.mark.slow
def test_anchors_auto_with_a_recipe_changes_the_anchors_alone(tmp_path):
    root = rectangles(tmp_path / "data")
    plain = {"model": {"preprocessing": {"size": 64, "longer": 96}, "head": {"width": 16, "depth": 1},
                       "pyramid": {"channels": 16}}, "train": {"steps": 1, "report": False}}  # fmt: skip
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(plain))
    assert (
        main(["train", str(root), "--config", str(path), "--anchors", "auto", "--output", str(tmp_path / "a"), "-q"])
        == 0
    )
    fitted = read_run(tmp_path / "a")[1]
    assert fitted.model.anchors != Settings().model.anchors
    assert fitted.model.preprocessing.size == 64
    assert fitted.train.lr == Settings().train.lr


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (
            ["--anchors", "auto", "--model.anchors.sizes", "8", "16"],
            "--anchors auto chooses what model.anchors.sizes sets",
        ),
        (["--anchors", "best"], "Invalid value"),
    ],
)
def test_what_contradicts_itself(tmp_path, capsys, options, printed):
    root = rectangles(tmp_path / "data")
    assert main(["train", str(root), "--output", str(tmp_path / "run"), *options]) == 2
    assert printed in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
