"""The RetinaNets of the first Detectron (Caffe2): their blobs under our names, and what their boxes depend on.

A file of its model zoo is a pickle of the blobs and the text of its configuration. Anchors, image size and
post-processing follow that text; what it leaves out is as in the zoo's configurations of RetinaNet.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retinanet.checkpoints.architecture import class_count, count_batches, require_fit, shape
from retinanet.checkpoints.foreign import coco_classes
from retinanet.checkpoints.foreign.detectron_config import Configuration
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import SettingsError
from retinanet.config.convert import overlaid
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

DEPTHS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
"""Blocks of each stage -> the ResNet's depth."""
RESNEXTS = {(50, 32, 4), (101, 32, 4), (101, 32, 8), (101, 64, 4)}
"""(depth, groups, channels of a group) that timm has."""

PIXEL_MEANS = (102.9801, 115.9465, 122.7717)  # of B, G and R in 0..255
RATIOS = (1.0, 2.0, 0.5)  # in this order in all of the zoo's configurations

# The optimizer's state, and unused blobs of an ImageNet classifier: a bias before an affine map, the statistics that
# the map stands for, the classifier's last layer.
UNUSED = re.compile(r".*_momentum|conv1_b|.*_bn_(rm|riv)|(fc1000|pred)_[wb]")
NORM_EPS = 1e-5


def recognises(contents: Contents) -> bool:
    """Whether these are the blobs of a RetinaNet of Detectron."""
    return "conv1_w" in contents.tensors and any(name.startswith("retnet_cls_pred_") for name in contents.tensors)


