"""MMDetection's RetinaNets: their weights under our names, their conventions from the configuration they carry.

What a file does not say is taken from the model zoo and told in the checkpoint's ``extra["assumed"]``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from retinanet.checkpoints.architecture import by_ratio, count_batches, require_fit, resnet, shape, words
from retinanet.checkpoints.foreign import coco_classes, mmdetection_config, mmdetection_settings
from retinanet.checkpoints.foreign.mmdetection_config import Part
from retinanet.checkpoints.foreign.mmdetection_settings import Meaning
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.config.settings import AnchorSettings, ModelSettings, SettingsError, overlaid
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
BESIDE = ("ema_", "data_preprocessor.", "bbox_head.loss_")
"""Averaged duplicates of the weights, the means of colours, counters of a loss: no weights."""


def recognises(contents: Contents) -> bool:
    """Whether these are the tensors of an MMDetection detector, RetinaNet or not."""
    return any(name.startswith(("bbox_head.", "neck.lateral_convs.", "roi_head.")) for name in contents.tensors)


def convert(contents: Contents, given: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint of ours that gives the boxes that MMDetection gives with this one.

    Args:
        given: model settings, as nested dicts, that stand over those of the configuration.

    Raises:
        RequestError: where the file holds another kind of detector, one of MMDetection 1.x, or a RetinaNet that cannot
            be built here; where tensors are missing, left over, of other shapes, or not finite.
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
        count = _classes(contents, settings.anchors)
        state, origins = _state(contents, settings)
        require_fit(contents.path, state, origins, settings, count)
    except SettingsError as error:
        raise RequestError(f"{path} cannot be converted: {error}") from None
    _rearrange(state, meaning, settings.anchors)
    assumed += meaning.assumed
    names = _names(meta, count)
    if names is None:
        names = coco_classes.names(count)
        assumed.append(f"the names of its {count} classes{', which are those of COCO' if count == 80 else ''}")
    style = " (caffe)" if meaning.bgr else ""
    return Checkpoint(state, settings, names, {"origin": f"MMDetection, {words(name)}{style}", "assumed": assumed})


def _check_neck(contents: Contents) -> None:
    """Necks whose names are like those of an FPN, one of 1.x among them, and are none."""
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
    """The configuration, that of the zoo where there is none, and what was assumed."""
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
    for part, convolutions in (("bbox_head", TOWER), ("neck", NECK)):
        kinds = {found[3] for name in contents.tensors if (found := convolutions.fullmatch(name))}
        if norm := next((NORMS[kind] for kind in NORMS if kind in kinds), None):
            zoo["model"][part]["norm_cfg"] = norm
            assumed.append(f"{part}: norm_cfg {norm}, because the names of its tensors say so")
    return Part(contents.path, "", zoo), assumed


def _classes(contents: Contents, anchors: AnchorSettings) -> int:
    rows, boxes, per_position = shape(contents, CLASSES)[0], shape(contents, BOXES)[0], anchors.per_position
    if boxes != 4 * per_position or rows == 0 or rows % per_position:
        raise RequestError(
            f"{contents.path} has {boxes} box outputs and {rows} class outputs at a position; with its {per_position} "
            "anchors there should be 4 boxes' numbers and one per class for each of them"
        )
    return rows // per_position


def _names(meta: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """The class names that the file gives, where they are as many as its classes."""
    data = meta.get("dataset_meta")
    places = [meta, data] if isinstance(data, dict) else [meta]
    for names in (place.get(key) for place in places for key in ("CLASSES", "classes")):
        given = (names,) if isinstance(names, str) else names
        if isinstance(given, list | tuple) and len(given) == count and all(isinstance(name, str) for name in given):
            return tuple(given)
    return None


def rename(name: str, first_level: int) -> str | None:
    """A tensor's name there -> its name here, None for one that is not known."""
    if found := TOWER.fullmatch(name):
        subnet = "class" if found[1] == "cls" else "box"
        return f"{subnet}_subnet.tower.{found[2]}.{'conv' if found[3] == 'conv' else 'norm.0'}.{found[4]}"
    if found := NECK.fullmatch(name):
        level = first_level + int(found[2])
        part = "lateral" if found[1] == "lateral" else "output"
        place = f"p{level}" if level > 5 else f"{part}.{level}"
        return f"pyramid.{place}.{'conv' if found[3] == 'conv' else 'norm.0'}.{found[4]}"
    for there, here in (("retina_cls", "class_subnet.output"), ("retina_reg", "box_subnet.output")):
        if found := re.fullmatch(rf"bbox_head\.{there}\.(weight|bias)", name):
            return f"{here}.{found[1]}"
    return name.replace("backbone.", "backbone.body.", 1) if name.startswith("backbone.") else None


def _state(contents: Contents, settings: ModelSettings) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors under our names, and each one's name there."""
    state: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for name, tensor in contents.tensors.items():
        if name.startswith(BESIDE):
            continue
        ours = rename(name, settings.anchors.first_level)
        if ours is None:
            raise RequestError(
                f"{contents.path} holds {name}, which no RetinaNet of MMDetection that can be converted has"
            )
        places = [ours]
        if settings.head.norm == "batch" and ".norm.0." in ours and "_subnet." in ours:
            # Theirs is one for all levels, ours is one for each.
            places = [ours.replace(".norm.0.", f".norm.{i}.") for i in range(len(settings.anchors.sizes))]
        for place in places:
            state[place], origins[place] = tensor.float() if tensor.is_floating_point() else tensor, name
    count_batches(state)
    return state, origins


def _rearrange(state: dict[str, Tensor], meaning: Meaning, anchors: AnchorSettings) -> None:
    """Our order of anchors, and box outputs that need no normalisation."""
    if not meaning.scale_major:
        by_ratio(state, anchors)
    if meaning.stds != [1.0] * 4 or meaning.means != [0.0] * 4:
        stds = torch.tensor(meaning.stds).repeat(anchors.per_position)
        means = torch.tensor(meaning.means).repeat(anchors.per_position)
        state["box_subnet.output.weight"] = state["box_subnet.output.weight"] * stds[:, None, None, None]
        state["box_subnet.output.bias"] = state["box_subnet.output.bias"] * stds + means
