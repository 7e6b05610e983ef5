"""Settings chosen for the data and the machine, each with its reason.

Settings of the user stay. The other ones start from the recipe ``scratch-small``, which trains on few images without
pretrained weights. To fine-tune a detector, its model settings stay too, and the other ones start from the recipe
``finetune-adamw``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from retinanet.analysis.anchor_fit import Choice, fit_anchors, fit_model, with_choices
from retinanet.analysis.doctor.finding import counted
from retinanet.common.errors import RequestError
from retinanet.config.convert import changed, dotted
from retinanet.config.settings import LENGTHS, Settings, seconds
from retinanet.data import DetectionData
from retinanet.ops.resize import padded_size, resized_size
from retinanet.training import initial_weights, step_cost
from retinanet.training.preparation import Machine
from retinanet.training.schedule import ema_decay, interval


@dataclass(frozen=True)
class Lengths:
    """How many steps a run needs."""

    per_class: int
    """Steps for each class. With fewer, a smaller network or smaller batches are better."""
    wanted: tuple[int, int]
    """Limits of the steps for all classes."""
    epochs: int
    """Length of a run if the user gives none."""
    steps: tuple[int, int]
    """Limits of this length in steps."""


NETWORK_SETTINGS = ("model.backbone.", "model.pyramid.", "model.head.")
SCRATCH = Lengths(80, (250, 1000), 36, (1000, 90_000))
FINETUNING = Lengths(30, (100, 400), 24, (400, 30_000))
TRAINING_SHARE = 0.85  # of a budget; the rest is for opening the data, trials and evaluations
BATCH = 8
OBJECTS = 50  # in a step; with fewer, the learning rate falls with the square root of their number
FEWEST_OBJECTS = 20  # in a step; a batch does not get smaller
EVALUATIONS = 4  # in a run, the last one included
MEMORY_SHARE = 0.6  # of the free memory; other programs and the allocator need the rest
FINETUNING_LR = 2e-4  # of AdamW, for OBJECTS or more in a step
SHORT, SHORT_BETA2 = 2000, 0.99  # in a run of fewer steps, beta2 0.999 averages over too many of them


@dataclass(frozen=True)
class Network:
    """A size of network. A larger one learns more from each step; a smaller one makes more steps."""

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    lr: float
    """Learning rate of AdamW for ``OBJECTS`` or more in a step; experiments for the recipes gave it."""


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


def fit(
    given: Mapping[str, Any], fitted_anchors: bool, data: DetectionData, val: DetectionData, here: Machine
) -> tuple[Settings, list[Choice]]:
    """Choose settings for ``data`` on this machine.

    Args:
        given: the settings of the user, as nested dicts.
        fitted_anchors: fit the anchors to the data; otherwise those of the recipe stay.
        data, val: the training set and the validation set.
    """
    settings, fixed = initial_weights.settings(None, given), set(dotted(given))
    finetuning = settings.train.weights != "none"
    lengths = FINETUNING if finetuning else SCRATCH
    choices: list[Choice] = []
    if finetuning:
        settings, choices = _finetuning(settings, fixed, fitted_anchors)
    of_checkpoint = {choice.setting for choice in choices}
    settings, of_model = fit_model(data, settings, fixed | of_checkpoint, here.device.type, fitted_anchors)
    choices += of_model

    def take(more: list[Choice]) -> None:
        nonlocal settings
        more = [choice for choice in more if choice.setting not in fixed]
        settings = with_choices(settings, more)
        choices.extend(more)

    budget = seconds(settings.train.budget) if settings.train.budget is not None and _length(fixed) else None
    wanted = steps_needed(len(data.class_names), finetuning)
    cost = None
    if not finetuning and not any(name.startswith(NETWORK_SETTINGS) for name in fixed):
        settings, cost, choice = _choose_network(settings, data, budget, wanted, "train.lr" in fixed, here)
        choices += [choice] if choice is not None else []
    if cost is None:
        cost = _measure(settings, data, here)
    if cost is None:
        height, width = _common_shape(data, settings)
        raise RequestError(
            f"the memory of {here.device} does not hold {step_cost.IMAGES} images of {width} x {height}: give a "
            "smaller --model.preprocessing.size or a lighter --model.backbone.name"
        )
    take(_batch(settings, cost, budget, data, wanted, "train.batch_size" in fixed))
    take(_chunks(settings, cost, here.device, here.processes))
    take(_length_and_rate(settings, cost, budget, data, len(val), None if _length(fixed) else lengths))
    return settings, choices + _machine_choices(here)


def steps_needed(classes: int, finetuning: bool) -> int:
    """With fewer steps a detector of so many classes has learnt little, from random weights or from a detector's."""
    lengths = FINETUNING if finetuning else SCRATCH
    return min(max(lengths.per_class * classes, lengths.wanted[0]), lengths.wanted[1])


