"""Settings to and from plain values, nested or by dotted names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from retinanet.common.fields import from_plain
from retinanet.config.model_settings import ModelSettings
from retinanet.config.settings import LENGTHS, Settings

FREE = ("model.backbone.options", "loss.alphas", "loss.class_weights")
"""Mappings whose keys are the user's own names."""


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as nested dicts and lists, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    result: dict[str, Any] = plain(dataclasses.asdict(settings))
    return result


def dotted(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested values as one dict of dotted names. Mappings with the user's own keys (``FREE``) stay values."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if isinstance(value, Mapping) and value and name not in FREE:
            result.update(dotted(value, f"{name}."))
        else:
            result[name] = value
    return result


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy of ``settings`` with ``values``, given by dotted names; a new length of the run replaces the old one."""
    plain = to_plain(settings)
    for name, value in values.items():
        *parents, last = name.split(".")
        section = plain
        for parent in parents:
            section = section[parent]
        if parents == ["train"] and last in LENGTHS:
            section.update(dict.fromkeys(LENGTHS))
        section[last] = value
    return from_plain(Settings, plain)


def overlaid(settings: ModelSettings, given: Mapping[str, Any]) -> ModelSettings:
    """A copy of ``settings`` in which the nested values ``given`` replace others.

    Raises:
        SettingsError: a given value is unknown or out of its range.
    """
    return from_plain(ModelSettings, merge(to_plain(settings), given), "model") if given else settings


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of both; where both have a name, the value of ``over`` counts."""
    result = dict(under)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merge(known, value) if isinstance(value, Mapping) and isinstance(known, Mapping) else value
    return result
