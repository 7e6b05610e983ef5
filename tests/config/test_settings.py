"""The settings: plain values and back, messages of what cannot be used, and the options made from them."""

import dataclasses
import math
from typing import get_args, get_type_hints

import pytest

from retinanet.cli.options import given
from retinanet.common.fields import SettingsError, from_plain
from retinanet.config.convert import to_plain
from retinanet.config.model_settings import BackboneSettings, ModelSettings, PreprocessingSettings
from retinanet.config.settings import Settings, TrainSettings, seconds


def test_settings_survive_the_way_to_plain_values_and_back():
    changed = from_plain(
        Settings,
        {
            "model": {"backbone": {"name": "resnet18", "options": {"pad_type": "same"}}, "anchors": {"ratios": [1]}},
            "loss": {"alpha": None, "alphas": {"cat": 1}, "class_weights": {"dog": 0.5}},
            "train": {"budget": "15m", "devices": 2},
        },
    )
    assert changed.model.anchors.ratios == (1.0,)
    assert changed.train.devices == "2"
    assert from_plain(Settings, to_plain(changed)) == changed
    assert from_plain(Settings, to_plain(Settings())) == Settings()


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"trian": {}}, ("'trian'", "'train'")),
        ({"train": {"epoch": 3}}, ("'train.epoch'", "'epochs'")),
        ({"train": {"lr": "fast"}}, ("train.lr", "number", "'fast'")),
        ({"train": {"batch_size": 1.5}}, ("train.batch_size", "whole number", "1.5")),
        ({"train": {"lr": True}}, ("train.lr", "number", "True")),
        ({"train": {"optimizer": "adam"}}, ("train.optimizer", "one of sgd, adamw", "'adam'")),
        ({"train": []}, ("train", "mapping of names to values", "[]")),
        ({"train": {"epochs": 1, "budget": "9m"}}, ("train.epochs, train.steps and train.budget", "epochs and budget")),
        ({"train": {"budget": "soon"}}, ("train.budget", "90s", "'soon'")),
        ({"train": {"accumulate": 32}}, ("train.accumulate", "from 1 to train.batch_size (16)", "32")),
        ({"train": {"patience": 0}}, ("train.patience", "at least 1", "0")),
        ({"train": {"eval_images": 0}}, ("train.eval_images", "at least 1", "0")),
        ({"train": {"warmup": -1}}, ("train.warmup", "at least 0", "-1")),
        ({"train": {"weight_decay": -0.1}}, ("train.weight_decay", "at least 0", "-0.1")),
        ({"loss": {"alphas": {"cat": 1.5}}}, ("loss.alphas.cat", "in [0, 1]", "1.5")),
        ({"loss": {"alphas": {"cat": "many"}}}, ("loss.alphas.cat", "number", "'many'")),
        ({"loss": {"alphas": 0.5}}, ("loss.alphas", "mapping of names to values", "0.5")),
        ({"loss": {"class_weights": {"cat": -1}}}, ("loss.class_weights.cat", "at least 0", "-1.0")),
        ({"loss": {"class_weights": {"cat": float("inf")}}}, ("loss.class_weights.cat", "finite number", "inf")),
        ({"loss": {"class_weights": {"cat": float("nan")}}}, ("loss.class_weights.cat", "finite number", "nan")),
        ({"data": {"repeat_threshold": 2}}, ("data.repeat_threshold", "in [0, 1]", "2.0")),
        ({"data": {"workers": -2}}, ("data.workers", "at least -1", "-2")),
        ({"model": {"anchors": {"sizes": [8] * 6}}}, ("model.anchors.sizes", "6", "5 levels")),
        ({"model": {"preprocessing": {"mean": [0.5]}}}, ("model.preprocessing.mean", "3", "1")),
        ({"matching": {"foreground": 0.3}}, ("matching", "background 0.4 and foreground 0.3")),
    ],
)
def test_what_cannot_be_used_is_named(values, facts):
    with pytest.raises(SettingsError) as caught:
        from_plain(Settings, values)
    assert all(fact in str(caught.value) for fact in facts)


def sections(settings):
    yield settings
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(value := getattr(settings, field.name)):
            yield from sections(value)


def numbers(kind):
    """Field, its type (int or float), and how many it takes: None for one number, else the length of a tuple."""
    for name, hint in get_type_hints(kind).items():
        for inner in (hint, *get_args(hint)):
            if inner in (int, float):
                length = None if hint is inner or type(None) in get_args(hint) else len(get_args(hint))
                yield name, inner, length
                break


