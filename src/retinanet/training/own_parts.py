"""Parts of a run that the user gives as functions: losses, matching, optimizer, augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import nn

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.config.settings import Settings
from retinanet.data.loader import Transform
from retinanet.losses.criterion import Criterion
from retinanet.losses.own_losses import BoxLossFunction, ClassLoss
from retinanet.ops.own_matching import Matcher
from retinanet.training.optimizer import FACTOR, make_optimizer
from retinanet.training.run_folder import RunFolder
from retinanet.training.schedule import scaled_lr

OptimizerFunction = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""The parameters that are trained -> an optimizer of them, such as the class ``torch.optim.RAdam``.

Its learning rate, or those of its groups, are the full ones. The trainer multiplies them by the schedule of the
settings (warm-up, milestones), and ignores ``train.optimizer``, ``train.lr`` and ``train.weight_decay``.
"""
EXAMPLES = {
    "loss": "(logits, labels) -> sum",
    "box_loss": "(deltas, anchors, boxes) -> sum",
    "matcher": "(anchors, boxes, labels) -> indices",
    "optimizer": "(parameters) -> torch.optim.Optimizer, such as torch.optim.AdamW",
    "transform": "(image, boxes, labels) -> image, boxes, labels",
}


@dataclass(frozen=True)
class OwnParts:
    """Functions in place of built-in parts; None keeps the built-in one.

    Raises:
        RequestError: one of them cannot be called.
    """

    loss: ClassLoss | None = None
    box_loss: BoxLossFunction | None = None
    matcher: Matcher | None = None
    optimizer: OptimizerFunction | None = None
    transform: Transform | None = None

    def __post_init__(self) -> None:
        for name, part in self._given():
            if not callable(part):
                raise RequestError(f"{name}= must be a function {EXAMPLES[name]}, not {shown(part)}")

    def names(self) -> dict[str, str]:
        """The name of each part that is given, for run.json."""
        return {name: name_of(part) for name, part in self._given()}

    def criterion(self, settings: Settings, class_names: Iterable[str]) -> Criterion:
        """Matching and losses of a run.

        Raises:
            RequestError: the settings contradict the parts.
        """
        if self.loss is not None and settings.loss.ohem.batch is not None:
            raise RequestError(
                "loss= gets every anchor, but loss.ohem.batch trains on the hardest ones by the built-in loss: "
                "leave out one of them"
            )
        own = (self.loss, self.box_loss, self.matcher)
        return Criterion(settings.loss, settings.matching, tuple(class_names), *own)

    def make_optimizer(self, model: nn.Module, settings: Settings) -> tuple[torch.optim.Optimizer, float]:
        """The optimizer of a run and its full learning rate.

        Raises:
            RequestError: the function returns no optimizer of the model's parameters.
        """
        if self.optimizer is None:
            return make_optimizer(model, settings.train), scaled_lr(settings.train)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        made = self.optimizer(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise RequestError(f"optimizer= must return a torch.optim.Optimizer, not {shown(made)}")
        known = {id(parameter) for parameter in parameters}
        if not all(id(parameter) in known for group in made.param_groups for parameter in group["params"]):
            raise RequestError("optimizer= must return an optimizer of the parameters that it gets, and of no others")
        full = max(float(group["lr"]) for group in made.param_groups)
        if not full > 0:
            raise RequestError(f"optimizer= must have a learning rate above 0, not {full}")
        for group in made.param_groups:
            group[FACTOR] = float(group["lr"]) / full
        return made, full

    def require_as_in(self, folder: RunFolder) -> None:
        """
        Raises:
            RequestError: the run in ``folder`` began with other parts.
        """
        try:
            before = folder.facts().get("own")
        except RequestError:
            return  # what is wrong with the folder is reported where it is opened
        if not isinstance(before, Mapping):
            return  # an older run
        now = self.names()
        for name in EXAMPLES:
            old, new = (names.get(name, "none") for names in (before, now))
            if old != new:
                raise RequestError(
                    f"cannot resume {folder.path}: it was trained with {name}={shown_name(old)}, not with {name}="
                    f"{shown_name(new)}; resume it from Python with the same functions"
                )

    def hint(self) -> str:
        """A remark for a loss that is not finite."""
        own = [f"{name}={found}" for name, found in self.names().items() if name in ("loss", "box_loss")]
        return f"; {' and '.join(own)} may take a logarithm of 0 or divide by it" if own else ""

    def _given(self) -> list[tuple[str, Any]]:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, value) for name, value in values if value is not None]


def name_of(part: Any) -> str:
    """The name of a function with the arguments that are bound to it, or of an object's class."""
    if isinstance(part, partial):
        bound = [*map(shown, part.args), *(f"{name}={shown(value)}" for name, value in part.keywords.items())]
        return f"{name_of(part.func)}({', '.join(bound)})"
    return str(getattr(part, "__name__", type(part).__name__))


def shown_name(name: Any) -> str:
    return name if isinstance(name, str) and len(name) <= 200 and name.isprintable() else shown(name)
