"""Settings chosen for the data and the machine, each with its reason.

Settings of the user stay. The other ones start from the recipe ``scratch-small``, which trains on few images without
pretrained weights. To fine-tune a detector, its model settings stay too, and the other ones start from the recipe
``finetune-adamw``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retinanet.analysis.anchor_fit import LEAST, Choice, fit_anchors, fit_model, with_choices
from retinanet.analysis.doctor.finding import counted
from retinanet.checkpoints.pretrained_weights import PretrainedWeights
from retinanet.common.devices import device_name
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.convert import changed, dotted, merge
from retinanet.config.settings import STARTS, Settings, seconds
from retinanet.data import DetectionData
from retinanet.data.annotations import resized_boxes
from retinanet.training import events, initial_weights, step_cost
from retinanet.training.network_choice import (
    NETWORK_SETTINGS,
    NETWORKS,
    Network,
    choose_network,
    common_shape,
    imagenet_networks,
    measure,
    pretrained_networks,
    steps_within,
)
from retinanet.training.preparation import Notify
from retinanet.training.schedule import ema_decay, interval
from retinanet.training.start_choice import Finder, Start, given_start, length_given
from retinanet.training.step_cost import Machine


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

    def wanted_for(self, classes: int) -> int:
        """Steps for so many classes."""
        return min(max(self.per_class * classes, self.wanted[0]), self.wanted[1])


SCRATCH = Lengths(80, (250, 1000), 36, (1000, 90_000))
PRETRAINED = Lengths(50, (400, 1200), 30, (600, 60_000))
FINETUNING = Lengths(30, (100, 400), 24, (400, 30_000))
BATCH = 8
OBJECTS = 50  # in a step; with fewer, the learning rate falls with the square root of their number
FEWEST_OBJECTS = 20  # in a step; a batch does not get smaller
EVALUATIONS = 4  # in a run, the last one included
MEMORY_SHARE = 0.6  # of the free memory; other programs and the allocator need the rest
FINETUNING_LR = 2e-4  # of AdamW, for OBJECTS or more in a step
SMALLEST = LEAST  # side of the images that a short budget makes smaller
SMALL = 20.0  # pixels: images are not made so small that half of the objects have a smaller side
NOTICEABLE = 2.0  # seconds of a budget that were spent on a download, to be reported
SIZES = (16.0, 32.0, 64.0, 128.0, 256.0)  # of anchors, where the search for those of small images starts
SHORT, SHORT_BETA2 = 2000, 0.99  # in a run of fewer steps, beta2 0.999 averages over too many of them


def _ignore(event: events.Event) -> None:
    """Nobody listens."""


def fit(
    given: Mapping[str, Any],
    fitted_anchors: bool | None,
    data: DetectionData,
    val: DetectionData,
    here: Machine,
    notify: Notify = _ignore,
) -> tuple[Settings, list[Choice]]:
    """Choose settings for ``data`` on this machine.

    Args:
        given: the settings of the user, as nested dicts.
        fitted_anchors: fit the anchors to the data; otherwise those of the recipe or the checkpoint stay. None fits
            them unless a detector is fine-tuned, whose heads were trained with its anchors.
        data, val: the training set and the validation set.
        notify: is told about downloads.
    """
    settings, fixed = initial_weights.settings(None, given), set(dotted(given)) - {"train.weights"}
    budget = seconds(settings.train.budget) if settings.train.budget is not None and length_given(fixed) else None
    sources = PretrainedWeights(lambda *done: notify(events.Downloading(*done)), budget)
    finder = Finder(settings, fixed, data, budget, sources, here)
    start = finder.coco(BATCH, _wanted(FINETUNING, data)) if settings.train.weights == "auto" else None
    if start is not None:
        settings = initial_weights.settings(None, merge(given, {"train": {"weights": start.weights}}))
    fitting = _Fitting(settings, fixed, data, budget, here)
    if settings.train.weights not in STARTS:
        start = start or given_start(settings, data)
        fitting.finetuning(bool(fitted_anchors))
    else:
        start = fitting.network(finder, fitted_anchors is not False, initial_weights.twin(given))
    fitting.budget = budget - sources.seconds if budget is not None else None
    fitting.shrink(fitted_anchors is not False)
    fitting.rest(len(val))
    if sources.seconds >= NOTICEABLE and budget is not None:
        text = f"{start.text}; it took {sources.seconds:.0f} s of the budget"
        start = start._replace(text=text)
    first = Choice("train.weights", fitting.settings.train.weights, start.text)
    return fitting.settings, [first, *fitting.choices, *_machine_choices(here)]


class _Fitting:
    """Settings that become complete step by step, and the choices that made them so."""

    def __init__(
        self, settings: Settings, fixed: set[str], data: DetectionData, budget: float | None, here: Machine
    ) -> None:
        self.settings, self.fixed, self.data, self.budget, self.here = settings, fixed, data, budget, here
        self.choices: list[Choice] = []
        self.lengths = SCRATCH
        self.cost: step_cost.Cost | None = None

    def take(self, more: list[Choice]) -> None:
        """Add choices, but for settings that the user gave."""
        more = [choice for choice in more if choice.setting not in self.fixed]
        self.settings = with_choices(self.settings, more)
        self.choices += more

    def finetuning(self, fitted_anchors: bool) -> None:
        """The settings to start fine-tuning a detector from; those of its network stay."""
        self.lengths = FINETUNING
        rest = {"train.batch_size": BATCH, "train.lr": FINETUNING_LR, "train.lr_batch": 0}
        self.settings = changed(self.settings, {name: value for name, value in rest.items() if name not in self.fixed})
        model, same = self.settings.model, "as in the checkpoint"
        choices = [
            Choice("model.backbone.name", model.backbone.name, f"{same}, like the whole network: its weights fit"),
            Choice("model.backbone.frozen_norm", True, "a batch is too small for good statistics"),
            Choice("model.preprocessing.size", model.preprocessing.size, f"{same}; a smaller size takes less time"),
            Choice("model.preprocessing.longer", model.preprocessing.longer, same),
        ]
        if not fitted_anchors:
            why = f"{same}: its heads were trained with them"
            choices.append(Choice("model.anchors.sizes", model.anchors.sizes, why))
        self.take(choices)
        self.fit_model(fitted_anchors)

    def network(self, finder: Finder, fitted_anchors: bool, twin: str | None) -> Start:
        """Choose the network, and what it starts from if ``train.weights`` does not say it.

        Args:
            twin: another model that has the same tensors as the backbone's file.

        Raises:
            WorkError: ``train.weights`` is "imagenet", and there are no such weights within reach.
        """
        self.fit_model(fitted_anchors)
        keyword, backbone, device = self.settings.train.weights, self.settings.model.backbone, self.here.device.type
        only_backbone = any(name.startswith(("model.pyramid.", "model.head.")) for name in self.fixed)
        own = any(name.startswith(NETWORK_SETTINGS) for name in self.fixed)
        before = self.settings
        while keyword in ("auto", "imagenet") and (names := finder.backbones()):
            if own:
                networks = pretrained_networks(backbone.name, "imagenet", device, only_backbone)
            else:
                networks = imagenet_networks(names, device)
            network = self._choose(networks, PRETRAINED)
            if network is None:
                break
            if (start := finder.imagenet(network.backbone)) is not None:
                return start
            self.settings, self.cost, self.lengths = before, None, SCRATCH
        self.choices = [choice for choice in self.choices if choice.setting != "model"]
        if keyword == "imagenet":
            raise WorkError(finder.no_imagenet())
        self.settings = changed(self.settings, {"train.weights": "none"})
        start = finder.scratch() if keyword == "auto" else given_start(self.settings, self.data, twin)
        if backbone.weights != "none":
            self._choose(pretrained_networks(backbone.name, backbone.weights, device, only_backbone), PRETRAINED)
        elif not own:
            self._choose(NETWORKS if device == "cuda" else NETWORKS[1:], SCRATCH)
        return start

    def _choose(self, networks: Sequence[Network], lengths: Lengths) -> Network | None:
        """Take the largest network that makes enough steps; None if the memory holds none of them."""
        wanted = _wanted(lengths, self.data)
        settings, cost, network, choice = choose_network(
            networks, self.settings, self.fixed, self.data, self.budget, wanted, self.here
        )
        if network is not None and choice is not None:
            settings = changed(settings, {"train.weights": "none"})
            self.settings, self.cost, self.lengths = settings, cost, lengths
            self.choices = [choice for choice in self.choices if choice.setting != "model"] + [choice]
        return network

    def fit_model(self, fitted_anchors: bool) -> None:
        """Choose the size of the images, and the anchors."""
        fixed = self.fixed | {choice.setting for choice in self.choices}
        self.settings, choices = fit_model(self.data, self.settings, fixed, self.here.device.type, fitted_anchors)
        self.choices += choices

    def shrink(self, fitted_anchors: bool) -> None:
        """Make images smaller, and leave out level P2, if the budget is far too short for the steps that are needed."""
        cost = self._require_cost()
        given = ("model.preprocessing.", "model.anchors.") if fitted_anchors else ("model.preprocessing.",)
        wanted = _wanted(self.lengths, self.data) / 2
        steps = steps_within(self.budget, cost, self.settings.train.batch_size)
        preprocessing = self.settings.model.preprocessing
        if steps is None or steps >= wanted or self.lengths is FINETUNING or preprocessing.resize != "shorter":
            return
        if any(name.startswith(given) for name in self.fixed):
            return
        smallest = max(SMALLEST, preprocessing.size * SMALL / self._median_side())
        if smallest >= preprocessing.size:
            return
        if self.settings.model.anchors.first_level < 3 and fitted_anchors:
            self._fit_again(preprocessing.size)
            steps = steps_within(self.budget, self._require_cost(), self.settings.train.batch_size) or 0.0
        if steps < wanted:
            share = (steps / wanted) ** 0.5
            multiple = preprocessing.multiple
            size = max(math.ceil(smallest / multiple), int(preprocessing.size * share) // multiple) * multiple
            if size < preprocessing.size:
                self._fit_again(size, fitted_anchors)

    def _median_side(self) -> float:
        """The median of the objects' sides in pixels of the resized images, the root of their areas."""
        boxes = resized_boxes(self.data.annotations, self.settings.model.preprocessing)
        return max(1.0, float(np.median(np.sqrt(((boxes[:, 2:] - boxes[:, :2]).clip(min=0)).prod(axis=1)))))

    def _fit_again(self, size: int, fitted_anchors: bool = True) -> None:
        """Images of ``size``, and anchors for them from level P3 on."""
        why = f"{self.settings.train.budget} is short: larger images would leave too few steps"
        longer = round(size * 5 / 3)
        again = [
            Choice("model.preprocessing.size", size, why),
            Choice("model.preprocessing.longer", longer, "5/3 of it, the paper's 1333 to 800"),
        ]
        settings = with_choices(self.settings, again)
        if fitted_anchors:
            plain = dataclasses.replace(settings.model.anchors, first_level=3, sizes=SIZES)
            model = dataclasses.replace(settings.model, anchors=plain)
            again += fit_anchors(self.data, model, settings.matching, finest=3).choices(settings.model.anchors)
        replaced = {choice.setting for choice in again}
        self.choices = [choice for choice in self.choices if choice.setting not in replaced]
        self.cost = None
        self.take(again)

    def _require_cost(self) -> step_cost.Cost:
        """The cost of an image.

        Raises:
            RequestError: the memory is too small.
        """
        if self.cost is None:
            self.cost = measure(self.settings, self.data, self.here)
        if self.cost is None:
            height, width = common_shape(self.data, self.settings)
            raise RequestError(
                f"the memory of {self.here.device} does not hold {step_cost.IMAGES} images of {width} x {height}: give "
                "a smaller --model.preprocessing.size or a lighter --model.backbone.name"
            )
        return self.cost

    def rest(self, val_images: int) -> None:
        """Choose batches, length and learning rate."""
        cost, data, budget = self._require_cost(), self.data, self.budget
        wanted = _wanted(self.lengths, data)
        self.take(_batch(self.settings, cost, budget, data, wanted, "train.batch_size" in self.fixed))
        self.take(_chunks(self.settings, cost, self.here.device, self.here.processes))
        lengths = None if length_given(self.fixed) else self.lengths
        self.take(_length_and_rate(self.settings, cost, budget, data, val_images, lengths))