def _choose_network(
    settings: Settings, data: DetectionData, budget: float | None, wanted: int, fixed_lr: bool, here: Machine
) -> tuple[Settings, step_cost.Cost | None, Choice | None]:
    """The largest network that makes the wanted steps in the budget, or else the smallest one.

    Returns:
        Settings with the network, the cost of an image, and the reason. If no network fits into memory, there is
        neither cost nor reason.
    """
    networks = NETWORKS if here.device.type == "cuda" else NETWORKS[1:]
    batch = settings.train.batch_size
    for network in networks:
        candidate = changed(settings, dotted({"model": network.settings}))
        cost = _measure(candidate, data, here)
        if cost is None:
            continue
        steps = _steps(budget, cost, batch)
        reason = f"a step of {batch} takes {cost.seconds * batch:.2g} s here"
        if steps is not None:
            reason += f", so about {steps:.0f} fit into {settings.train.budget}"
        if steps is None or steps >= wanted or network is networks[-1]:
            chosen = candidate if fixed_lr else changed(candidate, {"train.lr": network.lr})
            return chosen, cost, Choice("model", network.name, reason)
    return settings, None, None


def _machine_choices(here: Machine) -> list[Choice]:
    on_cpu, cpus = here.device.type == "cpu", step_cost.cpu_count()
    fastest = f"the fastest on {cpus} CPUs" if on_cpu else f"the fastest on {torch.cuda.get_device_name(here.device)}"
    workers = "the network uses all CPUs" if on_cpu else f"of {cpus} CPUs"
    return [Choice("train.precision", here.precision, fastest), Choice("data.workers", here.workers, workers)]


def fit_anchors_only(
    settings: Settings, data: DetectionData, val: DetectionData, here: Machine
) -> tuple[Settings, list[Choice]]:
    """``settings`` with anchors that fit the data (``--anchors auto`` with a recipe)."""
    choices = fit_anchors(data, settings.model, settings.matching).choices(settings.model.anchors)
    return with_choices(settings, choices), choices


def _finetuning(settings: Settings, fixed: set[str], fitted_anchors: bool) -> tuple[Settings, list[Choice]]:
    """The settings to start fine-tuning from, and those of the checkpoint that stay.

    Args:
        fixed: names of the settings that the user gave.
        fitted_anchors: the user wants anchors that fit the data.
    """
    rest = {"train.batch_size": BATCH, "train.lr": FINETUNING_LR, "train.lr_batch": 0}
    settings = changed(settings, {name: value for name, value in rest.items() if name not in fixed})
    model, same = settings.model, "as in the checkpoint"
    choices = [
        Choice("model.backbone.name", model.backbone.name, f"{same}, like the whole network: its weights fit"),
        Choice("model.backbone.frozen_norm", True, "a batch is too small for good statistics"),
        Choice("model.preprocessing.size", model.preprocessing.size, f"{same}; a smaller size takes less time"),
        Choice("model.preprocessing.longer", model.preprocessing.longer, same),
    ]
    if not fitted_anchors:
        choices.append(Choice("model.anchors.sizes", model.anchors.sizes, f"{same}: its heads were trained with them"))
    choices = [choice for choice in choices if choice.setting not in fixed]
    return with_choices(settings, choices), choices


