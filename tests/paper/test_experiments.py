"""The tables' cells: settings that can be used, and the paper's figures."""

import pytest

from retinanet.config import recipes
from retinanet.model import RetinaNet
from retinanet.paper.experiments import EXPERIMENTS, FL
from retinanet.paper.grid import base_settings, changed, make_run
from retinanet.paper.paper_run import Plan


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("recipe_name", ["own", "paper-digits", "finetune-adamw"])
def test_every_cell_is_a_setting_of_training(name, recipe_name):
    experiment = EXPERIMENTS[name]
    settings = base_settings(experiment.recipe if recipe_name == "own" else recipe_name, "10", {})
    cells = experiment.cells(settings)
    found = [changed(settings, cell.settings) for cell in cells]
    keys = {make_run(settings, cell.settings, 0).key for cell in cells}
    assert len(keys) == len(cells) == len({str(f) for f in found})
    assert all(len(key) < 200 and "/" not in key for key in keys)
    assert len({tuple(cell.values) for cell in cells}) == 1  # one table


def test_tables_share_the_focal_loss():
    settings = base_settings("paper-digits", "10", {})
    wanted = make_run(settings, FL, 1)
    for name in ("table-1b", "table-1d", "table-3"):
        runs = [make_run(settings, cell.settings, 1) for cell in EXPERIMENTS[name].cells(settings)]
        assert wanted in runs


def test_tables_with_different_recipes_share_no_run(tmp_path):
    """Table 1d trains ResNet-101 and table 3 ResNet-50, with the same focal loss."""
    plan = Plan(tmp_path, data=tmp_path, seeds=2)
    tables = [{run.key for cell in plan.runs(EXPERIMENTS[name]) for run in cell} for name in ("table-1d", "table-3")]
    assert not tables[0] & tables[1]
    runs = plan.all_runs(["table-1d", "table-3", "table-1b"])
    assert len({run.key for run in runs}) == len(runs) == len({run.digest for run in runs})
    seeds = [run.settings.train.seed for run in runs]
    assert seeds == sorted(seeds)


def test_paper_rows_are_those_of_the_recipes():
    """The recipe of the paper is one of the cells: its own focal loss, anchors, depth and size."""
    settings = recipes.load("paper-r50-1x", None)
    assert any(changed(settings, c.settings) == settings for c in EXPERIMENTS["table-1e"].cells(settings))
    ablation = recipes.load("paper-ablation-r50-600", None)
    assert any(changed(ablation, c.settings) == ablation for c in EXPERIMENTS["table-1b"].cells(ablation))
    (cell,) = (c for c in EXPERIMENTS["table-1c"].cells(ablation) if c.values == {"scales": 3, "ratios": 3})
    own, made = ablation.model.anchors, changed(ablation, cell.settings).model.anchors
    assert made.ratios == own.ratios
    assert made.scales == pytest.approx(own.scales, abs=1e-6)


def test_second_best_model_of_table_2_is_another_backbone():
    settings = base_settings("paper-digits", "10", {})
    names = [changed(settings, c.settings).model.backbone for c in EXPERIMENTS["table-2"].cells(settings)]
    assert [(b.name, b.options) for b in names] == [("resnet101", {}), ("resnext101_32x8d", {})]


def test_depths_of_small_recipe_differ():
    settings = base_settings("paper-digits", "10", {})
    cells = EXPERIMENTS["table-1e"].cells(settings)
    sizes = [
        sum(p.numel() for p in RetinaNet(changed(settings, c.settings).model, 2).parameters())
        for c in (cells[0], cells[5])
    ]
    assert sizes[1] > 1.3 * sizes[0]


@pytest.mark.parametrize(("budget", "steps", "time"), [("300", 300, None), ("90s", None, "90s"), (None, 500, None)])
def test_budget_takes_the_place_of_the_recipes_length(budget, steps, time):
    train = base_settings("paper-digits", budget, {}).train
    assert (train.steps, train.budget) == (steps, time)
