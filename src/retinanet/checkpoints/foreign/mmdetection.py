"""MMDetection's RetinaNets: their weights under our names, their conventions from the configuration they carry.

What a file lacks is taken from the model zoo and listed in the checkpoint's ``extra["assumed"]``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from retinanet.checkpoints.architecture import by_ratio, class_count, renamed, require_fit, resnet, words
from retinanet.checkpoints.class_names import assumption
from retinanet.checkpoints.foreign import coco_classes, mmdetection_config, mmdetection_settings
from retinanet.checkpoints.foreign.mmdetection_config import Part
from retinanet.checkpoints.foreign.mmdetection_settings import Meaning
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.common.fields import SettingsError
from retinanet.config.bounds import Normalization
from retinanet.config.convert import overlaid
from retinanet.config.model_settings import AnchorSettings
from retinanet.weight_files.reader import Contents

CLASSES, BOXES = "bbox_head.retina_cls.weight", "bbox_head.retina_reg.weight"
TOWER = re.compile(r"bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|bn|gn)\.(\w+)")
NECK = re.compile(r"neck\.(lateral|fpn)_convs\.(\d+)\.(conv|bn|gn)\.(\w+)")
OLD = re.compile(r"bbox_head\.(cls|reg)_convs\.\d+\.(weight|bias)|neck\.(lateral|fpn)_convs\.\d+\.(weight|bias)")
NORMS: dict[str, dict[str, Any]] = {"gn": {"type": "GN", "num_groups": 32}, "bn": {"type": "BN"}}
"""What a normalisation is called in the names of tensors -> in a configuration."""
NECKS = {
    "neck.fpn_transitions.": "feature pyramid grids (FPG)",
    "neck.fpn_stages.": "NAS-FPN",
    "neck.pafpn_convs.": "PAFPN",
    "neck.rfp_modules.": "a recursive feature pyramid",
}
UNUSED = ("ema_", "data_preprocessor.", "bbox_head.loss_")
"""Averaged duplicates of the weights, the means of colours, counters of a loss: no weights."""


def recognises(contents: Contents) -> bool:
    """Whether these are the tensors of an MMDetection detector, RetinaNet or not."""
    return any(name.startswith(("bbox_head.", "neck.lateral_convs.", "roi_head.")) for name in contents.tensors)


def convert(contents: Contents, given: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint of ours that gives the boxes that MMDetection gives with this one.

    Args:
        given: model settings, as nested dicts, that override those of the configuration.

    Raises:
        RequestError: the file holds another detector, one of MMDetection 1.x, or a RetinaNet that cannot be built
            here; or tensors are missing, left over, of other shapes, or not finite.
    """
    path, meta = contents.path, contents.about.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    _check_neck(contents)
    _check_age(contents, meta)
    for name in (CLASSES, BOXES, "backbone.conv1.weight"):
        if name not in contents.tensors:
            raise RequestError(f"{path} is of MMDetection, but no RetinaNet with a ResNet: it has no {name}")
    config, assumed = _config(contents, meta)
    try:
        meaning = mmdetection_settings.read(config)
        name = resnet(contents, "backbone.layer{}")
        basic = name in ("resnet18", "resnet34")  # whose blocks have no 1 x 1 convolution to halve the size in
        body = replace(meaning.settings.backbone, name=name)
        settings = replace(meaning.settings, backbone=replace(body, stride_in_1x1=body.stride_in_1x1 and not basic))
        settings = overlaid(settings, given or {})
        count = class_count(contents, CLASSES, BOXES, settings.anchors)
        ours = functools.partial(rename, anchors=settings.anchors, norm=settings.head.norm)
        state, origins = renamed(contents, ours, "MMDetection", lambda name: name.startswith(UNUSED))
        require_fit(contents.path, state, origins, settings, count)
    except SettingsError as error:
        raise RequestError(f"{path} cannot be converted: {error}") from None
    _rearrange(state, meaning, settings.anchors)
    assumed += meaning.assumed
    names = _names(meta, count)
    if names is None:
        names = coco_classes.names(count)
        assumed.append(assumption(count))
    style = " (caffe)" if meaning.bgr else ""
    return Checkpoint(state, settings, names, {"origin": f"MMDetection, {words(name)}{style}", "assumed": assumed})


def _check_neck(contents: Contents) -> None:
    """Refuse necks that are no FPN, but whose tensors are named like those of an FPN."""
    for name in contents.tensors:
        neck = next((NECKS[prefix] for prefix in NECKS if name.startswith(prefix)), None)
        if neck is not None:
            raise RequestError(
                f"{contents.path} has {neck} as its neck (it has {name}); only those with a plain FPN can be converted"
            )


