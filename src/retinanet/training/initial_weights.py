"""The weights that a run starts from: new ones, those of a backbone, or those of a detector that fit.

From a detector that was trained on other classes, the backbone, the pyramid and the hidden layers of both subnets are
kept. Of the convolution that gives the class logits, the rows of classes with the same name are kept.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from retinanet import checkpoints
from retinanet.checkpoints import Checkpoint
from retinanet.checkpoints.backbone_file import BackboneFile
from retinanet.checkpoints.pretrained_weights import COCO
from retinanet.common.errors import RequestError
from retinanet.common.fields import from_plain
from retinanet.config import recipes
from retinanet.config.convert import dotted, merge, to_plain
from retinanet.config.model_settings import ModelSettings
from retinanet.config.settings import STARTS, Settings
from retinanet.model import RetinaNet
from retinanet.model.shapes import require_memory

CLASS_OUTPUT = ("class_subnet.output.weight", "class_subnet.output.bias")  # (anchors * classes, ...)
SAME_BACKBONE = 0.5  # if less of the backbone's numbers fit, it is another network with some equal shapes
# Settings that do not change the meaning of weights.
HARMLESS = ("model.backbone.weights", "model.backbone.frozen_stages", "model.backbone.frozen_norm", "model.head.prior")
FILLED_IN = ("model.preprocessing.mean", "model.preprocessing.std")  # from the backbone


def settings(config: str | None, given: Mapping[str, Any] | None) -> Settings:
    """The settings of a run.

    In rising precedence: the defaults, the recipe, the checkpoint's model settings, the settings of the user. But if
    the recipe itself names the checkpoint, the recipe's model settings replace the checkpoint's.

    Args:
        config: the recipe that the user named. Without one, a recipe that settings are fitted from is used.
        given: the settings of the user, as nested dicts.
    """
    source = recipes.weights(config, given)
    if source == "coco":
        source = COCO
        given = merge(given or {}, {"train": {"weights": COCO}})
    elif source in STARTS:
        return recipes.load(config or recipes.FITTED, merge(given or {}, {"train": {"weights": source}}))
    wanted = recipes.over({}, given).get("model", {}).get("backbone", {}).get("name")
    if (file := _backbone_file(source, wanted)) is not None:
        return _beside_backbone(config, given or {}, file)
    values = recipes.values(config or recipes.FINETUNED)
    if overruled(values):
        del values["model"]
    values = recipes.over(values, given)
    return from_plain(Settings, merge({"model": _below(checkpoints.load(source).settings, values)}, values))


def twin(given: Mapping[str, Any]) -> str | None:
    """Another timm model with the same tensors as the backbone's file that the user gave, if it is not named."""
    source, name = recipes.weights(None, given), given.get("model", {}).get("backbone", {}).get("name")
    file = None if source in STARTS or name is not None else _backbone_file(source, None)
    return file.twin if file is not None else None


