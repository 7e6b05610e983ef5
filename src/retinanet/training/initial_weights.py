"""What a run begins with: new weights, or those of a detector, as far as they fit.

A detector that was trained on other classes knows more than its backbone: the pyramid and the towers of both subnets
serve any classes. Of the convolution that gives the class logits the rows of classes of the same name are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet import checkpoints
from retinanet.checkpoints import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import ModelSettings, Settings, dotted, from_plain, merge, to_plain
from retinanet.model import RetinaNet
from retinanet.model.shapes import require_memory

CLASS_OUTPUT = ("class_subnet.output.weight", "class_subnet.output.bias")  # (anchors * classes, ...)
OTHER_BACKBONE = 0.5  # less of the backbone's numbers fit: another network, in which some shapes agree by chance
# Settings that do not change what weights mean.
HARMLESS = ("model.backbone.weights", "model.backbone.frozen_stages", "model.backbone.frozen_norm", "model.head.prior")
FILLED_IN = ("model.preprocessing.mean", "model.preprocessing.std")  # from the backbone


def read(source: str | Path) -> Checkpoint:
    """The detector that ``source`` means: whatever :func:`retinanet.load` takes."""
    return checkpoints.load(source)


def settings(config: str | None, given: Mapping[str, Any] | None) -> Settings:
    """Settings to run with: defaults, under the recipe's, under the checkpoint's model, under what is given.

    A recipe that names the checkpoint itself means its model settings for it: they go over the checkpoint's.

    Args:
        config: the recipe that the user names; without one it is that which settings are fitted from.
        given: what else the user set, as nested dicts.
    """
    source = recipes.weights(config, given)
    if source == "none":
        return recipes.load(config or recipes.FITTED, given)
    values = recipes.values(config or recipes.FINETUNED)
    if overruled(values):
        del values["model"]
    values = recipes.over(values, given)
    return from_plain(Settings, merge({"model": _below(read(source).settings, values)}, values))


def overruled(values: Mapping[str, Any]) -> list[str]:
    """Of a recipe's settings those that give way to the checkpoint's."""
    if values.get("train", {}).get("weights", "none") != "none":
        return []
    return list(dotted(values.get("model", {}), "model."))


def _below(model: ModelSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings, as far as they mean something under ``values``."""
    plain = to_plain(model)
    plain["backbone"]["weights"] = "none"  # the checkpoint has them
    wanted = values.get("model", {}).get("backbone", {}).get("name", model.backbone.name)
    if wanted != model.backbone.name:  # the rest says how the checkpoint's own backbone is built and fed
        del plain["backbone"]
        plain["preprocessing"].update(mean=None, std=None, channels="rgb")
    return plain


@dataclass(frozen=True)
class Kept:
    """What became of a checkpoint's weights."""

    source: str
    origin: str | None
    """Where the checkpoint comes from, in words, if it says so."""
    kept: int
    """Tensors taken as they are; counters of batches are not counted, here nor below."""
    classes: tuple[str, ...]
    """Classes whose rows of the class output were taken; none where it was taken as it is."""
    new_classes: tuple[str, ...]
    """The data's other classes: their rows are new."""
    new: tuple[str, ...]
    """Tensors of the model that are not from the checkpoint, not even some rows of them."""
    left: tuple[str, ...]
    """Tensors of the checkpoint of which nothing was taken."""
    changed: Mapping[str, tuple[Any, Any]]
    """Model settings that are others than the checkpoint's: (there, here)."""

    def plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def begin(settings: Settings, class_names: Sequence[str]) -> tuple[RetinaNet, Kept | None]:
    """The network that a run begins with, on the CPU, and what was kept of ``settings.train.weights`` if it names any.

    What is new is drawn from torch's random numbers: processes with the same seed begin with the same network.

    Raises:
        RequestError: the checkpoint cannot be read, fits nowhere, or holds numbers that are not finite.
    """
    source, wanted = settings.train.weights, settings.model.backbone
    require_memory(settings.model, len(class_names))
    if source == "none":
        return RetinaNet(settings.model, len(class_names)), None
    checkpoint = read(source)
    model = RetinaNet(settings.model, len(class_names), load_weights=False)
    fitting = _fitting(checkpoint, model, class_names)
    backbone = [name for name in model.state_dict() if name.startswith("backbone.") and _counted(name)]
    if fitting.isdisjoint(backbone) and (wanted.weights == "none" or not fitting):
        raise RequestError(
            f"nothing in the backbone of {source} ({checkpoint.settings.backbone.name}) fits that of the model "
            f"({wanted.name}): leave model.backbone out, so that it is the checkpoint's, or leave train.weights out"
        )
    if wanted.weights != "none" and not fitting.issuperset(backbone):
        model = RetinaNet(settings.model, len(class_names))  # the backbone's own weights where the checkpoint has none
    ours, theirs = model.state_dict(), checkpoint.state
    ours.update({name: theirs[name] for name in fitting})
    pairs = [] if fitting.issuperset(CLASS_OUTPUT) else _pairs(checkpoint, model, class_names)
    if pairs:
        anchors = model.settings.anchors.per_position
        ours.update({name: _rows(ours[name], theirs[name], pairs, anchors) for name in CLASS_OUTPUT})
    broken = next((name for name, tensor in ours.items() if not bool(torch.isfinite(tensor).all())), None)
    if broken is not None:
        raise RequestError(f"{source} cannot be begun with: {broken} holds numbers that are not finite; take another")
    model.load_state_dict(ours)
    used, rows = fitting.union(CLASS_OUTPUT if pairs else ()), {here for here, _ in pairs}
    whole = fitting.issuperset(CLASS_OUTPUT)
    origin = checkpoint.extra.get("origin")
    return model, Kept(
        source=source,
        origin=origin if isinstance(origin, str) else None,
        kept=sum(map(_counted, fitting)),
        classes=tuple(name for label, name in enumerate(class_names) if label in rows),
        new_classes=tuple(name for label, name in enumerate(class_names) if label not in rows and not whole),
        new=tuple(sorted(name for name in ours if name not in used and _counted(name))),
        left=tuple(sorted(name for name in theirs if name not in used and _counted(name))),
        changed=_changed(checkpoint.settings, model.settings),
    )


