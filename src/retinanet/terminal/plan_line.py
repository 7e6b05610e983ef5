"""What a run will do, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retinanet.terminal.console import clock

if TYPE_CHECKING:
    from retinanet.analysis.anchor_fit import Choice
    from retinanet.config.settings import Settings
    from retinanet.training.events import Started


def plan_line(event: Started, choices: Sequence[Choice] = ()) -> str:
    """The network, the image size, the anchors, the batches, the length and the device of a run."""
    settings, train = event.settings, event.settings.train
    anchors, first, *rest = settings.model.anchors, *settings.model.anchors.levels
    levels = f"P{first} to P{rest[-1]}" if rest else f"P{first}"
    processes = f", {event.processes} processes" if event.processes > 1 else ""
    parts = [
        _network(settings, {choice.setting: choice.value for choice in choices}),
        _size(settings),
        f"{anchors.per_position} anchors a position on {levels}",
        f"batches of {train.batch_size}",
        f"{_length(event)} on {event.device} in {event.precision}{processes}",
    ]
    return f"plan: {', '.join(parts)}"


def _network(settings: Settings, chosen: Mapping[str, Any]) -> str:
    if "model" in chosen:
        return str(chosen["model"])
    return f"{settings.model.backbone.name}, {settings.model.pyramid.channels} channels"


def _size(settings: Settings) -> str:
    preprocessing = settings.model.preprocessing
    if preprocessing.resize == "none":
        return "images as they are"
    if preprocessing.resize == "square":
        return f"{preprocessing.size} x {preprocessing.size} px"
    return f"{preprocessing.size} x {preprocessing.longer} px"


def _length(event: Started) -> str:
    resumed = f" from step {event.step}" if event.step else ""
    if event.budget is not None:
        return f"{clock(event.budget)}{resumed}"
    steps = event.steps or 0
    epochs = steps * event.settings.train.batch_size / max(1, event.images)
    return f"{steps} step{'s' * (steps != 1)} ({epochs:.3g} epochs){resumed}"
