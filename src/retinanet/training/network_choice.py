"""Chooses a network by what a step of training costs on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from retinanet.analysis.anchor_fit import Choice
from retinanet.common.devices import release_memory
from retinanet.common.errors import RequestError
from retinanet.config.convert import changed, dotted
from retinanet.config.model_settings import BackboneSettings
from retinanet.config.settings import Settings
from retinanet.data import DetectionData
from retinanet.model.backbone import Backbone
from retinanet.ops.resize import padded_size, resized_size
from retinanet.training import step_cost
from retinanet.training.step_cost import Machine

NETWORK_SETTINGS = ("model.backbone.", "model.pyramid.", "model.head.")
TRAINING_SHARE = 0.85  # of a budget; the rest is for opening the data, trials and evaluations


@dataclass(frozen=True)
class Network:
    """A size of network. A larger one learns more from each step; a smaller one makes more steps."""

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    lr: float
    """Learning rate of AdamW for ``OBJECTS`` or more in a step; experiments for the recipes gave it."""
    backbone_lr: float = 1.0
    """Factor on it for the backbone."""

    @property
    def backbone(self) -> str:
        return str(self.settings["backbone"]["name"])


def _network(name: str, backbone: str, options: Mapping[str, Any], channels: int, depth: int, lr: float) -> Network:
    settings = {
        "backbone": {"name": backbone, "options": options},
        "pyramid": {"channels": channels},
        "head": {"depth": depth, "width": channels},
    }
    return Network(name, settings, lr)


LIGHT = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}
NETWORKS = (
    _network("ResNet-50, 256 channels", "resnet50", {}, 256, 4, 5e-4),
    _network("ResNet-18, 128 channels", "resnet18", {}, 128, 2, 1e-3),
    _network("half a ResNet-18, 64 channels", "resnet18", LIGHT, 64, 2, 2e-3),
)
"""From scratch, the largest first."""
NECKS = ((256, 4, 5e-4), (128, 2, 1e-3), (64, 2, 2e-3))
"""Channels of pyramid and heads, depth of the heads, and learning rate beside a pretrained backbone."""
BACKBONE_LR = 0.3  # pretrained weights change less than new layers
FROZEN = 8  # stride up to which stages are frozen: they are general, and without their gradients a step is cheaper
ON_GPU, ON_CPU = ("resnet50", "resnet18", "mobilenetv2_100"), ("resnet18", "mobilenetv2_100")
"""Backbones with ImageNet weights, the largest first."""


def pretrained_networks(backbone: str, weights: str, device: str, only_backbone: bool = False) -> list[Network]:
    """Networks of a pretrained backbone, the largest first.

    Args:
        weights: "imagenet", or the path of a weight file.
        only_backbone: keep pyramid and heads as they are.
    """
    own = {"name": backbone, "weights": weights, "options": {}, "frozen_norm": True, "frozen_stages": _frozen(backbone)}
    if only_backbone:
        return [Network(f"{backbone}, pyramid and heads as given", {"backbone": own}, 1e-3, BACKBONE_LR)]
    return [
        Network(
            f"{backbone} with pretrained weights, {channels} channels",
            {
                "backbone": own,
                "pyramid": {"channels": channels},
                "head": {"depth": depth, "width": channels},
            },
            lr,
            BACKBONE_LR,
        )
        for channels, depth, lr in (NECKS if device == "cuda" else NECKS[1:])
    ]


def _frozen(backbone: str) -> int:
    """The number of leading stages to freeze: those up to the stride ``FROZEN``."""
    with torch.device("meta"):
        body = Backbone(BackboneSettings(name=backbone), load_weights=False).body
        count = sum(stride <= FROZEN for stride in body.feature_info.reduction())
        try:
            Backbone(BackboneSettings(name=backbone, frozen_stages=count), load_weights=False)
        except RequestError:  # a stage that is no module of its own
            return 0
    return count


def imagenet_networks(backbones: Sequence[str], device: str) -> list[Network]:
    """One network for each of the backbones ``ON_GPU``, or ``ON_CPU``, that is among ``backbones``."""
    known = ON_GPU if device == "cuda" else ON_CPU
    necks = dict(zip(ON_GPU, (256, 128, 64)))
    return [
        network
        for backbone in known
        if backbone in backbones
        for network in pretrained_networks(backbone, "imagenet", "cuda")
        if network.settings["pyramid"]["channels"] == necks[backbone]
    ]


def choose_network(
    networks: Sequence[Network],
    settings: Settings,
    fixed: set[str],
    data: DetectionData,
    budget: float | None,
    wanted: int,
    here: Machine,
) -> tuple[Settings, step_cost.Cost | None, Network | None, Choice | None]:
    """The largest network that makes the wanted steps in the budget, or else the smallest one.

    Args:
        networks: the largest first.
        fixed: names of the settings that the user gave, which stay.
        budget: seconds.

    Returns:
        Settings with the network, the cost of an image, the network, and the reason. If no network fits into memory,
        there is only ``settings``.
    """
    batch = settings.train.batch_size
    for network in networks:
        values = {"train.lr": network.lr, "train.backbone_lr": network.backbone_lr}
        values |= dotted({"model": network.settings})
        candidate = changed(settings, {name: value for name, value in values.items() if name not in fixed})
        cost = measure(candidate, data, here)
        if cost is None:
            continue
        steps = steps_within(budget, cost, batch)
        reason = f"a step of {batch} takes {cost.seconds * batch:.2g} s here"
        if steps is not None:
            reason += f", so about {steps:.0f} fit into {settings.train.budget}"
        if steps is None or steps >= wanted or network is networks[-1]:
            return candidate, cost, network, Choice("model", network.name, reason)
    return settings, None, None, None


def measure(settings: Settings, data: DetectionData, here: Machine) -> step_cost.Cost | None:
    """The cost of an image; None if there is not enough memory for a trial."""
    shape = common_shape(data, settings)
    try:
        return step_cost.measure(settings, len(data.class_names), shape, here.device, here.precision)
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():  # OutOfMemoryError on CUDA, without a type of its own on MPS
            raise
        return None
    finally:
        release_memory(here.device)


def steps_within(budget: float | None, cost: step_cost.Cost, batch: int) -> float | None:
    """The number of steps that fit into the budget; None without one."""
    return None if budget is None else max(0.0, budget) * TRAINING_SHARE / (cost.seconds * batch)


def common_shape(data: DetectionData, settings: Settings) -> tuple[int, int]:
    """Height and width of the most common image size, resized and padded."""
    shapes, counts = np.unique(data.annotations.sizes, axis=0, return_counts=True)
    height, width = shapes[counts.argmax()].tolist()
    preprocessing = settings.model.preprocessing
    return padded_size([resized_size(height, width, preprocessing)], preprocessing)
