"""Detectron2's RetinaNets: their weights under our names, and the conventions that their boxes depend on.

A checkpoint holds weights alone. Everything else is read from its config.yaml, or assumed
(:mod:`retinanet.checkpoints.foreign.detectron2_config`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import torch

from retinanet.checkpoints.architecture import (
    anchor_order,
    by_ratio,
    class_count,
    renamed,
    require_fit,
    resnet,
    shape,
    words,
)
from retinanet.checkpoints.class_names import assumption
from retinanet.checkpoints.foreign import coco_classes
from retinanet.checkpoints.foreign.detectron2_config import Detectron2Configuration
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.common.fields import SettingsError
from retinanet.config.bounds import Normalization
from retinanet.config.convert import overlaid
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PyramidSettings,
)
from retinanet.ops.anchors import cell_anchors
from retinanet.weight_files.reader import Contents

BODY = "backbone.bottom_up."
GROUPS = 32  # of their GN, always; ours has fewer in a narrow head

PATTERNS = (
    (r"backbone\.bottom_up\.stem\.conv1\.(\w+)", r"backbone.body.conv1.\1"),
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.(\w+)", r"backbone.body.layer<\1>.\2.conv\3.\4"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.(\w+)", r"backbone.body.layer<\1>.\2.bn\3.\4"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.(\w+)", r"backbone.body.layer<\1>.\2.downsample.0.\3"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.(\w+)", r"backbone.body.layer<\1>.\2.downsample.1.\3"),
    (r"backbone\.fpn_(lateral|output)([345])\.(\w+)", r"pyramid.\1.\2.conv.\3"),
    (r"backbone\.top_block\.(p[67])\.(\w+)", r"pyramid.\1.conv.\2"),
    (r"head\.cls_score\.(\w+)", r"class_subnet.output.\1"),
    (r"head\.bbox_pred\.(\w+)", r"box_subnet.output.\1"),
)
"""There -> here, but for the subnets' towers; a stage <n> there is a layer n - 1 here."""
TOWER = re.compile(r"head\.(cls|bbox)_subnet\.(\d+)\.((?:\d\.)?\w+)")
UNUSED = re.compile(r"pixel_mean|pixel_std|anchor_generator\.cell_anchors\.\d+")  # in old files; no weights


def recognises(contents: Contents) -> bool:
    """Whether these are the tensors of a Detectron2 detector, RetinaNet or not."""
    return any(name.startswith((BODY, "head.cls_subnet.")) for name in contents.tensors)