def _check_age(contents: Contents, meta: Mapping[str, Any]) -> None:
    old = next((name for name in contents.tensors if OLD.fullmatch(name)), None)
    version = str(meta.get("mmdet_version", ""))
    if old is None and not version.startswith(("0.", "1.")):
        return
    raise RequestError(
        f"{contents.path} was written by MMDetection {'1.x or earlier' if old else version}"
        f"{f' (it has {old})' if old else ''}, whose anchors and boxes are counted in other pixels: give a checkpoint "
        "trained with MMDetection 2 or 3"
    )


def _config(contents: Contents, meta: Mapping[str, Any]) -> tuple[Part, list[str]]:
    """The configuration, or the zoo's where there is none; and what was assumed."""
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), None)
    values = None if text is None else mmdetection_config.parse(text)
    if values is not None and isinstance(values.get("model"), dict):
        return Part(contents.path, "", values), []
    caffe = "caffe" in PurePath(contents.path).name.lower()
    kind = "caffe" if caffe else "pytorch"
    why = "its name says caffe" if caffe else "its name does not say caffe"
    what = "has no configuration" if text is None else "has a configuration that cannot be read"
    zoo = mmdetection_settings.zoo(caffe)
    assumed = [
        f"the file {what}: sizes, anchors and thresholds are those of MMDetection's model zoo",
        f'the ResNet is of the kind "{kind}", because {why}',
    ]
    for section, convolutions in (("bbox_head", TOWER), ("neck", NECK)):
        layers = {match[3] for name in contents.tensors if (match := convolutions.fullmatch(name))}
        if norm := next((NORMS[layer] for layer in NORMS if layer in layers), None):
            zoo["model"][section]["norm_cfg"] = norm
            assumed.append(f"{section}: norm_cfg {norm}, because the names of its tensors say so")
    return Part(contents.path, "", zoo), assumed


def _names(meta: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """The class names in the file; None where their number is not that of the classes."""
    data = meta.get("dataset_meta")
    mappings = [meta, data] if isinstance(data, dict) else [meta]
    for names in (mapping.get(key) for mapping in mappings for key in ("CLASSES", "classes")):
        given = (names,) if isinstance(names, str) else names
        if isinstance(given, list | tuple) and len(given) == count and all(isinstance(name, str) for name in given):
            return tuple(given)
    return None


def rename(name: str, anchors: AnchorSettings, norm: Normalization) -> list[str]:
    """A tensor's name there -> its names here, none for an unknown one.

    Args:
        norm: the subnets' normalisation. Here each level has a batch normalisation of its own, there they share one.
    """
    if match := TOWER.fullmatch(name):
        prefix = f"{'class' if match[1] == 'cls' else 'box'}_subnet.tower.{match[2]}"
        if match[3] == "conv":
            return [f"{prefix}.conv.{match[4]}"]
        return [f"{prefix}.norm.{i}.{match[4]}" for i in range(len(anchors.sizes) if norm == "batch" else 1)]
    if match := NECK.fullmatch(name):
        level = anchors.first_level + int(match[2])
        kind = "lateral" if match[1] == "lateral" else "output"
        layer = f"p{level}" if level > 5 else f"{kind}.{level}"
        return [f"pyramid.{layer}.{'conv' if match[3] == 'conv' else 'norm.0'}.{match[4]}"]
    for there, here in (("retina_cls", "class_subnet.output"), ("retina_reg", "box_subnet.output")):
        if match := re.fullmatch(rf"bbox_head\.{there}\.(weight|bias)", name):
            return [f"{here}.{match[1]}"]
    return [name.replace("backbone.", "backbone.body.", 1)] if name.startswith("backbone.") else []


def _rearrange(state: dict[str, Tensor], meaning: Meaning, anchors: AnchorSettings) -> None:
    """Change the order of anchors into ours, and put the normalisation of boxes into the weights."""
    if not meaning.scale_major:
        by_ratio(state, anchors)
    if meaning.stds != [1.0] * 4 or meaning.means != [0.0] * 4:
        stds = torch.tensor(meaning.stds).repeat(anchors.per_position)
        means = torch.tensor(meaning.means).repeat(anchors.per_position)
        state["box_subnet.output.weight"] = state["box_subnet.output.weight"] * stds[:, None, None, None]
        state["box_subnet.output.bias"] = state["box_subnet.output.bias"] * stds + means