def _measure(settings: Settings, data: DetectionData, here: Machine) -> step_cost.Cost | None:
    """The cost of an image; None if there is not enough memory for a trial."""
    shape = _common_shape(data, settings)
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
    """Choose the batch size: smaller if the budget is too short for the wanted number of steps."""
    batch = settings.train.batch_size
    if fixed:
        return []
    steps, density = _steps(budget, cost, batch), data.num_boxes / max(1, len(data))
    while steps is not None and steps < wanted and batch > 1 and batch // 2 * density >= FEWEST_OBJECTS:
        batch //= 2
        steps = _steps(budget, cost, batch)
    reason = f"about {density * batch:.0f} objects a step"
    if steps is not None:
        reason += f", about {steps:.0f} steps in {settings.train.budget}"
        if steps < wanted:
            classes = len(data.class_names)
            reason += f"; {classes} classes need about {wanted} steps: give a longer --budget or smaller images"
    return [Choice("train.batch_size", batch, reason)]


def _chunks(settings: Settings, cost: step_cost.Cost, device: torch.device, processes: int) -> list[Choice]:
    """Choose the number of chunks of a batch, so that each fits into memory."""
    free = step_cost.free_memory(device)
    if free is None:
        return []
    share, chunks = -(-settings.train.batch_size // processes), 1
    while chunks < share and -(-share // chunks) * cost.bytes > free * MEMORY_SHARE:
        chunks += 1
    reason = f"an image takes {cost.bytes / 1e6:.0f} MB, {free / 1e9:.1f} GB are free"
    return [Choice("train.accumulate", chunks, reason)]


def _length_and_rate(
    settings: Settings,
    cost: step_cost.Cost,
    budget: float | None,
    data: DetectionData,
    val_images: int,
    lengths: Lengths | None,
) -> list[Choice]:
    """Choose the length of the run, the learning rate, and the interval between evaluations.

    Without ``lengths`` the run is as long as the settings say.
    """
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
        reason = f"{steps * batch / images:.0f} epochs, about {_clock(took)} here; --budget 15m ends it sooner"
        choices.append(Choice("train.steps", int(steps), reason))
    # The loss is a mean over positive anchors, so the noise of its gradient depends on objects rather than images.
    objects = density * batch
    lr = float(f"{train.lr * min(1.0, max(objects, 1.0) / OBJECTS) ** 0.5:.3g}")
    start = "this network" if train.weights == "none" else "trained weights"
    choices.append(Choice("train.lr", lr, f"AdamW, for {start} and about {objects:.0f} objects a step"))
    if train.beta2 > SHORT_BETA2 and steps < SHORT:
        choices.append(Choice("train.beta2", SHORT_BETA2, f"about {steps:.0f} steps are few"))
    choices.append(
        Choice("train.ema", ema_decay(steps), f"averages the weights over the last fifth of about {steps:.0f} steps")
    )
    every = max(1.0, float(round(steps * batch / images / EVALUATIONS)))
    if budget is not None:
        count = f"up to {EVALUATIONS} evaluations, if there is time,"
    else:
        count = counted((round(steps) - 1) // interval(every, images, batch) + 1, "evaluation")
    choices.append(Choice("train.eval_every", every, f"epochs: {count} of {val_images} images"))
    return choices


def _steps(budget: float | None, cost: step_cost.Cost, batch: int) -> float | None:
    """The number of steps that fit into the budget."""
    return None if budget is None else budget * TRAINING_SHARE / (cost.seconds * batch)


def _common_shape(data: DetectionData, settings: Settings) -> tuple[int, int]:
    """Height and width of the most common image size, resized and padded."""
    shapes, counts = np.unique(data.annotations.sizes, axis=0, return_counts=True)
    height, width = shapes[counts.argmax()].tolist()
    preprocessing = settings.model.preprocessing
    return padded_size([resized_size(height, width, preprocessing)], preprocessing)


def _length(fixed: set[str]) -> bool:
    """Whether the user gave the length of the run."""
    return any(f"train.{name}" in fixed for name in LENGTHS)


def _clock(value: float) -> str:
    return f"{value / 3600:.1f} h" if value >= 5400 else f"{value / 60:.0f} min"