@pytest.mark.parametrize("section", list(sections(Settings())), ids=lambda section: type(section).__name__)
def test_every_number_is_finite_within_bounds_and_no_bool(section):
    """Made from Python, as much as read from a file."""
    kind = type(section)
    for name, number, length in numbers(kind):
        wrong = [math.nan, math.inf, -math.inf, True, "1", [1, [2]], None, 10**400]
        wrong += [10**30, 1.5] if number is int else [object()]
        for value in wrong:
            if value is None and type(None) in get_args(get_type_hints(kind)[name]):
                continue
            with pytest.raises(SettingsError) as caught:
                kind(**{name: value if length is None else (value,) * min(length, 3)})
            assert f"{kind.where}.{name}" in str(caught.value)
            assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TrainSettings(milestones=(5, -1)), "train.milestones[0]"),
        (lambda: TrainSettings(milestones=(0.5, -1)), "train.milestones[1]"),
        (lambda: TrainSettings(warmup_start=-3), "train.warmup_start"),
        (lambda: TrainSettings(lr=0), "train.lr"),
        (lambda: TrainSettings(budget=float("nan")), "train.budget"),
        (lambda: TrainSettings(optimizer=["sgd"]), "train.optimizer"),
        (lambda: TrainSettings(report="yes"), "train.report"),
        (lambda: PreprocessingSettings(mean=(0.5, math.nan, 0.5)), "model.preprocessing.mean[1]"),
        (lambda: PreprocessingSettings(size=10**6, longer=10**6), "model.preprocessing.size"),
        (lambda: PreprocessingSettings(multiple=32 * 10**6), "model.preprocessing.multiple"),
        (lambda: ModelSettings(head=3), "model.head"),
        (lambda: from_plain(Settings, {"model": {"head": {"depth": 10**6}}}), "model.head.depth"),
        (lambda: from_plain(Settings, {"model": {"head": {"width": 10**9}}}), "model.head.width"),
        (lambda: from_plain(Settings, {"model": {"pyramid": {"channels": 10**9}}}), "model.pyramid.channels"),
        (lambda: from_plain(Settings, {"model": {"anchors": {"scales": [1] * 10**6}}}), "model.anchors.scales"),
        (lambda: from_plain(Settings, {"loss": {"alphas": {1: {}}}}), "loss.alphas.1"),
        (lambda: BackboneSettings(options={"layers": [10**9, 3, 4, 6]}), "model.backbone.options.layers.0"),
        (lambda: BackboneSettings(options={"act_layer": print}), "model.backbone.options.act_layer"),
        (lambda: BackboneSettings(options={"a": [[[[[[1]]]]]]}), "nests them too deep"),
        (lambda: BackboneSettings(options={"a": [0] * 1000}), "too many values"),
        (lambda: BackboneSettings(name="hf-hub:somebody/resnet18"), "model.backbone.name"),
        (lambda: BackboneSettings(name="local-dir:/tmp/x"), "model.backbone.name"),
        (lambda: BackboneSettings(name=""), "model.backbone.name"),
        (lambda: BackboneSettings(weights="a\0b"), "model.backbone.weights"),
    ],
)
def test_what_is_out_of_bounds(make, named):
    with pytest.raises(SettingsError) as caught:
        make()
    assert named in str(caught.value)


def test_values_that_refer_to_themselves_end_in_a_line():
    """As YAML's aliases make them: a message shows some of them, and nothing follows them for ever."""
    laughs = ["ha"]
    for _ in range(100):
        laughs = [laughs, laughs]
    loop = []
    loop.append(loop)
    for value in (laughs, loop):
        for values in ({"train": {"lr": value}}, {"model": {"backbone": {"options": {"a": value}}}}, {"loss": value}):
            with pytest.raises(SettingsError) as caught:
                from_plain(Settings, values)
            assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("3m", 180)])
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "s",
        "3 x",
        "3d",
        "soon",
        "nanm",
        "infs",
        "-3m",
        "0s",
        "nan",
        "infh",
        "1d",
        "1e9h",
        "1e2s",
        "9999999999h",
        "٣m",
        "1_0s",
        " 9s",
    ],
)
def test_what_is_not_a_time(text):
    with pytest.raises(SettingsError, match="90s, 15m or 2h"):
        seconds(text)


def test_every_setting_says_what_it_is_for_or_is_plain_from_its_name():
    """The options of the command line are these fields, one to one."""

    def leaves(kind, where=""):
        hints = kind.__annotations__
        for field in dataclasses.fields(kind):
            value = field.default_factory() if field.default is dataclasses.MISSING else field.default
            yield from (
                leaves(type(value), f"{where}{field.name}.")
                if dataclasses.is_dataclass(value)
                else ([where + field.name] if field.name in hints else [])
            )

    def options(kind, where=""):
        for name, hint in kind.__annotations__.items():
            inner = hint.__origin__
            yield from options(inner, f"{where}{name}.") if hasattr(inner, "__total__") else [where + name]

    assert list(options(given(Settings))) == list(leaves(Settings))