def _backbone_file(source: str, name: str | None) -> BackboneFile | None:
    """:func:`retinanet.checkpoints.backbone`, once for a file that does not change."""
    state = os.stat(source) if os.path.isfile(source) else None
    return _recognised(source, name, None if state is None else (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=2)
def _recognised(source: str, name: str | None, state: tuple[int, int] | None) -> BackboneFile | None:
    return checkpoints.backbone(source, name)


def _beside_backbone(config: str | None, given: Mapping[str, Any], file: BackboneFile) -> Settings:
    """The settings of a run that starts from the weight file of a backbone."""
    values = recipes.values(config or recipes.FITTED)
    backbone = {"name": file.name, "weights": str(file.path), "options": {}, "frozen_norm": True}
    model: dict[str, Any] = {"backbone": backbone}
    if file.mean is not None:
        model["preprocessing"] = {"mean": list(file.mean), "std": list(file.std or ())}
    values = recipes.over(merge(values, {"model": model}), given)
    return from_plain(Settings, merge(values, {"train": {"weights": "none"}}))


def overruled(values: Mapping[str, Any]) -> list[str]:
    """The settings of a recipe that the checkpoint's replace."""
    if values.get("train", {}).get("weights", "none") != "none":
        return []
    return list(dotted(values.get("model", {}), "model."))


def _below(model: ModelSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint that still hold under ``values``, as nested dicts."""
    plain = to_plain(model)
    plain["backbone"]["weights"] = "none"  # the checkpoint contains them
    wanted = values.get("model", {}).get("backbone", {}).get("name", model.backbone.name)
    if wanted != model.backbone.name:  # the other settings belong to the checkpoint's backbone
        del plain["backbone"]
        plain["preprocessing"].update(mean=None, std=None, channels="rgb")
    return plain


@dataclass(frozen=True)
class Kept:
    """Which weights of a checkpoint a run starts from. Counters of batches are left out of all lists."""

    source: str
    origin: str | None
    """The project and network of the checkpoint, if it names them."""
    kept: int
    """Number of tensors that were copied whole."""
    classes: tuple[str, ...]
    """Classes whose rows of the class output were copied; empty if the output was copied whole."""
    new_classes: tuple[str, ...]
    """Classes whose rows of the class output are new."""
    new: tuple[str, ...]
    """Tensors of the model of which nothing was copied."""
    left: tuple[str, ...]
    """Tensors of the checkpoint of which nothing was copied."""
    changed: Mapping[str, tuple[Any, Any]]
    """Model settings that differ: (in the checkpoint, in the run)."""

    def plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def begin(settings: Settings, class_names: Sequence[str]) -> tuple[RetinaNet, Kept | None]:
    """The network that a run starts from, on the CPU, and what it takes from ``settings.train.weights``.

    New weights are drawn from torch's random numbers, so processes with the same seed get the same network.

    Raises:
        RequestError: the checkpoint cannot be read, does not fit, or holds numbers that are not finite.
    """
    source, wanted = settings.train.weights, settings.model.backbone
    require_memory(settings.model, len(class_names))
    if source == "none":
        return RetinaNet(settings.model, len(class_names)), None
    checkpoint = checkpoints.load(source)
    model = RetinaNet(settings.model, len(class_names), load_weights=False)
    fitting = _fitting(checkpoint, model, class_names)
    backbone = [name for name in model.state_dict() if name.startswith("backbone.") and _counted(name)]
    if fitting.isdisjoint(backbone) and (wanted.weights == "none" or not fitting):
        raise RequestError(
            f"the backbone of {source} ({checkpoint.settings.backbone.name}) does not fit that of the model "
            f"({wanted.name}): leave out model.backbone, to take the checkpoint's, or leave out train.weights"
        )
    if wanted.weights != "none" and not fitting.issuperset(backbone):
        model = RetinaNet(settings.model, len(class_names))  # pretrained weights for what the checkpoint lacks
    ours, theirs = model.state_dict(), checkpoint.state
    ours.update({name: theirs[name] for name in fitting})
    pairs = [] if fitting.issuperset(CLASS_OUTPUT) else _pairs(checkpoint, model, class_names)
    if pairs:
        anchors = model.settings.anchors.per_position
        ours.update({name: _rows(ours[name], theirs[name], pairs, anchors) for name in CLASS_OUTPUT})
    broken = next((name for name, tensor in ours.items() if not bool(torch.isfinite(tensor).all())), None)
    if broken is not None:
        raise RequestError(
            f"cannot start from {source}: {broken} holds numbers that are not finite; take another checkpoint"
        )
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
    """Names of the tensors that are copied whole: those with the same name, shape and meaning."""
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
    return fitting - backbone if share < SAME_BACKBONE else fitting


def _pairs(checkpoint: Checkpoint, model: RetinaNet, class_names: Sequence[str]) -> list[tuple[int, int]]:
    """(label in the run, label in the checkpoint) of classes with the same name; empty if the rows do not fit.

    Upper and lower case are treated alike, unless a name agrees exactly.
    """
    ours, theirs = model.state_dict(), checkpoint.state
    rows = model.settings.anchors.per_position * len(checkpoint.class_names)
    fit = all(name in theirs and theirs[name].shape == (rows, *ours[name].shape[1:]) for name in CLASS_OUTPUT)
    if not fit or not _same_anchors(checkpoint, model):
        return []
    there = {name.casefold(): label for label, name in reversed(list(enumerate(checkpoint.class_names)))}
    there |= {name: label for label, name in enumerate(checkpoint.class_names)}
    pairs = [(label, there.get(name, there.get(name.casefold()))) for label, name in enumerate(class_names)]
    return [(here, label) for here, label in pairs if label is not None]


def _rows(ours: Tensor, theirs: Tensor, pairs: Sequence[tuple[int, int]], anchors: int) -> Tensor:
    """``ours`` (anchors * K, ...) with the rows of the paired classes copied from ``theirs`` (anchors * L, ...)."""
    result = ours.unflatten(0, (anchors, -1)).clone()  # (anchors, K, ...)
    here, there = (list(labels) for labels in zip(*pairs))
    result[:, here] = theirs.unflatten(0, (anchors, -1))[:, there].to(result.dtype)
    return result.flatten(0, 1)


def _same_anchors(checkpoint: Checkpoint, model: RetinaNet) -> bool:
    return checkpoint.settings.anchors.per_position == model.settings.anchors.per_position


def _counted(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _changed(there: ModelSettings, here: ModelSettings) -> dict[str, tuple[Any, Any]]:
    before, after = (dotted({"model": to_plain(settings)}) for settings in (there, here))
    before |= {name: after[name] for name in FILLED_IN if before[name] is None}
    return {name: (before[name], after[name]) for name in after if before[name] != after[name] and name not in HARMLESS}
