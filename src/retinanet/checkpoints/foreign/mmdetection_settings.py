"""An MMDetection configuration as our settings; what these cannot express is refused.

Absent settings have the defaults of MMDetection's classes. A file without a configuration gets that of the model zoo
(:func:`zoo`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

from retinanet.checkpoints.foreign.mmdetection_config import Part
from retinanet.config.bounds import Normalization
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)

HEADS = ("RetinaHead", "PISARetinaHead", "FreeAnchorRetinaHead")  # these differ in training alone
LOSSES = ("FocalLoss", "GHMC", "CrossEntropyLoss", "QualityFocalLoss")
CODER = "DeltaXYWHBBoxCoder"
TRAINING = ("train_cfg", "test_cfg", "num_classes", "in_channels", "norm_cfg")
LOADING = ("LoadImageFromFile", "LoadImageFromNDArray", "LoadImageFromWebcam")
HARMLESS = (*LOADING, "LoadAnnotations", "ImageToTensor", "DefaultFormatBundle", "Collect", "PackDetInputs")
Norm = dict[str | None, Normalization]
NORMS: Norm = {None: "none", "BN": "batch", "SyncBN": "batch", "MMSyncBN": "batch", "GN": "group"}


class Meaning(NamedTuple):
    """A configuration as our settings."""

    settings: ModelSettings  # the backbone without its name
    bgr: bool
    """The network takes blue, green, red."""
    scale_major: bool
    """Whether the anchors are ordered by ratio, then by scale, as ours are."""
    means: list[float]
    stds: list[float]
    """The box outputs are multiplied by ``stds``, then ``means`` are added."""
    assumed: list[str]


def zoo(caffe: bool) -> dict[str, Any]:
    """The settings that the zoo's configurations share, for ResNets of the kind "caffe" or "pytorch"."""
    colours: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
    if caffe:
        colours = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}
    return {
        "model": {
            "data_preprocessor": {**colours, "pad_size_divisor": 32},
            "backbone": {"type": "ResNet", "frozen_stages": 1, "style": "caffe" if caffe else "pytorch"},
            "neck": {"type": "FPN", "start_level": 1, "add_extra_convs": "on_input", "num_outs": 5},
            "bbox_head": {"type": "RetinaHead"},
            "test_cfg": {"min_bbox_size": 0, "nms_pre": 1000, "score_thr": 0.05, "max_per_img": 100},
        },
        "test_pipeline": [{"type": "Resize", "scale": (1333, 800), "keep_ratio": True}],
    }


def read(config: Part) -> Meaning:
    """The configuration as our settings.

    Raises:
        RequestError: something in it cannot be expressed here, or is computed.
    """
    model = config.part("model")
    model.type("RetinaNet", "SingleStageDetector", default="RetinaNet")
    images, bgr, assumed = _preprocessing(config, model)
    neck, head = model.part("neck"), model.part("bbox_head")
    head.type(*HEADS, default=HEADS[0])
    pyramid, first_level = _pyramid(neck)
    boxes = head.part("bbox_coder")
    boxes.type(CODER, default=CODER)
    boxes.understood("target_means", "target_stds", "clip_border", "add_ctr_clamp", "ctr_clamp", "use_box_type")
    boxes.only(clip_border=True, add_ctr_clamp=False)
    anchors, scale_major = _anchors(head.part("anchor_generator"), first_level)
    settings = ModelSettings(
        backbone=_backbone(model.part("backbone")),
        pyramid=pyramid,
        head=_head(head),
        anchors=anchors,
        preprocessing=images,
        postprocessing=_postprocessing(config, model),
    )
    means, stds = boxes.numbers("target_means", [0.0] * 4), boxes.numbers("target_stds", [1.0] * 4)
    if len(means) != 4 or len(stds) != 4:
        raise boxes.refuse("target_means" if len(means) != 4 else "target_stds", "four numbers")
    return Meaning(settings, bgr, scale_major, means, stds, assumed)


