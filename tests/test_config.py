"""The settings: plain values and back, messages of what cannot be used, and the options made from them."""

import dataclasses

import pytest

from retinanet.cli.options import given
from retinanet.config import Settings, SettingsError, from_plain, seconds, to_plain


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
    ("values", "message"),
    [
        ({"trian": {}}, "unknown setting 'trian'; did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "unknown setting 'train.epoch'; did you mean 'epochs'?"),
        ({"train": {"lr": "fast"}}, "train.lr must be a number, not 'fast'"),
        ({"train": {"batch_size": 1.5}}, "train.batch_size must be a whole number, not 1.5"),
        ({"train": {"lr": True}}, "train.lr must be a number, not True"),
        ({"train": {"optimizer": "adam"}}, "train.optimizer must be one of sgd, adamw, not 'adam'"),
        ({"train": []}, "train must be a mapping of names to values, not []"),
        ({"train": {"epochs": 1, "budget": "9m"}}, "give one of train.epochs, train.steps and train.budget, not "
         "epochs and budget together"),
        ({"train": {"budget": "soon"}}, "train.budget is a time such as 90s, 15m or 2h, not 'soon'"),
        ({"train": {"accumulate": 32}}, "train.accumulate must be from 1 to train.batch_size (16), not 32"),
        ({"train": {"patience": 0}}, "train.patience must be at least 1, not 0"),
        ({"train": {"eval_pictures": 0}}, "train.eval_pictures must be at least 1, not 0"),
        ({"train": {"warmup": -1}}, "train.warmup must be 0 or more, not -1"),
        ({"train": {"weight_decay": -0.1}}, "train.weight_decay must be 0 or more, not -0.1"),
        ({"loss": {"alphas": {"cat": 1.5}}}, "loss.alphas.cat must be in [0, 1], not 1.5"),
        ({"loss": {"alphas": {"cat": "many"}}}, "loss.alphas.cat must be a number, not 'many'"),
        ({"loss": {"alphas": 0.5}}, "loss.alphas must be a mapping of names to values, not 0.5"),
        ({"loss": {"class_weights": {"cat": -1}}}, "loss.class_weights.cat must be 0 or more, not -1.0"),
        ({"loss": {"class_weights": {"cat": float("inf")}}}, "loss.class_weights.cat must be 0 or more, not inf"),
        ({"loss": {"class_weights": {"cat": float("nan")}}}, "loss.class_weights.cat must be 0 or more, not nan"),
        ({"data": {"repeat_threshold": 2}}, "data.repeat_threshold is a share of the pictures, in [0, 1], not 2.0"),
        ({"data": {"workers": -2}}, "data.workers must be at least -1, not -2"),
        ({"model": {"anchors": {"sizes": [8] * 6}}}, "model.anchors.sizes has 6 numbers, but from P3 to P7 there are 5 "
         "levels"),
        ({"model": {"preprocessing": {"mean": [0.5]}}}, "model.preprocessing.mean needs 3 values, not 1"),
        ({"matching": {"foreground": 0.3}}, "matching needs 0 <= background <= foreground <= 1, not background 0.4 "
         "and foreground 0.3"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(values, message):
    with pytest.raises(SettingsError) as caught:
        from_plain(Settings, values)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("15m", 900), ("1.5h", 5400)])
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "-3m", "0s", "nan", "infh", "1d"])
def test_what_is_not_a_time(text):
    with pytest.raises(SettingsError, match="is a time such as 90s, 15m or 2h"):
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
