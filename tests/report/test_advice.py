"""Each rule alone: what a run looks like to which it applies, and one to which it just does not."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retinanet.config.settings import (
    LossSettings,
    ModelSettings,
    PreprocessingSettings,
    Settings,
    TrainSettings,
    from_plain,
)
from retinanet.evaluation.confusion import Confusion
from retinanet.evaluation.pr_curves import Curves
from retinanet.evaluation.tide import KINDS, ErrorCosts
from retinanet.report.advice import RunFacts, reading

NOTHING = ["Nothing stands out. More images, or a larger backbone, are the usual next steps."]


def course(ap, class_loss=None):
    """Rows of metrics: 30 steps, evaluations evenly spread over them."""
    class_loss = class_loss or [0.5] * 30
    rows = [
        {"step": str(i), "class_loss": str(loss), "box_loss": "1", "AP": ""} for i, loss in enumerate(class_loss, 1)
    ]
    steps = np.linspace(0, 30, len(ap) + 1)[1:]
    return rows + [{"step": str(int(s)), "class_loss": "", "AP": str(value)} for s, value in zip(steps, ap)]


def facts(**changes):
    usual = RunFacts(
        folder=Path("runs/a"),
        data=Path("cells"),
        split="val",
        steps=30,
        seconds=100.0,
        stats={"AP": 0.5, "AP50": 0.7, "APs": 0.45, "APm": 0.5, "APl": 0.6},
        per_class=[{"name": "a", "AP": 0.5, "AP50": 0.7, "boxes": 100}, {"name": "b", "AP": 0.5, "boxes": 50}],
        metrics=course([0.4, 0.5, 0.5, 0.5, 0.5, 0.5]),
        choices=[],
        threshold=0.4,
        seconds_in={"data": 5.0, "forward": 40.0, "backward": 55.0},
        settings=Settings(train=TrainSettings(epochs=6)),
    )
    return dataclasses.replace(usual, **changes)


def errors(ap50=0.7, **cost):
    counts = dict.fromkeys(KINDS, 7)
    return ErrorCosts(ap50, counts, dict.fromkeys(KINDS, 0.0) | cost, 0.1, 0.1)


def confusion(**cells):
    matrix = np.diag([90, 40, 0])
    for name, number in cells.items():
        truth, found = ("abn".index(letter) for letter in name)
        matrix[truth, found] = number
    return Confusion(("a", "b"), matrix)


def curves(best_f1=0.7):
    line = np.linspace(0, 1, 3)
    return Curves([], line, line, line, line, 0.4, best_f1)


def read(facts_=None, errors_=None, confusion_=None, share=None, best_f1=0.7):
    coverage = None if share is None else SimpleNamespace(share=share)
    return reading(facts_ or facts(), curves(best_f1), errors_ or errors(), confusion_ or confusion(), coverage)


def with_settings(values, **changes):
    return facts(settings=from_plain(Settings, values), **changes)


def test_nothing_stands_out():
    assert read() == NOTHING
    assert read(share=0.95) == NOTHING


def test_no_truth():
    for ap in (-1.0, None, float("nan")):
        assert read(facts(stats={"AP": ap})) == [
            "The split val has no boxes, so nothing could be measured: give one with `--data.val`."
        ]


def test_nothing_was_found():
    said = read(facts(stats={"AP": 0.0}, metrics=course([0.0], [0.5] * 30)), errors(0.0), share=0.3, best_f1=0.0)
    assert said[0] == "Nothing was found right, so the numbers below say little."
    assert said[1].startswith("Only 30\u202f% of the boxes have an anchor")
    assert said[2].startswith("The class loss has hardly fallen (from 0.5 to 0.5): try another learning rate")
    assert "`--train.epochs 12`" in said[3]
    assert "`--model.backbone.weights imagenet`" in said[4]
    falling = facts(stats={"AP": 0.0}, metrics=course([0.0], [1 / i for i in range(1, 31)]))
    said = read(falling, errors(0.0), share=0.97, best_f1=0.0)
    assert not any("learning rate" in line or "anchor" in line for line in said)


@pytest.mark.parametrize(
    ("length", "advice"),
    [
        ({"epochs": 6.0}, "--train.epochs 12"),
        ({"steps": 300}, "--train.steps 600"),
        ({"budget": "1.5h"}, "--train.budget 3h"),
        ({"budget": "90s"}, "--train.budget 180s"),
        ({}, "--train.epochs 24"),
    ],
)
def test_ap_still_rose(length, advice):
    rising = facts(metrics=course([0.1, 0.2, 0.3, 0.4, 0.45, 0.5]), settings=Settings(train=TrainSettings(**length)))
    (line,) = read(rising)
    assert (
        line == f"AP still rose at the end, from 0.400 to 0.500 in the last third of the run: train longer, `{advice}`."
    )


def test_ap_that_rises_no_more():
    assert read(facts(metrics=course([0.1, 0.3, 0.45, 0.495, 0.5, 0.503]))) == NOTHING
    assert read(facts(metrics=course([0.1, 0.5]))) == NOTHING  # two points are no course


def test_learnt_by_heart():
    falling = [3 / i for i in range(1, 31)]
    (line,) = read(facts(metrics=course([0.3, 0.5, 0.48, 0.47, 0.46, 0.45], falling)))
    assert line.startswith("AP was highest at step 10 (0.500) and is 0.450 at the end, while the training loss went on")
    assert "`--data.augmentation.crop 0.5`" in line
    steep = [1.0] * 20 + [0.9**i for i in range(10)]
    (line,) = read(facts(metrics=course([0.3, 0.5, 0.5, 0.5, 0.5, 0.5], steep)))
    assert line.startswith("The class loss in training still fell by 61\u202f%")
    flat = [0.5] * 30
    assert read(facts(metrics=course([0.3, 0.5, 0.48, 0.47, 0.46, 0.45], flat))) == NOTHING


def test_missed_for_want_of_anchors():
    (line,) = read(errors_=errors(missed=0.2), share=0.7)
    assert line == (
        "Most is lost by objects not found at all: 7, worth 0.200 of AP50. Only 70\u202f% of the boxes have an anchor "
        "that may learn them: `retinanet data cells` proposes anchors and an image size that fit."
    )


def test_missed_because_small():
    stats = {"AP": 0.5, "APs": 0.1, "APm": 0.5, "APl": -1.0}
    (line,) = read(facts(stats=stats), errors(missed=0.2), share=0.95)
    for words in ("(APs 0.100)", "`--model.preprocessing.size 1200`", "`--model.anchors.first_level 2`"):
        assert words in line
    square = {"model": {"preprocessing": {"resize": "square", "size": 512}, "anchors": {"first_level": 2}}}
    (line,) = read(with_settings(square, stats=stats), errors(missed=0.2))
    assert "`--model.preprocessing.size 768`" in line
    assert "longer`" not in line
    assert "first_level" not in line


def test_missed_for_other_reasons():
    (line,) = read(errors_=errors(missed=0.2))
    assert "They look unlike what was learnt" in line


def test_location():
    (line,) = read(errors_=errors(location=0.1))
    assert "Most is lost by boxes that lie only roughly right" in line
    assert "`--loss.box giou`" in line
    (line,) = read(facts(settings=Settings(loss=LossSettings(box="giou"))), errors(location=0.1))
    assert "--loss.box" not in line


def test_class():
    (line,) = read(errors_=errors(**{"class": 0.1}), confusion_=confusion(ba=9, ab=2))
    assert "b is most often taken for a (9 times): more images of both" in line
    (line,) = read(errors_=errors(**{"class": 0.1}), confusion_=confusion(ba=2))
    assert "spread over many pairs" in line
    (line,) = read(errors_=errors(**{"class": 0.1}))
    assert "spread over many pairs" in line


def test_background():
    (line,) = read(errors_=errors(background=0.1), confusion_=confusion(nb=5, na=3))
    assert "Add images without any object" in line
    assert "most often as b (5 times at the best threshold)" in line
    (line,) = read(errors_=errors(background=0.1))
    assert "most often" not in line


def test_duplicate_and_both():
    (line,) = read(errors_=errors(duplicate=0.1))
    assert "`--model.postprocessing.nms_iou 0.4`" in line
    (line,) = read(errors_=errors(both=0.1))
    assert "train longer" in line


def test_only_what_costs_much_is_said():
    assert read(errors_=errors(location=0.02)) == NOTHING
    assert len(read(errors_=errors(location=0.2, missed=0.05))) == 1
    first, second = read(errors_=errors(location=0.2, missed=0.15))
    assert first.startswith("Most is lost by boxes that lie")
    assert second.startswith("Next most is lost by objects not found at all")


def test_anchors_are_said_once():
    said = read(errors_=errors(location=0.2), share=0.5)
    assert len(said) == 2
    assert said[1].startswith("Only 50\u202f% of the boxes")
    assert sum("have an anchor" in line for line in read(errors_=errors(missed=0.2), share=0.5)) == 1


def test_rare_classes():
    rows = [{"name": "a", "AP": 0.6, "boxes": 1000}, {"name": "b", "AP": 0.2, "boxes": 50}]
    (line,) = read(facts(per_class=rows))
    assert line.startswith("Rare classes do worse than the others: b (AP 0.200).")
    assert "`--data.repeat-threshold 0.1`" in line
    assert read(facts(per_class=[rows[0], rows[1] | {"AP": 0.5}])) == NOTHING  # rare, but good
    assert read(facts(per_class=[rows[0], rows[1] | {"boxes": 500}])) == NOTHING  # bad, but not rare
    assert read(facts(per_class=[rows[0], rows[1] | {"AP": None}])) == NOTHING
    (line,) = read(facts(per_class=[rows[0], *(rows[1] | {"name": name} for name in "bcdef")]))
    assert "b (AP 0.200), c (AP 0.200), d (AP 0.200) and 2 more" in line


def test_waiting_for_images():
    (line,) = read(facts(seconds_in={"data": 50.0, "forward": 50.0}))
    assert line.startswith("50\u202f% of the time (50\u202fs) went by waiting for images")
    assert "more of them with `--data.workers`" in line
    (line,) = read(with_settings({"data": {"workers": 3}}, seconds_in={"data": 50.0, "forward": 50.0}))
    assert "`--data.workers 6`" in line
    assert read(facts(seconds_in={"data": 29.0, "forward": 71.0})) == NOTHING
    assert read(facts(seconds_in={})) == NOTHING


def test_what_is_advised_can_be_set():
    """Every dotted name in the advice is a setting."""
    import re

    small = facts(
        stats={"AP": 0.5, "APs": 0.1, "APm": 0.5},
        seconds_in={"data": 9.0},
        per_class=[{"name": "a", "AP": 0.6, "boxes": 1000}, {"name": "b", "AP": 0.2, "boxes": 50}],
        metrics=course([0.1, 0.2, 0.3, 0.4, 0.45, 0.5]),
        settings=Settings(model=ModelSettings(preprocessing=PreprocessingSettings(size=600, longer=1000))),
    )
    lines = read(small, errors(missed=0.2, duplicate=0.2))
    lines += read(small, errors(location=0.2)) + read(facts(stats={"AP": 0.0}), errors(0.0), best_f1=0.0)
    lines += read(facts(metrics=course([0.3, 0.5, 0.48, 0.47, 0.46, 0.45], [3 / i for i in range(1, 31)])))
    named = {name.replace("-", "_") for line in lines for name in re.findall(r"`--([a-z0-9._-]+)", line)}
    assert len(named) >= 10
    for name in named:
        holder = Settings()
        for part in name.split("."):
            assert hasattr(holder, part), name
            holder = getattr(holder, part)