def _backbone(part: Part) -> BackboneSettings:
    kind = part.type("ResNet", "ResNeXt", default="ResNet")
    part.understood(
        *("depth", "groups", "base_width", "num_stages", "strides", "dilations", "out_indices", "style", "deep_stem"),
        *("avg_down", "frozen_stages", "norm_cfg", "norm_eval", "dcn", "stage_with_dcn", "plugins", "with_cp"),
        *("zero_init_residual", "pretrained", "in_channels", "stem_channels", "base_channels", "conv_cfg"),
    )
    part.only(num_stages=4, strides=[1, 2, 2, 2], dilations=[1, 1, 1, 1], out_indices=[0, 1, 2, 3], dcn=None)
    part.only(deep_stem=False, avg_down=False, plugins=None, conv_cfg=None, in_channels=3, base_channels=64)
    norm = part.part("norm_cfg")
    norm.type("BN", "SyncBN", "MMSyncBN", default="BN")
    style = part.get("style", "pytorch")
    if style not in ("pytorch", "caffe"):
        raise part.refuse("style", "'pytorch', 'caffe'")
    frozen = part.get("frozen_stages", -1)
    return BackboneSettings(
        name=kind,
        frozen_stages=min(frozen, 4) + 1 if isinstance(frozen, int) and frozen >= 0 else 0,
        frozen_norm=part.flag("norm_eval", True),
        norm_eps=norm.number("eps", 1e-5),
        stride_in_1x1=style == "caffe",
    )


def _norm(part: Part, key: str, width: int) -> Normalization:
    """The normalisation of pyramid or head, whose width is that of ``key``."""
    norm = part.part("norm_cfg")
    if not norm.values:
        return "none"
    kind = NORMS[norm.type("BN", "SyncBN", "MMSyncBN", "GN", default="BN")]
    norm.understood("requires_grad", "num_groups", "eps", "momentum")
    norm.only(eps=1e-5, num_groups=32)
    if kind == "group" and width % 128:
        raise part.refuse(key, "a multiple of 128 where there is GN")
    return kind


def _pyramid(part: Part) -> tuple[PyramidSettings, int]:
    part.type("FPN", default="FPN")
    part.understood(
        *("in_channels", "out_channels", "num_outs", "start_level", "end_level", "add_extra_convs", "norm_cfg"),
        *("extra_convs_on_inputs", "relu_before_extra_convs", "no_norm_on_lateral", "conv_cfg", "upsample_cfg"),
    )
    part.only(no_norm_on_lateral=False, conv_cfg=None)
    if part.get("end_level", -1) not in (-1, 3):
        raise part.refuse("end_level", "-1")
    part.part("upsample_cfg").only(mode="nearest", scale_factor=2)
    start = part.get("start_level", 0)
    if start not in (0, 1, 2, 3):
        raise part.refuse("start_level", "0, 1, 2, 3")
    source = part.get("add_extra_convs", False)
    if source is True:  # before "on_input" and its like there was a second switch
        source = "on_input" if part.flag("extra_convs_on_inputs", True) else "on_output"
    if source not in ("on_input", "on_output"):
        raise part.refuse("add_extra_convs", "'on_input', 'on_output'")
    channels = part.count("out_channels", 256)
    return PyramidSettings(
        channels=channels,
        p6_from="c5" if source == "on_input" else "p5",
        p7_relu=part.flag("relu_before_extra_convs", False),
        norm=_norm(part, "out_channels", channels),
    ), 2 + start


def _head(part: Part) -> HeadSettings:
    part.understood(
        *("stacked_convs", "feat_channels", "conv_cfg", "anchor_generator", "bbox_coder", "reg_decoded_bbox"),
        *("loss_cls", "loss_bbox", "pre_anchor_topk", "bbox_thr", "gamma", "alpha", *TRAINING),
    )
    part.only(conv_cfg=None)
    loss = part.part("loss_cls")
    if loss.values:
        loss.type(*LOSSES, default="FocalLoss")
        if not loss.get("use_sigmoid", False):
            raise loss.refuse("use_sigmoid", "True")
    width = part.count("feat_channels", 256)
    return HeadSettings(part.count("stacked_convs", 4, least=0, most=100), width, _norm(part, "feat_channels", width))


