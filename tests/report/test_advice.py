"""Each rule alone: what a run looks like to which it applies, and one to which it just does not."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retinanet.common.fields import from_plain
from retinanet.config.keyword_settings import SHORT
from retinanet.config.model_settings import ModelSettings, PreprocessingSettings
from retinanet.config.settings import LossSettings, Settings, TrainSettings
from retinanet.evaluation.confusion import Confusion
from retinanet.evaluation.pr_curves import Curves
from retinanet.evaluation.tide import KINDS, ErrorCosts
from retinanet.report.advice import advise
from retinanet.report.run_facts import RunFacts

NOTHING = ["No single problem stands out. The usual next steps are more images or a larger backbone."]


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
        source=Path("cells"),
        steps=30,
        seconds=100.0,
        seconds_in={"data": 5.0, "forward": 40.0, "backward": 55.0},
        settings=Settings(train=TrainSettings(epochs=6)),
        choices=[],
        metrics=course([0.4, 0.5, 0.5, 0.5, 0.5, 0.5]),
        stats={"AP": 0.5, "AP50": 0.7, "APs": 0.45, "APm": 0.5, "APl": 0.6},
        per_class=[{"name": "a", "AP": 0.5, "AP50": 0.7, "boxes": 100}, {"name": "b", "AP": 0.5, "boxes": 50}],
        data=SimpleNamespace(split="val"),
        detections={},
        curves=curves(),
        errors=errors(),
        confusion=confusion(),
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
    given = {"errors": errors_, "confusion": confusion_, "coverage": share and SimpleNamespace(share=share)}
    changes = {name: value for name, value in given.items() if value is not None}
    return advise(dataclasses.replace(facts_ or facts(), curves=curves(best_f1), **changes))


def with_settings(values, **changes):
    return facts(settings=from_plain(Settings, values), **changes)


def test_nothing_stands_out():
    assert read() == NOTHING
    assert read(share=0.95) == NOTHING


def test_no_truth():
    for ap in (-1.0, None, float("nan")):
        (line,) = read(facts(stats={"AP": ap}))
        assert "split val has no boxes" in line
        assert "`--data.val`" in line


def test_no_detection_is_right():
    said = read(facts(stats={"AP": 0.0}, metrics=course([0.0], [0.5] * 30)), errors(0.0), share=0.3, best_f1=0.0)
    assert "No detection is right" in said[0]
    assert "Only 30\u202f% of the boxes" in said[1]
    assert re.search(r"from 0.5 to 0.5.* learning rate: `--train.lr", said[2])
    assert "`--train.epochs 12`" in said[3]
    assert "`--train.weights imagenet`" in said[4]
    why = "from scratch: 2 classes from 9 images"
    said = read(facts(stats={"AP": 0.0}, start=why), errors(0.0), best_f1=0.0)
    assert said[-1] == "The run started from scratch: 2 classes from 9 images."
    hardly = facts(
        stats={"AP": 0.001}, per_class=[{"name": "a", "AP": 0.01, "boxes": 100}, {"name": "b", "AP": 0.0, "boxes": 3}]
    )
    said = read(hardly, errors(0.01, **{"class": 0.3}), best_f1=0.01)
    assert "Hardly any detection is right" in said[0]
    assert not any("costly" in line or "Rare" in line for line in said)
    falling = facts(stats={"AP": 0.0}, metrics=course([0.0], [1 / i for i in range(1, 31)]))
    said = read(falling, errors(0.0), share=0.97, best_f1=0.0)
    assert not any("learning rate" in line or "anchor" in line for line in said)


@pytest.mark.parametrize(
    ("length", "advice"),
    [
        ({"epochs": 6.0}, "--train.epochs 12"),
        ({"steps": 30}, "--train.steps 60"),
        ({"budget": "1.5h"}, "--train.budget 3h"),
        ({"budget": "90s"}, "--train.budget 3m"),
        ({"budget": "40s"}, "--train.budget 80s"),
        ({"budget": "70m"}, "--train.budget 2.5h"),
        ({}, "--train.epochs 24"),
    ],
)
def test_ap_was_still_rising(length, advice):
    rising = facts(metrics=course([0.1, 0.2, 0.3, 0.4, 0.45, 0.5]), settings=Settings(train=TrainSettings(**length)))
    (line,) = read(rising)
    assert re.search(rf"AP was still rising.*from 0.400 to 0.500 .*`{advice}`", line)


@pytest.mark.parametrize(
    ("length", "steps", "needed", "words", "advice"),
    [
        ({"budget": "2m"}, 68, 1000, "made 68 steps in its budget of 2m", "--train.budget 30m"),
        ({"budget": "60s"}, 1, 1000, "made 1 step in its budget of 60s", "--train.budget 20h"),
        ({"budget": "2m"}, 800, 1000, "made 800 steps in its budget of 2m", "--train.budget 4m"),
        ({"steps": 68}, 68, 1000, "made 68 steps, as planned", "--train.steps 1000"),
        ({"steps": 68}, 68, 100, "made 68 steps, as planned", "--train.steps 136"),
        ({"epochs": 2}, 68, 1000, "made 68 steps", "--train.epochs 30"),
        ({"steps": 5000}, 68, 1000, "stopped after 68 of 5\u202f000 planned steps", "--resume runs/a"),
    ],
)
def test_the_steps_made_and_needed_come_first(length, steps, needed, words, advice):
    short = facts(steps=steps, steps_needed=needed, settings=Settings(train=TrainSettings(**length)))
    first, second = read(short, errors(location=0.1))
    assert words in first
    assert re.search(rf"2 classes need about {needed:,} steps".replace(",", "\u202f"), first)
    assert advice in first
    assert "Train longer" not in second  # once is enough
    hardly = read(short, errors(0.0), best_f1=0.0)
    assert hardly[0] == first
    assert "No detection is right" in hardly[1]


def test_a_run_of_enough_steps_or_with_patience_is_not_called_short():
    enough = facts(steps=1000, steps_needed=1000, settings=Settings(train=TrainSettings(steps=1000)))
    assert read(enough) == NOTHING
    early = TrainSettings(steps=5000, patience=3)
    assert read(facts(steps=1000, steps_needed=1000, settings=Settings(train=early))) == NOTHING
    rows = [row | {"epoch": str(int(row["step"]) / 10)} for row in course([0.4, 0.5, 0.5, 0.5])]
    (line,) = read(facts(metrics=rows))  # 3 of 6 epochs
    assert re.search(r"stopped after 30 of 60 planned steps \(3 epochs\)", line)
    assert "`retinanet train --resume runs/a`" in line


def test_ap_that_no_longer_rises():
    assert read(facts(metrics=course([0.1, 0.3, 0.45, 0.495, 0.5, 0.503]))) == NOTHING
    assert read(facts(metrics=course([0.5]))) == NOTHING  # one point is no course
    assert len(read(facts(metrics=course([0.1, 0.5])))) == 1


def test_overfitting():
    falling = [3 / i for i in range(1, 31)]
    (line,) = read(facts(metrics=course([0.3, 0.5, 0.48, 0.47, 0.46, 0.45], falling)))
    assert re.search(r"overfits.*step 10 \(0.500\).*0.450 at the end", line)
    assert "`--data.augmentation.crop 0.5`" in line
    steep = [1.0] * 20 + [0.9**i for i in range(10)]
    (line,) = read(facts(metrics=course([0.3, 0.5, 0.5, 0.5, 0.5, 0.5], steep)))
    assert re.search(r"overfits.*class loss fell by 61\u202f%", line)
    flat = [0.5] * 30
    assert read(facts(metrics=course([0.3, 0.5, 0.48, 0.47, 0.46, 0.45], flat))) == NOTHING


def test_missed_without_anchors():
    (line,) = read(errors_=errors(missed=0.2), share=0.7)
    assert re.search(
        r"missed objects.*: 7 at the score threshold 0.40\. Without them AP50 would be 0.200 higher\. "
        r"Only 70\u202f% of the boxes.*`retinanet data cells`",
        line,
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
    assert "Label more images" in line


def test_location():
    (line,) = read(errors_=errors(location=0.1))
    assert "inaccurate box: 7 at the score threshold 0.40. Without them AP50 would be 0.100 higher." in line
    assert "`--loss.box giou`" in line
    (line,) = read(facts(settings=Settings(loss=LossSettings(box="giou"))), errors(location=0.1))
    assert "--loss.box" not in line


def test_class():
    (line,) = read(errors_=errors(**{"class": 0.1}), confusion_=confusion(ba=9, ab=2))
    assert "b is detected as a (9 times)" in line
    (line,) = read(errors_=errors(**{"class": 0.1}), confusion_=confusion(ba=2))
    assert "spread over many pairs" in line
    (line,) = read(errors_=errors(**{"class": 0.1}))
    assert "spread over many pairs" in line


def test_background():
    (line,) = read(errors_=errors(background=0.1), confusion_=confusion(nb=5, na=3))
    assert "Add images without objects" in line
    assert "Most detections that match no object are b." in line
    (line,) = read(errors_=errors(background=0.1))
    assert "match no object" not in line


def test_duplicate_and_both():
    (line,) = read(errors_=errors(duplicate=0.1))
    assert "`--model.postprocessing.nms_iou 0.4`" in line
    (line,) = read(errors_=errors(both=0.1))
    assert "--train.epochs 12" in line


def test_only_costly_errors_are_mentioned():
    assert read(errors_=errors(location=0.02)) == NOTHING
    assert len(read(errors_=errors(location=0.2, missed=0.05))) == 1
    first, second = read(errors_=errors(location=0.2, missed=0.15))
    assert re.match("The most costly errors .*inaccurate box", first)
    assert re.match("The next most costly errors .*missed objects", second)


def test_anchors_are_mentioned_once():
    said = read(errors_=errors(location=0.2), share=0.5)
    assert len(said) == 2
    assert said[1].startswith("Only 50\u202f% of the boxes")
    assert sum("proposes anchors" in line for line in read(errors_=errors(missed=0.2), share=0.5)) == 1


def test_rare_classes():
    rows = [{"name": "a", "AP": 0.6, "boxes": 1000}, {"name": "b", "AP": 0.2, "boxes": 50}]
    (line,) = read(facts(per_class=rows))
    assert re.match(r"Rare classes .*: b \(AP 0.200\)\.", line)
    assert "`--data.repeat-threshold 0.1`" in line
    assert read(facts(per_class=[rows[0], rows[1] | {"AP": 0.5}])) == NOTHING  # rare, but good
    assert read(facts(per_class=[rows[0], rows[1] | {"boxes": 500}])) == NOTHING  # bad, but not rare
    assert read(facts(per_class=[rows[0], rows[1] | {"AP": None}])) == NOTHING
    (line,) = read(facts(per_class=[rows[0], *(rows[1] | {"name": name} for name in "bcdef")]))
    assert "b (AP 0.200), c (AP 0.200), d (AP 0.200) and 2 more" in line


def test_waiting_for_images():
    (line,) = read(facts(seconds_in={"data": 50.0, "forward": 50.0}))
    assert re.search(r"50\u202f% of its time \(50\u202fs\) waiting for images.*`--data.workers`", line)
    (line,) = read(with_settings({"data": {"workers": 3}}, seconds_in={"data": 50.0, "forward": 50.0}))
    assert "`--data.workers 6`" in line
    assert read(facts(seconds_in={"data": 29.0, "forward": 71.0})) == NOTHING
    assert read(facts(seconds_in={})) == NOTHING


def test_what_is_advised_can_be_set():
    """Every option in the advice is a setting, by its dotted name or by its short one."""
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
        for part in SHORT.get(name, name).split("."):
            assert hasattr(holder, part), name
            holder = getattr(holder, part)
