"""Chooses what a run starts from: a trained detector, a pretrained backbone, or new weights; and says why in one line.

``train.weights`` "auto" takes the best that this machine can have and afford: weights trained on COCO, else ImageNet
weights of a backbone, from the network or from the cache, else new weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import NamedTuple

from retinanet.checkpoints.foreign import torchvision
from retinanet.checkpoints.pretrained_weights import COCO, PretrainedWeights
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.config.convert import changed
from retinanet.config.settings import LENGTHS, Settings
from retinanet.data import DetectionData
from retinanet.training import network_choice
from retinanet.training.network_choice import NETWORK_SETTINGS, TRAINING_SHARE
from retinanet.training.step_cost import Machine

SCALE = 4  # on a CPU a trial of the COCO detector takes images of a quarter of the sides: a sixteenth of the time
LONGEST = 3600.0  # seconds that training from COCO weights may take where the user gives no length
FEW = 20  # training images for each class; with fewer, training from scratch is hopeless
BETTER = "give --weights FILE, or run once with a network"


class Start(NamedTuple):
    """What a run starts from."""

    weights: str
    """``COCO``, "imagenet", "none", or the source that the user gave."""
    text: str
    """One line: which start, why, and how to get a better one."""


class Finder:
    """Finds the start of one run with fitted settings.

    Args:
        settings: those of the run as far as they are known.
        fixed: names of the settings that the user gave.
        budget: seconds, if the run has a budget.
    """

    def __init__(
        self,
        settings: Settings,
        fixed: Collection[str],
        data: DetectionData,
        budget: float | None,
        sources: PretrainedWeights,
        here: Machine,
    ) -> None:
        self.settings, self.fixed, self.data, self.budget = settings, fixed, data, budget
        self.sources, self.here = sources, here
        self.reasons: list[str] = []
        """Why better starts were left out."""

    def coco(self, batch: int, wanted: int) -> Start | None:
        """The start from COCO weights, downloaded, or None with a reason in ``reasons``.

        Args:
            batch, wanted: images of a step, and steps that such a run needs.
        """
        if given := next((name for name in self.fixed if name.startswith(NETWORK_SETTINGS)), None):
            self.reasons.append(f"COCO weights do not fit to {given}")
            return None
        if not self.sources.available(COCO):
            return None
        seconds = self._seconds_from_coco(batch)
        if seconds is None or seconds * wanted > (LONGEST if self.budget is None else TRAINING_SHARE * self.budget):
            why = "do not fit into memory" if seconds is None else f"would take {seconds:.2g} s a step here"
            self.reasons.append(f"COCO weights ({COCO}) {why}")
            return None
        try:
            origin = self.sources.obtain(COCO)
        except (WorkError, RequestError) as error:
            self.reasons.append(first_line(error))
            return None
        return Start(COCO, f"COCO weights, {COCO} ({origin}): backbone, pyramid and heads are trained already")

    def _seconds_from_coco(self, batch: int) -> float | None:
        """Seconds of a step of the COCO detector; None if it does not fit into memory."""
        model = torchvision.settings("v2")
        sides = self.settings.model.preprocessing if self._given("model.preprocessing.") else model.preprocessing
        scale = SCALE if self.here.device.type == "cpu" else 1  # a GPU takes nearly as long for small images
        small = dataclasses.replace(
            model.preprocessing, size=max(32, sides.size // scale), longer=max(32, sides.longer // scale)
        )
        candidate = dataclasses.replace(self.settings, model=dataclasses.replace(model, preprocessing=small))
        full = dataclasses.replace(small, size=sides.size, longer=sides.longer)
        cost = network_choice.measure(candidate, self.data, self.here)
        if cost is None:
            return None
        whole = dataclasses.replace(candidate, model=dataclasses.replace(model, preprocessing=full))
        here, there = (network_choice.common_shape(self.data, settings) for settings in (candidate, whole))
        return cost.seconds * batch * there[0] * there[1] / (here[0] * here[1])

    def backbones(self) -> list[str]:
        """Backbones whose ImageNet weights can be had, the largest first."""
        if self._given("model.backbone.options"):
            self.reasons.append("pretrained weights do not fit to model.backbone.options")
            return []
        own = self.settings.model.backbone.name
        known = network_choice.ON_GPU if self.here.device.type == "cuda" else network_choice.ON_CPU
        names: Sequence[str] = [own] if self._given(*NETWORK_SETTINGS) else known
        return [name for name in names if self.sources.available(name)]

    def imagenet(self, backbone: str) -> Start | None:
        """The start from ImageNet weights, downloaded, or None with a reason in ``reasons``."""
        try:
            origin = self.sources.obtain(backbone)
        except (WorkError, RequestError) as error:
            self.reasons.append(first_line(error))
            return None
        return Start("imagenet", "; ".join([f"ImageNet weights of {backbone} ({origin})", *self.reasons]))

    def no_imagenet(self) -> str:
        """The line that says why there are no ImageNet weights."""
        why = self.reasons or [self.sources.offline] * bool(self.sources.offline) or ["no known backbone has them"]
        return f"there are no ImageNet weights to start from: {'; '.join(why)}; {BETTER}"

    def scratch(self) -> Start:
        """The start from new weights, because nothing better was found."""
        reasons = list(self.reasons)
        if self.sources.offline:
            reasons.insert(0, f"{self.sources.offline} and nothing cached")
        return Start("none", scratch_text("; ".join(reasons) or "no pretrained weights fit", self.data, BETTER))

    def _given(self, *beginnings: str) -> bool:
        return any(name.startswith(beginnings) for name in self.fixed)


def scratch_text(why: str, data: DetectionData, remedy: str) -> str:
    """The line about a start from new weights."""
    classes, images = len(data.class_names), len(data)
    number = f"{classes} class{'es' * (classes != 1)} from {images} images"
    hope = f"{number} will hardly be learnt" if images < FEW * classes else f"{number} take longer to be learnt"
    return f"from scratch: {why}; {hope}: {remedy}"


def given_start(settings: Settings, data: DetectionData, twin: str | None = None) -> Start:
    """The start that the settings themselves name.

    Args:
        twin: another timm model that has the same tensors as the backbone's file.
    """
    source, backbone = settings.train.weights, settings.model.backbone
    if source != "none":
        return Start(source, f"weights of the detector {source}")
    if backbone.weights == "none":
        remedy = "leave out --weights none, or give --weights FILE"
        return Start("none", scratch_text("the settings say so", data, remedy))
    where = "ImageNet weights" if backbone.weights == "imagenet" else f"the weights in {backbone.weights}"
    text = f"{where}, of the backbone {backbone.name}; pyramid and heads are new"
    if twin is not None:
        text += f"; {twin} has the same tensors: if the file is of that, give --model.backbone.name {twin}"
    return Start("none", text)


def resolved(settings: Settings, data: DetectionData, sources: PretrainedWeights) -> tuple[Settings, Start]:
    """Settings whose ``train.weights`` is no keyword any more, and the start, for a run whose settings are not fitted.

    Raises:
        WorkError: the weights that the settings ask for can be had neither from the cache nor from a network.
    """
    keyword, name = settings.train.weights, settings.model.backbone.name
    if keyword == "coco":
        settings = changed(settings, {"train.weights": COCO})
    if keyword not in ("auto", "imagenet"):
        return settings, given_start(settings, data)
    with_weights = {"train.weights": "none", "model.backbone.weights": "imagenet"}
    if keyword == "imagenet":
        return changed(settings, with_weights), Start(
            "imagenet", f"ImageNet weights of {name} ({sources.obtain(name)})"
        )
    if not settings.model.backbone.options and sources.available(name):
        try:
            origin = sources.obtain(name)
            return changed(settings, with_weights), Start("imagenet", f"ImageNet weights of {name} ({origin})")
        except (WorkError, RequestError) as error:
            why = first_line(error)
    else:
        why = f"{sources.offline} and nothing cached" if sources.offline else "no pretrained weights fit the backbone"
    return changed(settings, {"train.weights": "none"}), Start("none", scratch_text(why, data, BETTER))


def length_given(fixed: Collection[str]) -> bool:
    """Whether the user gave the length of the run."""
    return any(f"train.{name}" in fixed for name in LENGTHS)