def _wanted(lengths: Lengths, data: DetectionData) -> int:
    """Steps for all classes."""
    return lengths.wanted_for(len(data.class_names))


def steps_needed(settings: Settings, classes: int) -> int:
    """With fewer steps a detector of so many classes has learnt little, from what the run started from."""
    if settings.train.weights not in STARTS:
        return FINETUNING.wanted_for(classes)
    pretrained = settings.train.weights == "imagenet" or settings.model.backbone.weights != "none"
    return (PRETRAINED if pretrained else SCRATCH).wanted_for(classes)


def _machine_choices(here: Machine) -> list[Choice]:
    on_cpu, cpus = here.device.type == "cpu", step_cost.cpu_count()
    fastest = f"the fastest on {cpus} CPUs" if on_cpu else f"the fastest on {device_name(here.device)}"
    workers = "the network uses all CPUs" if on_cpu else f"of {cpus} CPUs"
    return [Choice("train.precision", here.precision, fastest), Choice("data.workers", here.workers, workers)]


def fit_anchors_only(
    settings: Settings, data: DetectionData, val: DetectionData, here: Machine, notify: Notify = _ignore
) -> tuple[Settings, list[Choice]]:
    """``settings`` with anchors that fit the data (``--anchors auto`` with a recipe)."""
    choices = fit_anchors(data, settings.model, settings.matching).choices(settings.model.anchors)
    return with_choices(settings, choices), choices


