"""Settings as keyword arguments of Python functions, and the short names of frequent ones."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

from retinanet.common.device_names import training_devices
from retinanet.common.fields import SettingsError, name, shown
from retinanet.config.convert import dotted, merge, to_plain
from retinanet.config.settings import Settings, TrainSettings

SHORT = {
    "budget": "train.budget",
    "epochs": "train.epochs",
    "weights": "train.weights",
    "size": "model.preprocessing.size",
    "batch_size": "train.batch_size",
    "val": "data.val",
    "train": "data.train",
    "strict": "data.strict",
    "workers": "data.workers",
    "steps": "train.steps",
    "lr": "train.lr",
    "optimizer": "train.optimizer",
    "precision": "train.precision",
    "patience": "train.patience",
    "devices": "train.devices",
    "seed": "train.seed",
}
"""Frequent settings: short name -> dotted name. On the command line they are ``--batch-size`` and so on."""
SECTIONS = tuple(field.name for field in dataclasses.fields(Settings))
OF_TRAIN = {field.name: f"train.{field.name}" for field in dataclasses.fields(TrainSettings)}
"""The settings of the section ``train``, which need no section in a call of :func:`retinanet.train`."""
KEYWORDS = OF_TRAIN | SHORT
ELSEWHERE = {
    **{"imgsz": "size", "image_size": "size", "batch": "batch_size"},
    **{"lr0": "lr", "learning_rate": "lr", "gpus": "devices", "time": "budget"},
    **{"project": "output", "name": "output", "pretrained": "weights", "model_name": "model.backbone.name"},
}
"""Names that other packages use -> the names here. They are named in messages, and not taken."""


def of_keywords(values: Mapping[str, Any], others: Collection[str] = ()) -> dict[str, Any]:
    """Keyword arguments as the nested settings of a user.

    Args:
        values: by short names (``batch_size=8``), by names of the section ``train`` (``lr=1e-3``), as sections
            (``model={"head": {"depth": 2}}``), or by dotted names (``**{"model.backbone.name": "resnet18"}``).
        others: further arguments of the function, which a message may suggest.

    Raises:
        SettingsError: a name is unknown (the message names the nearest one), or a setting is given twice.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        for path, item in _named(key, value, others).items():
            if path in (before := dotted(result)) and before[path] != item:
                raise SettingsError(f"{path} is given twice: as {shown(before[path])} and as {shown(item)}")
            nested: Any = item
            for part in reversed(path.split(".")):
                nested = {part: nested}
            result = merge(result, nested)
    return result


def _named(key: str, value: Any, others: Collection[str]) -> dict[str, Any]:
    """One keyword argument as values by their dotted names."""
    if key in SECTIONS and (isinstance(value, Mapping) or dataclasses.is_dataclass(value)):
        values = value if isinstance(value, Mapping) else to_plain(value)
        return {path: _plain(item) for path, item in dotted(values, f"{key}.").items()}
    if key in KEYWORDS:
        return {KEYWORDS[key]: _text_of_devices(value) if key == "devices" else _plain(value)}
    if key == "device":  # "cpu", "cuda:1", 0, [0, 1]
        values = training_devices(str(_text_of_devices(value)))
        return {f"train.{setting}": item for setting, item in values.items()}
    if "." in key:
        return {key: _plain(value)}
    raise SettingsError(f"unknown argument {name(key)!r}{_hint(key, others)}")


def _plain(value: Any) -> Any:
    """A value in the types of YAML: paths become text, NumPy's numbers Python's."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value


def _text_of_devices(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else _plain(value)


def _hint(key: str, others: Collection[str]) -> str:
    """The end of a message: what the user may have meant."""
    if key in SECTIONS:
        return f": settings of {key} are given as a dict"
    leaves: dict[str, str] = {}
    for path in dotted(to_plain(Settings())):
        leaves.setdefault(path.rpartition(".")[2], path)
    known = {**leaves, **{short: short for short in (*KEYWORDS, *SECTIONS, *others)}, **ELSEWHERE}
    near = [key] if key in known else difflib.get_close_matches(key, known, n=1)
    if not near:
        return f"; known here: {', '.join([*others, *SHORT])}, and the sections {', '.join(SECTIONS)}"
    meant = known[near[0]]
    return f'; did you mean **{{"{meant}": ...}}?' if "." in meant else f"; did you mean {meant}?"