def _fitting(checkpoint: Checkpoint, model: RetinaNet, class_names: Sequence[str]) -> set[str]:
    """The tensors that are taken as they are: those of the same name, shape and meaning."""
    ours, theirs = model.state_dict(), checkpoint.state
    fitting = {
        name
        for name, tensor in ours.items()
        if name in theirs
        and theirs[name].shape == tensor.shape
        and theirs[name].is_floating_point() >= tensor.is_floating_point()
    }
    if not _same_anchors(checkpoint, model) or tuple(class_names) != checkpoint.class_names:
        fitting.difference_update(CLASS_OUTPUT)
    backbone = {name for name in ours if name.startswith("backbone.")}
    share = sum(ours[name].numel() for name in backbone & fitting) / sum(ours[name].numel() for name in backbone)
    return fitting - backbone if share < OTHER_BACKBONE else fitting


def _pairs(checkpoint: Checkpoint, model: RetinaNet, class_names: Sequence[str]) -> list[tuple[int, int]]:
    """(label here, label there) of classes of one name, upper and lower case alike; none where the rows do not fit."""
    ours, theirs = model.state_dict(), checkpoint.state
    rows = model.settings.anchors.per_position * len(checkpoint.class_names)
    fit = all(name in theirs and theirs[name].shape == (rows, *ours[name].shape[1:]) for name in CLASS_OUTPUT)
    if not fit or not _same_anchors(checkpoint, model):
        return []
    there = {name.casefold(): label for label, name in reversed(list(enumerate(checkpoint.class_names)))}
    there |= {name: label for label, name in enumerate(checkpoint.class_names)}
    found = [(label, there.get(name, there.get(name.casefold()))) for label, name in enumerate(class_names)]
    return [(here, label) for here, label in found if label is not None]


def _rows(ours: Tensor, theirs: Tensor, pairs: Sequence[tuple[int, int]], anchors: int) -> Tensor:
    """``ours`` (anchors * K, ...) with the rows of some classes from ``theirs`` (anchors * L, ...), of every anchor."""
    result = ours.unflatten(0, (anchors, -1)).clone()  # (anchors, K, ...)
    here, there = (list(labels) for labels in zip(*pairs))
    result[:, here] = theirs.unflatten(0, (anchors, -1))[:, there].to(result.dtype)
    return result.flatten(0, 1)


def _same_anchors(checkpoint: Checkpoint, model: RetinaNet) -> bool:
    return checkpoint.settings.anchors.per_position == model.settings.anchors.per_position


def _counted(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _changed(there: ModelSettings, here: ModelSettings) -> dict[str, tuple[Any, Any]]:
    before, after = (dotted({"model": to_plain(one)}) for one in (there, here))
    before |= {name: after[name] for name in FILLED_IN if before[name] is None}
    return {name: (before[name], after[name]) for name in after if before[name] != after[name] and name not in HARMLESS}