def _anchors(part: Part, first_level: int) -> tuple[AnchorSettings, bool]:
    part.type("AnchorGenerator", default="AnchorGenerator")
    part.understood(
        *("strides", "ratios", "scales", "base_sizes", "scale_major", "octave_base_scale", "scales_per_octave"),
        *("centers", "center_offset", "use_box_type"),
    )
    part.only(centers=None)
    strides = part.numbers("strides", [8, 16, 32, 64, 128])
    if not strides or strides != [2.0**level for level in range(first_level, 8)][: len(strides)]:
        raise part.refuse("strides", f"{2**first_level}, {2 ** (first_level + 1)}, ... for its pyramid")
    if part.get("scales") is None:
        steps = part.count("scales_per_octave", 3, most=100)
        base, scales = part.number("octave_base_scale", 4), [2 ** (i / steps) for i in range(steps)]
    else:
        base, scales = 1.0, part.numbers("scales", [])
    sides = strides if part.get("base_sizes") is None else part.numbers("base_sizes", [])
    offset = part.number("center_offset", 0.0)
    if len(sides) != len(strides) or (offset and sides != strides):
        raise part.refuse("base_sizes", "the strides")
    return AnchorSettings(
        sizes=tuple(side * base for side in sides),
        first_level=first_level,
        scales=tuple(scales),
        ratios=tuple(part.numbers("ratios", [0.5, 1.0, 2.0])),
        offset=offset,
    ), part.flag("scale_major", True)


def _postprocessing(config: Part, model: Part) -> PostprocessingSettings:
    test = model.part("test_cfg")
    if not test.values and isinstance(config.get("test_cfg"), dict) and "score_thr" in config.get("test_cfg"):
        test = config.part("test_cfg")  # where it stood in the first configurations of 2.x
    test.understood("nms_pre", "min_bbox_size", "score_thr", "nms", "max_per_img")
    smallest = test.number("min_bbox_size", -1)
    if smallest > 0:
        raise test.refuse("min_bbox_size", "0, and -1 for boxes without an area too")
    nms = test.part("nms")
    nms.type("nms", default="nms")
    nms.understood("iou_threshold", "iou_thr", "class_agnostic", "split_thr", "offset")
    nms.only(class_agnostic=False, offset=0)
    return PostprocessingSettings(
        threshold=test.number("score_thr", 0.0),
        candidates=test.count("nms_pre", 1000),
        nms_iou=nms.number("iou_threshold" if "iou_threshold" in nms.values else "iou_thr", 0.5),
        max_detections=test.count("max_per_img", 100),
        limit_shrinking=True,
        drop_empty=smallest == 0,
    )


def _pipeline(config: Part) -> Any:
    """The steps by which an image was prepared for tests, wherever they stand."""
    for data, test in (("test_dataloader", "dataset"), ("data", "test")):
        values = config.values.get(data)
        dataset = values.get(test) if isinstance(values, dict) else None
        if isinstance(dataset, dict) and "pipeline" in dataset:
            return Part(config.path, f"{config.name}.{data}.{test}", dataset).get("pipeline")
    return config.get("test_pipeline")


def _steps(config: Part) -> tuple[list[Part], list[str]]:
    """The steps of the test pipeline, those of a test-time augmentation among them, and what was left out of that."""
    steps, assumed = [], []
    for step in _pipeline(config) or []:
        part = Part(config.path, f"{config.name}.test_pipeline", step if isinstance(step, dict) else {"type": step})
        if str(part.get("type")).split(".")[-1] != "MultiScaleFlipAug":
            steps.append(part)
            continue
        sizes = part.get("img_scale")
        several = isinstance(sizes, list) and bool(sizes) and isinstance(sizes[0], list | tuple)
        if (several and len(sizes) > 1) or part.get("flip", False):
            assumed.append("one image, not flipped: the test-time augmentation of its configuration is left out")
        sizes = sizes[0] if several else sizes
        for inner in part.get("transforms") or []:
            values = inner if isinstance(inner, dict) else {"type": inner}
            kind = str(values.get("type")).split(".")[-1]
            if kind == "Resize":
                values = {"keep_ratio": True, "scale": sizes, **values}
            if kind != "RandomFlip":  # it does here what flip says
                steps.append(Part(part.path, part.name, values))
    return steps, assumed


