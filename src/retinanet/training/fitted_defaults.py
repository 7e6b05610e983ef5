"""Settings from the data and the machine, for a user who gave none: each with its reason.

What the user did set stays. The recipe ``scratch-small`` is where the rest begins: it learns from few images without
pretrained weights. Where a detector's checkpoint is trained on, its model stays too, and ``finetune-adamw`` is where
the rest begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from retinanet.analysis.anchor_fit import Choice, fit_anchors, fit_model, with_choices
from retinanet.analysis.doctor.finding import counted
from retinanet.common.errors import RequestError
from retinanet.config.settings import LENGTHS, Settings, changed, dotted, seconds
from retinanet.data import DetectionData
from retinanet.ops.resize import padded_size, resized_size
from retinanet.training import initial_weights, step_cost
from retinanet.training.preparation import Surroundings
from retinanet.training.schedule import ema_decay, interval


@dataclass(frozen=True)
class Lengths:
    """How many steps it takes."""

    a_class: int
    """With fewer a detector hardly learns: rather a smaller one, or smaller batches."""
    wanted: tuple[int, int]
    """But at least and at most so many for all classes."""
    epochs: int
    """Of a run without a length."""
    steps: tuple[int, int]
    """But from so many steps to so many."""


SCRATCH = Lengths(80, (250, 1000), 36, (1000, 90_000))
FINETUNING = Lengths(30, (100, 400), 24, (400, 30_000))
TRAINING_SHARE = 0.85  # of a budget; the rest goes to opening, trials and evaluations
BATCH = 8
OBJECTS = 50  # of a step; with fewer the learning rate goes down with the square root of their number
FEWEST_OBJECTS = 20  # of a step: a batch is not made smaller than that
EVALUATIONS = 4  # in a run, the last one included
MEMORY_SHARE = 0.6  # of what is free: other programs and the allocator's gaps need some
FINETUNING_LR = 2e-4  # of AdamW for OBJECTS a step or more
SHORT, SHORT_BETA2 = 2000, 0.99  # AdamW's default, 0.999, remembers longer than a short run takes


@dataclass(frozen=True)
class Network:
    """A size of network; the larger ones learn more from a step, the smaller ones make more steps."""

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    lr: float
    """Of AdamW for ``OBJECTS`` a step or more; what the recipes scratch-small and digits were found to learn with."""


LIGHT = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}
NETWORKS = (
    Network(
        "ResNet-50, 256 channels",
        {
            "backbone": {"name": "resnet50", "options": {}},
            "pyramid": {"channels": 256},
            "head": {"depth": 4, "width": 256},
        },
        5e-4,
    ),
    Network(
        "ResNet-18, 128 channels",
        {
            "backbone": {"name": "resnet18", "options": {}},
            "pyramid": {"channels": 128},
            "head": {"depth": 2, "width": 128},
        },
        1e-3,
    ),
    Network(
        "half a ResNet-18, 64 channels",
        {
            "backbone": {"name": "resnet18", "options": LIGHT},
            "pyramid": {"channels": 64},
            "head": {"depth": 2, "width": 64},
        },
        2e-3,
    ),
)


def fit(
    given: Mapping[str, Any], fitted_anchors: bool, data: DetectionData, val: DetectionData, here: Surroundings
) -> tuple[Settings, list[Choice]]:
    """Settings for ``data`` on this machine.

    Args:
        given: what the user set, as nested dicts; it is not changed.
        fitted_anchors: otherwise those of the recipe.
        data, val: the images to learn from, and those that are measured on.
    """
    device = here.device
    settings = initial_weights.settings(None, given)
    fixed = set(dotted(given))
    finetuning = settings.train.weights != "none"
    lengths = FINETUNING if finetuning else SCRATCH
    stays: list[Choice] = []
    if finetuning:
        settings, stays = _finetuning(settings, fixed, fitted_anchors)
    of_checkpoint = {choice.setting for choice in stays}
    settings, choices = fit_model(data, settings, fixed | of_checkpoint, device.type, fitted_anchors)
    choices = stays + choices

    def take(made: list[Choice]) -> None:
        nonlocal settings
        made = [choice for choice in made if choice.setting not in fixed]
        settings = with_choices(settings, made)
        choices.extend(made)

    budget = seconds(settings.train.budget) if settings.train.budget is not None and _length(fixed) else None
    shape = _common_shape(data, settings)
    wanted = min(max(lengths.a_class * len(data.class_names), lengths.wanted[0]), lengths.wanted[1])
    cost = None
    networks: Sequence[Network] = NETWORKS if device.type == "cuda" else NETWORKS[1:]
    if finetuning or any(name.startswith(("model.backbone.", "model.pyramid.", "model.head.")) for name in fixed):
        networks = ()
    batch = settings.train.batch_size
    for network in networks:
        tried = changed(settings, dotted({"model": network.settings}))
        cost = _measure(tried, data, shape, here)
        last = network is networks[-1]
        if cost is None:
            continue
        steps = _steps(budget, cost, batch)
        told = f"a step of {batch} takes {cost.seconds * batch:.2g} s here"
        if steps is not None:
            told += f", so some {steps:.0f} fit into {settings.train.budget}"
        if steps is None or steps >= wanted or last:
            settings = tried if "train.lr" in fixed else changed(tried, {"train.lr": network.lr})
            choices.append(Choice("model", network.name, told))
            break
    if cost is None:
        cost = _measure(settings, data, shape, here)
    if cost is None:
        height, width = shape
        raise RequestError(
            f"the memory of {device} does not hold {step_cost.IMAGES} images of {width} x {height}: give a smaller "
            "--model.preprocessing.size or a lighter --model.backbone.name"
        )
    take(_batch(settings, cost, budget, data, wanted, "train.batch_size" in fixed))
    take(_parts(settings, cost, device, here.processes))
    take(_length_and_rate(settings, cost, budget, data, len(val), None if _length(fixed) else lengths))
    where = f"{step_cost.cpu_count()} CPUs" if device.type == "cpu" else torch.cuda.get_device_name(device)
    choices.append(
        Choice("train.precision", here.precision, f"what {where} compute{'s' * (device.type != 'cpu')} fastest")
    )
    why = "the network uses all CPUs" if device.type == "cpu" else f"of {step_cost.cpu_count()} CPUs"
    choices.append(Choice("data.workers", here.workers, why))
    return settings, choices


def fit_anchors_only(
    settings: Settings, data: DetectionData, val: DetectionData, here: Surroundings
) -> tuple[Settings, list[Choice]]:
    """``settings`` with anchors that fit the data (``--anchors auto`` with a recipe)."""
    choices = fit_anchors(data, settings.model, settings.matching).choices(settings.model.anchors)
    return with_choices(settings, choices), choices


def _finetuning(settings: Settings, fixed: set[str], fitted_anchors: bool) -> tuple[Settings, list[Choice]]:
    """What stays as it is in a checkpoint, and where the fitting of the rest begins.

    Args:
        fixed: what the user set. fitted_anchors: the user asked for anchors that fit the data.
    """
    rest = {"train.batch_size": BATCH, "train.lr": FINETUNING_LR, "train.lr_batch": 0}
    settings = changed(settings, {name: value for name, value in rest.items() if name not in fixed})
    model, known = settings.model, "as in the checkpoint"
    choices = [
        Choice("model.backbone.name", model.backbone.name, f"{known}, the whole network: its weights fit it"),
        Choice("model.backbone.frozen_norm", True, "a batch is too small for statistics of its own"),
        Choice("model.preprocessing.size", model.preprocessing.size, f"{known}; a smaller one takes less time"),
        Choice("model.preprocessing.longer", model.preprocessing.longer, known),
    ]
    if not fitted_anchors:
        choices.append(Choice("model.anchors.sizes", model.anchors.sizes, f"{known}: its heads know its anchors"))
    choices = [choice for choice in choices if choice.setting not in fixed]
    return with_choices(settings, choices), choices


def _measure(
    settings: Settings, data: DetectionData, shape: tuple[int, int], here: Surroundings
) -> step_cost.Cost | None:
    """What an image costs; None where the memory does not suffice for a trial."""
    try:
        return step_cost.measure(settings, len(data.class_names), shape, here.device, here.precision)
    except torch.OutOfMemoryError:
        return None
    finally:
        if here.device.type == "cuda":
            torch.cuda.empty_cache()


def _batch(
    settings: Settings, cost: step_cost.Cost, budget: float | None, data: DetectionData, wanted: int, fixed: bool
) -> list[Choice]:
    """Images of a step: fewer where a budget has no time for as many steps as are wanted."""
    batch = settings.train.batch_size
    if fixed:
        return []
    steps, density = _steps(budget, cost, batch), data.num_boxes / max(1, len(data))
    while steps is not None and steps < wanted and batch > 1 and batch // 2 * density >= FEWEST_OBJECTS:
        batch //= 2
        steps = _steps(budget, cost, batch)
    why = f"some {density * batch:.0f} objects a step"
    if steps is not None:
        why += f", some {steps:.0f} steps in {settings.train.budget}"
        if steps < wanted:
            classes = len(data.class_names)
            why += f"; {classes} classes take some {wanted} to be learnt: give a longer --budget or smaller images"
    return [Choice("train.batch_size", batch, why)]


def _parts(settings: Settings, cost: step_cost.Cost, device: torch.device, processes: int) -> list[Choice]:
    """In how many parts a process's share of a batch goes through the network."""
    free = step_cost.free_memory(device)
    if free is None:
        return []
    share, parts = -(-settings.train.batch_size // processes), 1
    while parts < share and -(-share // parts) * cost.bytes > free * MEMORY_SHARE:
        parts += 1
    told = f"an image takes {cost.bytes / 1e6:.0f} MB, {free / 1e9:.1f} GB are free"
    return [Choice("train.accumulate", parts, told)]


def _length_and_rate(
    settings: Settings,
    cost: step_cost.Cost,
    budget: float | None,
    data: DetectionData,
    val_images: int,
    lengths: Lengths | None,
) -> list[Choice]:
    """How long (without ``lengths`` as the settings say), how often to measure, and the learning rate."""
    images, density = len(data), data.num_boxes / max(1, len(data))
    train, choices = settings.train, []
    batch = train.batch_size
    if budget is not None:
        steps = _steps(budget, cost, batch) or 1.0
    elif lengths is None:
        steps = float(train.steps) if train.steps is not None else (train.epochs or 1.0) * images / batch
    else:
        least, most = lengths.steps
        steps = float(round(min(max(lengths.epochs * images / batch, least), most)))
        took = steps * batch * cost.seconds
        why = f"{steps * batch / images:.0f} epochs, about {_clock(took)} here; --budget 15m ends it sooner"
        choices.append(Choice("train.steps", int(steps), why))
    # The loss is a mean over positive anchors: how sure its gradient is depends on objects rather than on images.
    objects = density * batch
    lr = _three(train.lr * min(1.0, max(objects, 1.0) / OBJECTS) ** 0.5)
    learner = "this network" if train.weights == "none" else "trained weights"
    choices.append(Choice("train.lr", lr, f"AdamW, for {learner} and some {objects:.0f} objects a step"))
    if train.beta2 > SHORT_BETA2 and steps < SHORT:
        choices.append(Choice("train.beta2", SHORT_BETA2, f"some {steps:.0f} steps are few"))
    choices.append(
        Choice("train.ema", ema_decay(steps), f"averages the weights over the last fifth of some {steps:.0f} steps")
    )
    every = max(1.0, float(round(steps * batch / images / EVALUATIONS)))
    if budget is not None:
        count = f"up to {EVALUATIONS} evaluations, as the time allows,"
    else:
        made = (round(steps) - 1) // interval(every, images, batch) + 1  # the last one comes at the end
        count = counted(made, "evaluation")
    choices.append(Choice("train.eval_every", every, f"epochs: {count} of {val_images} images"))
    return choices


def _steps(budget: float | None, cost: step_cost.Cost, batch: int) -> float | None:
    return None if budget is None else budget * TRAINING_SHARE / (cost.seconds * batch)


def _common_shape(data: DetectionData, settings: Settings) -> tuple[int, int]:
    """Height and width that the commonest image is padded to."""
    shapes, counts = np.unique(data.annotations.sizes, axis=0, return_counts=True)
    height, width = shapes[counts.argmax()].tolist()
    preprocessing = settings.model.preprocessing
    return padded_size([resized_size(height, width, preprocessing)], preprocessing)


def _length(fixed: set[str]) -> bool:
    return any(f"train.{name}" in fixed for name in LENGTHS)


def _three(value: float) -> float:
    return float(f"{value:.3g}")


def _clock(value: float) -> str:
    return f"{value / 3600:.1f} h" if value >= 5400 else f"{value / 60:.0f} min"
