"""Settings by keyword arguments: the ways to name one, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from retinanet.common.fields import SettingsError
from retinanet.config.convert import dotted
from retinanet.config.keyword_settings import of_keywords
from retinanet.config.settings import LossSettings


def test_the_ways_to_name_a_setting():
    given = of_keywords(
        {
            "batch_size": np.int64(8),  # short
            "size": 320,
            "clip": 1.0,  # of the section train
            "weights": Path("runs") / "a",
            "val": "test",
            "devices": [0, 1],
            "model": {"head": {"depth": 2}},  # a section
            "train": {"lr": 0.1},
            "model.backbone.name": "resnet18",  # dotted
            "loss.alphas": {"a cat": 0.5},
        }
    )
    assert given == {
        "train": {"batch_size": 8, "clip": 1.0, "weights": str(Path("runs/a")), "devices": "0,1", "lr": 0.1},
        "data": {"val": "test"},
        "model": {"preprocessing": {"size": 320}, "head": {"depth": 2}, "backbone": {"name": "resnet18"}},
        "loss": {"alphas": {"a cat": 0.5}},
    }
    assert type(given["train"]["batch_size"]) is int


def test_train_is_a_section_or_the_name_of_a_split():
    assert of_keywords({"train": "trainval"}) == {"data": {"train": "trainval"}}
    assert of_keywords({"train": {"seed": 3}}) == {"train": {"seed": 3}}


def test_a_section_as_its_dataclass_is_given_whole():
    given = dotted(of_keywords({"loss": LossSettings(gamma=1.0)}))
    assert given["loss.gamma"] == 1.0
    assert given["loss.alpha"] == 0.25


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("bach_size", "batch_size"),
        ("imgsz", "size"),
        ("lr0", "lr"),
        ("outptu", "output"),
        ("gamma", '**{"loss.gamma": ...}'),
        ("frozen_stage", '**{"model.backbone.frozen_stages": ...}'),
        ("model", "as a dict"),
        ("xyzzy", "known here"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, meant):
    with pytest.raises(SettingsError) as caught:
        of_keywords({name: 1}, ["output"])
    assert meant in str(caught.value)
    assert repr(name) in str(caught.value) or name in str(caught.value)


@pytest.mark.parametrize(
    ("device", "accelerator", "devices"),
    [("cpu", "cpu", "auto"), (0, "cuda", "0,"), ([0, 1], "cuda", "0,1,"), ("mps", "mps", "auto")],
)
def test_a_device(device, accelerator, devices):
    assert of_keywords({"device": device}) == {"train": {"accelerator": accelerator, "devices": devices}}


def test_a_setting_given_twice():
    with pytest.raises(SettingsError, match=r"train\.lr is given twice: as 0\.1 and as 0\.2"):
        of_keywords({"train": {"lr": 0.1}, "lr": 0.2})
    assert of_keywords({"train": {"lr": 0.1}, "lr": 0.1}) == {"train": {"lr": 0.1}}