def _preprocessing(config: Part, model: Part) -> tuple[PreprocessingSettings, bool, list[str]]:
    """Settings, whether the network takes blue, green, red, and what was assumed."""
    steps, assumed = _steps(config)
    tensors = model.part("data_preprocessor")
    if not tensors.values:
        tensors = config.part("data_preprocessor")
    tensors.understood(
        *("mean", "std", "bgr_to_rgb", "rgb_to_bgr", "pad_size_divisor", "pad_value", "pad_mask", "mask_pad_value"),
        *("pad_seg", "seg_pad_value", "boxtype2tensor", "batch_augments", "non_blocking"),
    )
    mean = tensors.get("mean")
    rgb = tensors.flag("bgr_to_rgb", False) or tensors.flag("rgb_to_bgr", False)
    colours, multiple = tensors, tensors.count("pad_size_divisor", 1)
    result = PreprocessingSettings(resize="none", interpolation="opencv")
    plain: Literal["opencv", "plain"] = "opencv"
    for step in steps:
        kind = step.type(*HARMLESS, "Resize", "Normalize", "Pad", default="")
        if kind in LOADING:
            step.only(color_type="color", channel_order="bgr")
            plain = "plain" if step.flag("to_float32", False) else "opencv"
        elif kind == "Resize":
            result = _resize(step, plain)
        elif kind == "Normalize":
            colours, mean, rgb = step, step.get("mean"), step.flag("to_rgb", True)
        elif kind == "Pad":
            step.understood("size_divisor", "pad_val")
            multiple = step.count("size_divisor", 1)
            if mean is None:
                raise step.refuse("type", "Pad after Normalize")
            if not (isinstance(step.get("pad_val", 0), dict) and step.get("pad_val").get("img", 0) == 0):
                step.only(pad_val=0)
    tensors.only(pad_value=0)
    if multiple % 32:
        raise tensors.refuse("pad_size_divisor", "multiples of 32")
    given = None if mean is None else (colours.numbers("mean", []), colours.numbers("std", []))
    means, stds = given or ([0.0] * 3, [1.0] * 3)
    if len(means) != 3 or len(stds) != 3 or min(stds) <= 0:
        raise colours.refuse("mean" if len(means) != 3 else "std", "three numbers, the standard deviations above 0")
    if not rgb:
        means, stds = means[::-1], stds[::-1]
    red, green, blue = (value / 255 for value in means)
    by_red, by_green, by_blue = (value / 255 for value in stds)
    settings = replace(result, mean=(red, green, blue), std=(by_red, by_green, by_blue), multiple=multiple)
    return replace(settings, channels="rgb" if rgb else "bgr"), not rgb, assumed


def _resize(step: Part, whole: Literal["opencv", "plain"]) -> PreprocessingSettings:
    step.understood(
        *("scale", "img_scale", "keep_ratio", "interpolation", "backend", "clip_object_border", "bbox_clip_border"),
        *("multiscale_mode", "override"),
    )
    step.only(interpolation="bilinear")
    key = "scale" if step.get("scale") is not None else "img_scale"
    scale = step.get(key)
    if isinstance(scale, list) and len(scale) == 1:
        scale = scale[0]
    sides = scale if isinstance(scale, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 10**5 for v in sides):
        raise step.refuse(key, "two whole numbers, such as (1333, 800)")
    # The default of Resize was True in 2.x, where the size is called img_scale, and is False since.
    if not step.flag("keep_ratio", key == "img_scale"):
        raise step.refuse("keep_ratio", "True")
    backend = step.get("backend", "cv2")
    if backend not in (None, "cv2", "pillow"):
        raise step.refuse("backend", "'cv2', 'pillow'")
    return PreprocessingSettings(
        size=min(sides), longer=max(sides), interpolation="pillow" if backend == "pillow" else whole
    )