def _batch(
    settings: Settings, cost: step_cost.Cost, budget: float | None, data: DetectionData, wanted: int, fixed: bool
) -> list[Choice]:
    """Choose the batch size: smaller if the budget is too short for the wanted number of steps."""
    batch = settings.train.batch_size
    if fixed:
        return []
    steps, density = steps_within(budget, cost, batch), data.num_boxes / max(1, len(data))
    while steps is not None and steps < wanted and batch > 1 and batch // 2 * density >= FEWEST_OBJECTS:
        batch //= 2
        steps = steps_within(budget, cost, batch)
    reason, warning = f"about {density * batch:.0f} objects a step", ""
    if steps is not None:
        reason += f", about {steps:.0f} steps in {settings.train.budget}"
        if steps < wanted:
            classes = len(data.class_names)
            reason += f"; {classes} classes need about {wanted}"
            warning = (
                f"about {steps:.0f} steps fit into {settings.train.budget} here, and {classes} classes need about "
                f"{wanted}: give a longer budget or smaller images"
            )
    return [Choice("train.batch_size", batch, reason, warning)]


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
        steps = steps_within(budget, cost, batch) or 1.0
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


def _clock(value: float) -> str:
    return f"{value / 3600:.1f} h" if value >= 5400 else f"{value / 60:.0f} min"