def convert(contents: Contents, given: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint of name that gives the boxes that Detectron writes into its results with this file.

    Args:
        given: model settings, as nested dicts, that override those of the configuration.

    Raises:
        RequestError: the model cannot be built here; or blobs are missing, left over, of other shapes, or not finite.
    """
    path, blobs = contents.path, contents.tensors
    cfg = Configuration(path, contents.about.get("cfg"))
    cfg.check()
    stages = tuple(_count(contents, f"res{stage}_{{}}_branch2a_w") for stage in range(2, 6))
    depth = DEPTHS.get(stages)
    if depth is None:
        raise RequestError(f"{path} has a backbone of {list(stages)} blocks, which is no ResNet-50, 101 or 152")
    inner, width = shape(contents, "res2_0_branch2b_w")[:2]
    groups = inner // width
    resnext = f"{groups}x{width}d" if groups > 1 else ""
    if resnext and (depth, groups, width) not in RESNEXTS:
        raise RequestError(f"{path} has a ResNeXt-{depth}-{resnext} as backbone, which timm does not have")

    backbone = f"resnext{depth}_{resnext}" if resnext else f"resnet{depth}"
    ratios = cfg.numbers("RETINANET.ASPECT_RATIOS", RATIOS)
    octave = cfg.whole("RETINANET.SCALES_PER_OCTAVE", 3)
    try:
        configured = _settings(contents, cfg, backbone, ratios, octave)
        settings = overlaid(configured, given or {})
    except SettingsError as error:
        raise RequestError(f"{path} has a configuration that cannot be used here: {first_line(error)}") from error
    classes = _classes(contents, cfg, configured.anchors)

    names = _names(stages, settings.head.depth)
    _require_known(contents, set(names.values()))
    state = {}
    for name, blob in names.items():
        state[name] = blobs[blob].float()
        if blob.endswith("_bn_s"):
            norm = name.removesuffix("weight")
            state[f"{norm}running_mean"] = torch.zeros_like(state[name])
            state[f"{norm}running_var"] = torch.full_like(state[name], 1 - NORM_EPS)  # eps makes it 1: an affine map
    count_batches(state)
    require_fit(contents.path, state, names, settings, classes)
    for output in ("class_subnet.output", "box_subnet.output"):
        for kind in ("weight", "bias"):
            state[f"{output}.{kind}"] = _reorder(state[f"{output}.{kind}"], ratios, octave)
    origin = f"Detectron, ResNeXt-{depth}-{resnext}" if resnext else f"Detectron, ResNet-{depth}"
    return Checkpoint(state, settings, coco_classes.names(classes), {"origin": origin})


def _classes(contents: Contents, cfg: Configuration, anchors: AnchorSettings) -> int:
    classes = class_count(contents, "retnet_cls_pred_fpn3_w", "retnet_bbox_pred_fpn3_w", anchors)
    wanted = cfg.whole("MODEL.NUM_CLASSES", 81 if classes == 81 else classes + 1) - 1  # it counts the background
    if classes != wanted:
        raise RequestError(
            f"{contents.path} has {classes} class outputs for an anchor, not {wanted}: if one is the background's, it "
            "is a model with softmax, which cannot be converted"
        )
    return classes


def _settings(
    contents: Contents, cfg: Configuration, backbone: str, ratios: tuple[float, ...], octave: int
) -> ModelSettings:
    size = cfg.numbers("TEST.SCALES", (cfg.whole("TEST.SCALE", 800),))  # renamed in January 2018
    if len(size) != 1 or size[0] % 1:
        raise RequestError(f"{contents.path} is configured for images of several sizes, TEST.SCALES {list(size)}")
    means = cfg.numbers("PIXEL_MEANS", PIXEL_MEANS)
    if len(means) != 3:
        raise RequestError(f"{contents.path} has {len(means)} numbers as PIXEL_MEANS, not one each for B, G and R")
    base = cfg.number("RETINANET.ANCHOR_SCALE", 4)
    return ModelSettings(
        backbone=BackboneSettings(
            name=backbone,
            # The ResNets start from Microsoft's weights, the ResNeXts from Torch's.
            stride_in_1x1=bool(cfg.get("RESNETS.STRIDE_1X1", backbone.startswith("resnet"))),
            norm_eps=NORM_EPS,
        ),
        pyramid=PyramidSettings(channels=shape(contents, "fpn_6_w")[0]),
        head=HeadSettings(
            depth=_count(contents, "retnet_cls_conv_n{}_fpn3_w"), width=shape(contents, "retnet_cls_pred_fpn3_w")[1]
        ),
        anchors=AnchorSettings(
            sizes=tuple(base * 2**level for level in range(3, 8)),
            scales=tuple(2 ** (step / octave) for step in range(octave)),
            ratios=tuple(sorted(ratios)),
            rounding="detectron",
        ),
        preprocessing=PreprocessingSettings(
            size=int(size[0]),
            longer=cfg.whole("TEST.MAX_SIZE", 1333),
            rounding="detectron",
            interpolation="plain",
            channels="bgr",
            mean=(means[2] / 255, means[1] / 255, means[0] / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
            multiple=cfg.whole("FPN.COARSEST_STRIDE", 128),
        ),
        postprocessing=PostprocessingSettings(
            threshold=cfg.number("RETINANET.INFERENCE_TH", 0.05),
            candidates=cfg.whole("RETINANET.PRE_NMS_TOP_N", 1000),
            nms_iou=cfg.number("TEST.NMS", 0.5),
            max_detections=cfg.whole("TEST.DETECTIONS_PER_IM", 100),
            coarsest_threshold=0.0,
            inclusive=True,
        ),
    )


def _names(stages: tuple[int, ...], tower: int) -> dict[str, str]:
    """Our names of weights and biases -> the names of their blobs."""
    names = {"backbone.body.conv1.weight": "conv1_w"}
    norms = {"backbone.body.bn1": "res_conv1_bn"}
    for stage, count in enumerate(stages, start=2):
        for block in range(count):
            name, blob = f"backbone.body.layer{stage - 1}.{block}", f"res{stage}_{block}_branch"
            for index, branch in enumerate(("2a", "2b", "2c"), start=1):
                names[f"{name}.conv{index}.weight"] = f"{blob}{branch}_w"
                norms[f"{name}.bn{index}"] = f"{blob}{branch}_bn"
            if block == 0:
                names[f"{name}.downsample.0.weight"] = f"{blob}1_w"
                norms[f"{name}.downsample.1"] = f"{blob}1_bn"
    convolutions = {"pyramid.p6.conv": "fpn_6", "pyramid.p7.conv": "fpn_7"}
    for level, count in zip((3, 4, 5), stages[1:], strict=True):
        last = f"res{level}_{count - 1}_sum"
        convolutions[f"pyramid.lateral.{level}.conv"] = f"fpn_inner_{last}" + ("_lateral" if level < 5 else "")
        convolutions[f"pyramid.output.{level}.conv"] = f"fpn_{last}"
    for name, blob in (("class_subnet", "retnet_cls"), ("box_subnet", "retnet_bbox")):
        for index in range(tower):
            convolutions[f"{name}.tower.{index}.conv"] = f"{blob}_conv_n{index}_fpn3"
        convolutions[f"{name}.output"] = f"{blob}_pred_fpn3"
    for pairs, weight in ((convolutions, "w"), (norms, "s")):
        names |= {f"{name}.weight": f"{blob}_{weight}" for name, blob in pairs.items()}
        names |= {f"{name}.bias": f"{blob}_b" for name, blob in pairs.items()}
    return names


def _require_known(contents: Contents, known: set[str]) -> None:
    """Refuse a file in which a blob of the model is missing, or that has another blob."""
    path, blobs = contents.path, contents.tensors
    if left := [name for name in blobs if name not in known and not UNUSED.fullmatch(name)]:
        more = f" and {len(left) - 1} more blobs" if len(left) > 1 else ""
        raise RequestError(f"{path} has {left[0]}{more}, which no RetinaNet of Detectron's model zoo has")
    if missing := sorted(known - blobs.keys()):
        raise RequestError(f"{path} has no blob {missing[0]}: it is not a whole RetinaNet of Detectron")


def _reorder(tensor: Tensor, ratios: tuple[float, ...], octave: int) -> Tensor:
    """Rows by octave, then by ratio as configured, then class or coordinate -> by ratio ascending, then octave."""
    order = sorted(range(len(ratios)), key=lambda index: ratios[index])
    rows = tensor.reshape(octave, len(ratios), -1, *tensor.shape[1:])
    return rows[:, order].transpose(0, 1).reshape(tensor.shape)


def _count(contents: Contents, name: str) -> int:
    """How many blobs there are of a name that {} numbers from 0 on."""
    return next(number for number in itertools.count() if name.format(number) not in contents.tensors)