def convert(contents: Contents, given: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint of ours that gives the boxes that Detectron2's predictor gives with this one.

    Args:
        given: model settings, as nested dicts, that override those of the configuration.

    Raises:
        RequestError: the file holds another detector, or a RetinaNet that cannot be built here; or tensors are
            missing, left over, of other shapes, or not finite.
    """
    path, tensors = contents.path, contents.tensors
    for name in (f"{BODY}stem.conv1.weight", "backbone.top_block.p6.weight", "head.cls_score.weight"):
        if name not in tensors:
            raise RequestError(
                f"{path} is a checkpoint of Detectron2, but not of a RetinaNet with a ResNet: it has no {name}"
            )
    try:
        settings, assumed = _settings(contents, resnet(contents, BODY + "res{}", first=2), given or {})
    except SettingsError as error:
        raise RequestError(f"{path} cannot be converted: {error}") from None
    count = _classes(contents, settings.anchors)
    _check_anchors(contents, settings.anchors)
    if settings.head.norm == "group" and settings.head.width % (4 * GROUPS):
        raise RequestError(f"{path} has normalised heads of {settings.head.width} channels: too few for here")

    names = functools.partial(rename, norm=settings.head.norm, levels=len(settings.anchors.sizes))
    hint = (
        ": a ResNet without deformable convolutions, a pyramid without normalisation, and heads with none, GN or BN "
        "are known"
    )
    state, origins = renamed(contents, names, "Detectron2", UNUSED.fullmatch, hint)
    require_fit(path, state, origins, settings, count)
    by_ratio(state, settings.anchors)
    assumed.append(assumption(count))
    extra = {"origin": f"Detectron2, {words(settings.backbone.name)}", "assumed": assumed}
    return Checkpoint(state, settings, coco_classes.names(count), extra)


def rename(name: str, norm: Normalization = "none", levels: int = 5) -> list[str]:
    """A tensor's name there -> its names here, none for an unknown one.

    Args:
        norm: the subnets' normalisation. There a layer is convolution, normalisation if there is one, and ReLU.
        levels: the number of pyramid levels. Here each has a batch normalisation of its own, there they share one.
    """
    if match := TOWER.fullmatch(name):
        layer, position = divmod(int(match[2]), 2 if norm == "none" else 3)
        subnet = "class" if match[1] == "cls" else "box"
        prefix, (number, _, kind) = f"{subnet}_subnet.tower.{layer}", match[3].rpartition(".")
        if position == 0:
            return [f"{prefix}.conv.{kind}"] if not number else []
        if position != 1 or norm == "none" or (number and norm != "batch"):
            return []
        # Scale and shift are shared by all levels there; each level may have statistics of its own.
        numbers = [number] if number else range(levels if norm == "batch" else 1)
        return [f"{prefix}.norm.{i}.{kind}" for i in numbers]
    for there, here in PATTERNS:
        if match := re.fullmatch(there, name):
            return [re.sub(r"<(\d)>", lambda stage: str(int(stage[1]) - 1), match.expand(here))]
    return []


def _settings(contents: Contents, backbone: str, given: Mapping[str, Any]) -> tuple[ModelSettings, list[str]]:
    """The settings of the configuration and of the tensors' shapes, under those given; and what was assumed."""
    tensors = contents.tensors
    stored = {
        f"MODEL.{name.upper()}": tuple(tensors[name].double().flatten().tolist())
        for name in ("pixel_mean", "pixel_std")
        if name in tensors
    }
    configuration = Detectron2Configuration(contents, backbone, stored, given)
    meaning = configuration.meaning()
    towers = [match for name in tensors if (match := TOWER.fullmatch(name)) and match[1] == "cls"]
    convolutions = {match[2] for match in towers if tensors[match[0]].ndim == 4}
    normalised = {match[3].split(".")[-1] for match in towers if match[2] not in convolutions}
    norm: Normalization = "none" if not normalised else "batch" if "running_mean" in normalised else "group"
    width = shape(contents, "backbone.fpn_lateral3.weight")[0]
    settings = ModelSettings(
        backbone=BackboneSettings(
            name=backbone,
            frozen_norm=not any(name.startswith(BODY) and name.endswith("num_batches_tracked") for name in tensors),
            norm_eps=1e-5,
            stride_in_1x1=meaning.stride_in_1x1,
        ),
        pyramid=PyramidSettings(
            channels=width, p6_from="p5" if shape(contents, "backbone.top_block.p6.weight")[1] == width else "c5"
        ),
        head=HeadSettings(
            depth=len(convolutions),
            width=width,
            norm=norm,
            norm_bias=norm != "none",
            box_weights=meaning.box_weights,
        ),
        anchors=meaning.anchors,
        preprocessing=meaning.preprocessing,
        postprocessing=meaning.postprocessing,
    )
    settings = overlaid(settings, given)
    configuration.agree("MODEL.RETINANET.NUM_CONVS", len(convolutions))
    configuration.agree("MODEL.RETINANET.NUM_CLASSES", _classes(contents, settings.anchors))
    if depth := re.match(r"(?:wide_)?resne\w*?(\d+)", backbone):
        configuration.agree("MODEL.RESNETS.DEPTH", int(depth[1]))
    return settings, meaning.assumed


def _classes(contents: Contents, anchors: AnchorSettings) -> int:
    hint = (
        "Give its anchors: in the config.yaml of Detectron2 beside it, or convert it with --model.anchors.sizes, "
        ".scales and .ratios in its order"
    )
    return class_count(contents, "head.cls_score.weight", "head.bbox_pred.weight", anchors, hint)


def _check_anchors(contents: Contents, anchors: AnchorSettings) -> None:
    """Compare the anchors of one position, which old files hold for each level, with those of the settings."""
    prefix = "anchor_generator.cell_anchors."
    given = {name.removeprefix(prefix): t for name, t in contents.tensors.items() if name.startswith(prefix)}
    expected = {str(level): cell_anchors(anchors, level) for level in range(len(anchors.sizes))}
    order = anchor_order(anchors)
    same = given.keys() == expected.keys() and all(
        given[level].shape == cells.shape and torch.allclose(given[level][order].float(), cells, atol=1e-2)
        for level, cells in expected.items()
    )
    if given and not same:
        raise RequestError(
            f"{contents.path} has other anchors than sizes {list(anchors.sizes)}, scales {list(anchors.scales)} and "
            f"ratios {list(anchors.ratios)}: give its own, in the config.yaml of Detectron2 beside it"
        )
