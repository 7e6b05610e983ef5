"""torchvision's RetinaNets: their settings and their weights' names in our terms.

A file holds weights alone. Everything else has torchvision's defaults, and is listed in the checkpoint's
``extra["assumed"]``. Files of DeepForest, whose detector is torchvision's, hold a few of these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from retinanet.checkpoints.architecture import class_count, count_batches, require_fit, resnet, shape, words
from retinanet.checkpoints.class_names import assumption
from retinanet.checkpoints.foreign import coco_classes, deepforest
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.config.convert import dotted, overlaid
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.weight_files.reader import Contents

PREFIXES = {
    "backbone.fpn.inner_blocks.": "pyramid.lateral.",
    "backbone.fpn.layer_blocks.": "pyramid.output.",
    "backbone.fpn.extra_blocks.": "pyramid.",
    "head.classification_head.conv.": "class_subnet.tower.",
    "head.regression_head.conv.": "box_subnet.tower.",
    "head.classification_head.cls_logits.": "class_subnet.output.",
    "head.regression_head.bbox_reg.": "box_subnet.output.",
}
"""There -> here; the backbone's own names are the same."""
OUTPUTS = ("head.classification_head.cls_logits.weight", "head.regression_head.bbox_reg.weight")
COCO_ROWS = 91  # torchvision's labels are COCO's ids


def settings(version: Literal["v1", "v2"], size: int = 800, longer: int = 1333) -> ModelSettings:
    """The conventions of ``retinanet_resnet50_fpn`` ("v1") or ``retinanet_resnet50_fpn_v2`` ("v2").

    Args:
        size, longer: its ``min_size`` and ``max_size``.
    """
    return ModelSettings(
        backbone=BackboneSettings(name="resnet50"),
        pyramid=PyramidSettings(p6_from="p5" if version == "v1" else "c5"),
        head=HeadSettings(norm="none" if version == "v1" else "group"),
        anchors=AnchorSettings(offset=0.0, rounding="torchvision", strides="torchvision"),
        preprocessing=PreprocessingSettings(
            size=size,
            longer=longer,
            rounding="down",
            interpolation="plain",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        postprocessing=PostprocessingSettings(max_detections=300),
    )


def rename(name: str) -> str:
    """A tensor's name there, in the spelling of today or of the first file published -> its name here."""
    for there, here in PREFIXES.items():
        if name.startswith(there):
            rest = name.removeprefix(there)
            if "tower" in here:
                index, *inner, kind = rest.split(".")
                if not inner:  # the first spelling: convolutions and ReLUs are counted as one list
                    return f"{here}{int(index) / 2:g}.conv.{kind}"
                return f"{here}{index}.{'conv' if inner == ['0'] else 'norm.0'}.{kind}"
            if "blocks" in there:
                level, kind = rest.split(".")[0], rest.split(".")[-1]
                level = str(int(level) + 3) if level.isdigit() else level  # there 0 is P3; extra blocks are p6 and p7
                return f"{here}{level}.conv.{kind}"
            return here + rest
    return name


def convert_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict -> that of :class:`retinanet.RetinaNet` with :func:`settings`."""
    result = {rename(name): tensor for name, tensor in state.items()}
    count_batches(result)
    return result


def recognises(contents: Contents) -> bool:
    """Whether these are the tensors of a detector of torchvision's with a feature pyramid, RetinaNet or not."""
    return any(
        name.startswith(("backbone.fpn.inner_blocks.", "head.classification_head.")) for name in contents.tensors
    )


def convert(contents: Contents, given: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint of ours that gives the boxes that torchvision's (or DeepForest's) model gives with this one.

    Args:
        given: model settings, as nested dicts, that override what is assumed.

    Raises:
        RequestError: the file holds another detector, or a RetinaNet that cannot be built here; or tensors are
            missing, left over, of other shapes, or not finite.
    """
    path, tensors = contents.path, contents.tensors
    others = [name for name in tensors if name.startswith(("rpn.", "roi_heads.")) or ".bbox_ctrness." in name]
    if others or any(name not in tensors for name in OUTPUTS):
        what = others[0] if others else "no " + next(name for name in OUTPUTS if name not in tensors)
        raise RequestError(
            f"{path} is a detector of torchvision's, but not a RetinaNet (it has {what}): give a RetinaNet's checkpoint"
        )
    given = given or {}
    model, chosen = _settings(contents), dotted(given)
    hint = "The file does not hold its anchors: convert it with --model.anchors.sizes, .scales and .ratios"
    count = class_count(contents, *OUTPUTS, overlaid(model, given).anchors, hint)
    assumed = [] if "anchors" in given else ["anchors: those of torchvision's RetinaNets; the file does not hold them"]
    origin, names = "torchvision", coco_classes.names(count)
    forest = deepforest.recognise(contents.about, count)
    if forest is not None:
        origin, names, model = "DeepForest", forest.names, forest.applied(model)
        assumed += forest.assumed
    elif not {"preprocessing.size", "preprocessing.longer"} <= chosen.keys():
        assumed.append("images: the shorter side becomes 800 pixels, the longer at most 1333, torchvision's defaults")
    if forest is None and count != COCO_ROWS:
        assumed.append(assumption(count))
    if model.backbone.frozen_norm and "backbone.norm_eps" not in chosen:
        eps = forest.eps if forest is not None else _eps(contents.about, count)
        model = replace(model, backbone=replace(model.backbone, norm_eps=eps))
        if forest is not None or count != COCO_ROWS:
            assumed.append(
                f"batch normalisation adds {eps:g} to the variance; a model made from torchvision's COCO weights adds "
                "0, others 1e-05, and the file does not say which (model.backbone.norm_eps)"
            )
    model = overlaid(model, given)
    state = convert_state(tensors)
    require_fit(contents.path, state, {rename(name): name for name in tensors}, model, count)
    version = "v1" if model.pyramid.p6_from == "p5" else "v2"
    extra = {"origin": f"{origin}, {words(model.backbone.name)} {version}", "assumed": assumed}
    return Checkpoint(state, model, names, extra)


def _settings(contents: Contents) -> ModelSettings:
    """torchvision's settings, with those of the network that the tensors show."""
    names = contents.tensors
    width = shape(contents, OUTPUTS[0])[1]
    p6_from_p5 = shape(contents, "backbone.fpn.extra_blocks.p6.weight")[1] == width
    towers = [rename(name) for name in names if name.startswith("head.classification_head.conv.")]
    depth = len({name for name in towers if name.endswith(".conv.weight")})
    base = settings("v1" if p6_from_p5 else "v2")
    frozen = not any(name.startswith("backbone.body.") and name.endswith("num_batches_tracked") for name in names)
    norm: Literal["group", "none"] = "group" if any(".norm." in name for name in towers) else "none"
    return replace(
        base,
        backbone=BackboneSettings(name=resnet(contents, "backbone.body.layer{}"), frozen_norm=frozen),
        pyramid=replace(base.pyramid, channels=width),
        head=replace(base.head, depth=depth, width=width, norm=norm),
    )


def _eps(about: Mapping[str, Any], count: int) -> float:
    """The eps of batch normalisation with constants: 0 in the model of the published COCO weights."""
    args = about.get("args")  # of torchvision's training script
    if isinstance(args, dict) and "weights_backbone" in args:
        return 0.0 if args.get("weights") or args.get("pretrained") else 1e-5
    return 0.0 if count == COCO_ROWS else 1e-5
