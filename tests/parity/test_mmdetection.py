"""MMDetection's RetinaNets: the boxes of its own files, against a plain implementation of its conventions written here.

The reference takes the tensors under MMDetection's names and says every step of its test pipeline with plain functions;
it shares no code with the package but the resize of OpenCV, which has a test of its own.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from retinanet.checkpoints.foreign import mmdetection
from retinanet.checkpoints.foreign.mmdetection_config import UNKNOWN, parse
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.config.model_settings import ModelSettings
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.ops import opencv_resize
from retinanet.weight_files import reader

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tiny_coco" / "val2017"
SHORT, LONG = 200, 333
COUNT = 5
NAMES = ("cat", "dog", "bird", "tree", "cup")
RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
BGR = ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0])

MODEL = """
model = dict(
    type='RetinaNet',{data}
    backbone=dict(
        type='{body}', depth={depth}, num_stages=4, out_indices=(0, 1, 2, 3), frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True, style='{style}'{more}),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, start_level=1,
        add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(
        type='RetinaHead', num_classes=5, in_channels=256, stacked_convs=4, feat_channels=256,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4), allowed_border=-1),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
"""
PIPELINE_2 = """
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
data = dict(samples_per_gpu=2, test=dict(type='CocoDataset', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(333, 200), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'),
        dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        dict(type='Pad', size_divisor=32), dict(type='ImageToTensor', keys=['img']),
        dict(type='Collect', keys=['img'])])]))
"""
PIPELINE_3 = """
test_cfg = dict(type='TestLoop')
test_dataloader = dict(batch_size=1, dataset=dict(type='CocoDataset', pipeline=[
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(333, 200), keep_ratio=True), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
"""


def config(version: int, depth: int = 50, style: str = "pytorch", groups: int = 1) -> str:
    """The text that MMDetection 2 or 3 writes into a checkpoint, as far as tests need it."""
    mean, std = RGB if style == "pytorch" else BGR
    data = (
        f"\n    data_preprocessor=dict(type='DetDataPreprocessor', mean={mean}, std={std}, "
        f"bgr_to_rgb={style == 'pytorch'}, pad_size_divisor=32),"
    )
    body, more = ("ResNeXt", f", groups={groups}, base_width=4") if groups > 1 else ("ResNet", "")
    model = MODEL.format(data=data if version == 3 else "", body=body, depth=depth, style=style, more=more)
    return model + (PIPELINE_3 if version == 3 else PIPELINE_2)


class Kind(NamedTuple):
    """One of MMDetection's backbones, and what a file with it says about itself."""

    blocks: tuple[int, ...]
    bottleneck: bool
    groups: int
    caffe: bool
    meta: dict[str, Any]
    head_norm: str = ""

    @property
    def colours(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation, in the order in which the network takes colours."""
        return BGR if self.caffe else RGB


KINDS = {
    "r18": Kind((2, 2, 2, 2), False, 1, False, {"CLASSES": NAMES}),  # without a configuration
    "r18-gn": Kind((2, 2, 2, 2), False, 1, False, {"CLASSES": NAMES}, "gn"),  # the names of its tensors tell
    "r50": Kind((3, 4, 6, 3), True, 1, False, {"mmdet_version": "2.25.0", "config": config(2), "CLASSES": NAMES}),
    "r50-caffe": Kind(
        (3, 4, 6, 3), True, 1, True, {"cfg": config(3, style="caffe"), "dataset_meta": {"classes": list(NAMES)}}
    ),
    "x101-32x4d": Kind(
        (3, 4, 23, 3), True, 32, False, {"cfg": config(3, 101, groups=32), "dataset_meta": {"CLASSES": NAMES}}
    ),
}

# ------------------------------------------------------------------------------------------------- the reference


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    weight = state[name + ".weight"]
    return F.conv2d(x, weight, state.get(name + ".bias"), stride, weight.shape[-1] // 2, groups=groups)


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    if name in MEASURE:
        mean.copy_(x.mean((0, 2, 3)))
        var.copy_(x.var((0, 2, 3)))
    return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)


MEASURE: set[str] = set()
"""The batch normalisations whose statistics are to be those of what passes by."""


def backbone(state: dict[str, Tensor], kind: Kind, x: Tensor) -> list[Tensor]:
    """C3, C4, C5; in a caffe ResNet the first 1 x 1 convolution of a stage has the stride, else the 3 x 3 one."""
    x = F.relu(norm(state, "backbone.bn1", conv(state, "backbone.conv1", x, 2)))
    x = F.max_pool2d(x, 3, 2, 1)
    features = []
    for stage, count in enumerate(kind.blocks, start=1):
        for block in range(count):
            name, stride = f"backbone.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            first = stride if kind.caffe or not kind.bottleneck else 1
            out = F.relu(norm(state, name + ".bn1", conv(state, name + ".conv1", x, first)))
            out = norm(state, name + ".bn2", conv(state, name + ".conv2", out, stride // first, kind.groups))
            if kind.bottleneck:
                out = norm(state, name + ".bn3", conv(state, name + ".conv3", F.relu(out)))
            if f"{name}.downsample.0.weight" in state:
                x = norm(state, name + ".downsample.1", conv(state, name + ".downsample.0", x, stride))
            x = F.relu(out + x)
        features.append(x)
    return features[1:]


def layer(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A convolution, and the group normalisation behind it where there is one."""
    x = conv(state, f"{name}.conv", x)
    gn = state.get(f"{name}.gn.weight")
    return x if gn is None else F.group_norm(x, 32, gn, state[f"{name}.gn.bias"])


def heads(state: dict[str, Tensor], features: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Per level (9 K, h, w) logits and (36, h, w) deltas of the first image; there is no ReLU between P6 and P7."""
    merged = [conv(state, f"neck.lateral_convs.{i}.conv", c) for i, c in enumerate(features)]
    for i in (1, 0):
        merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[2:], mode="nearest")
    levels = [conv(state, f"neck.fpn_convs.{i}.conv", m) for i, m in enumerate(merged)]
    levels.append(conv(state, "neck.fpn_convs.3.conv", features[-1], 2))
    levels.append(conv(state, "neck.fpn_convs.4.conv", levels[-1], 2))
    results = []
    for level in levels:
        scores = boxes = level
        for i in range(4):
            scores = F.relu(layer(state, f"bbox_head.cls_convs.{i}", scores))
            boxes = F.relu(layer(state, f"bbox_head.reg_convs.{i}", boxes))
        outputs = conv(state, "bbox_head.retina_cls", scores), conv(state, "bbox_head.retina_reg", boxes)
        results.append((outputs[0][0], outputs[1][0]))
    return results


def prepare(path: Path, kind: Kind) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """The network's input (1, 3, H, W), the image's height and width within it, and as it was."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    height, width = pixels.shape[1:]
    scale = min(LONG / max(height, width), SHORT / min(height, width))
    size = int(height * scale + 0.5), int(width * scale + 0.5)
    mean, std = (torch.tensor(values)[:, None, None] for values in kind.colours)
    pixels = opencv_resize.resize(pixels, size).float()
    pixels = ((pixels.flip(0) if kind.caffe else pixels) - mean) / std
    return F.pad(pixels, (0, -size[1] % 32, 0, -size[0] % 32))[None], size, (height, width)


def expected(state: dict[str, Tensor], kind: Kind, path: Path, most: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels as MMDetection gives them."""
    x, size, original = prepare(path, kind)
    parts = []
    for level, (logits, deltas) in enumerate(heads(state, backbone(state, kind, x))):
        stride = 2 ** (3 + level)
        rows, columns = logits.shape[1:]
        scores = logits.permute(1, 2, 0).reshape(-1, COUNT).sigmoid()
        deltas = deltas.permute(1, 2, 0).reshape(-1, 4)
        base = torch.tensor(
            [
                (stride * 4 * 2 ** (i / 3) / math.sqrt(ratio), stride * 4 * 2 ** (i / 3) * math.sqrt(ratio))
                for ratio in (0.5, 1.0, 2.0)
                for i in range(3)
            ]
        )
        sides = base.repeat(rows * columns, 1)
        y, x_ = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
        centres = torch.stack([x_, y], dim=-1).reshape(-1, 2).repeat_interleave(9, 0).float()
        anchor, label = (scores > 0.05).nonzero().unbind(1)
        best = scores[anchor, label].argsort(descending=True)[:1000]
        anchor, label = anchor[best], label[best]
        chosen = deltas[anchor]
        limit = abs(math.log(16 / 1000))
        half = sides[anchor] * chosen[:, 2:].clamp(-limit, limit).exp() / 2
        middle = centres[anchor] + sides[anchor] * chosen[:, :2]
        parts.append((torch.cat([middle - half, middle + half], 1), scores[anchor, label], label))
    boxes, scores, labels = (torch.cat(tensors) for tensors in zip(*parts))
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([size[1], size[0]] * 2))
    boxes = boxes / torch.tensor([size[1] / original[1], size[0] / original[0]] * 2)
    full = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    boxes, scores, labels = boxes[full], scores[full], labels[full]
    keep = nms(boxes + labels[:, None] * (boxes.max() + 1), scores, 0.5)[:most]
    return boxes[keep], scores[keep], labels[keep]


# ------------------------------------------------------------------------------------------------- files to convert


def images() -> list[Path]:
    """Two images of different shapes."""
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data/tiny_coco")
    shapes = {Image.open(path).size: path for path in sorted(DATA.glob("*.jpg"))}
    return list(shapes.values())[:2]


def empty(kind: Kind) -> dict[str, Tensor]:
    """The tensors of such a file, by MMDetection's names, weights of random numbers that keep activations in bounds."""
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = OrderedDict()

    def add(name: str, inputs: int, outputs: int, kernel: int, gain: float = 2.0, bias: bool = True) -> None:
        spread = math.sqrt(gain / (inputs * kernel * kernel))
        state[name + ".weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * spread
        if bias:
            state[name + ".bias"] = torch.zeros(outputs)

    def add_norm(name: str, width: int, weight: float = 1.0) -> None:
        values = {"weight": weight, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        state.update({f"{name}.{part}": torch.full((width,), value) for part, value in values.items()})
        state[name + ".num_batches_tracked"] = torch.tensor(7)

    add("backbone.conv1", 3, 64, 7, bias=False)
    add_norm("backbone.bn1", 64)
    inputs = 64
    for stage, count in enumerate(kind.blocks):
        planes = 64 * 2**stage
        width = planes if kind.groups == 1 else planes * 4 // 64 * kind.groups
        outputs = planes * 4 if kind.bottleneck else planes
        for block in range(count):
            name = f"backbone.layer{stage + 1}.{block}"
            add(name + ".conv1", inputs, width, 1 if kind.bottleneck else 3, bias=False)
            add_norm(name + ".bn1", width)
            add(name + ".conv2", width // kind.groups, width, 3, bias=False)
            add_norm(name + ".bn2", width, 1.0 if kind.bottleneck else 0.2)
            if kind.bottleneck:
                add(name + ".conv3", width, outputs, 1, bias=False)
                add_norm(name + ".bn3", outputs, 0.2)  # little: 33 blocks must not multiply rounding errors
            if block == 0 and (stage or kind.bottleneck):
                add(name + ".downsample.0", inputs, outputs, 1, bias=False)
                add_norm(name + ".downsample.1", outputs)
            inputs = outputs
    for i, stage in enumerate((1, 2, 3)):
        add(f"neck.lateral_convs.{i}.conv", 64 * 2**stage * (4 if kind.bottleneck else 1), 256, 1, 1.0)
        add(f"neck.fpn_convs.{i}.conv", 256, 256, 3, 1.0)
    add("neck.fpn_convs.3.conv", inputs, 256, 3, 6.0)  # so much that P6 and P7, nearly all border, are not faint
    add("neck.fpn_convs.4.conv", 256, 256, 3, 12.0)
    for i in range(4):
        for tower in ("cls", "reg"):
            name = f"bbox_head.{tower}_convs.{i}"
            add(f"{name}.conv", 256, 256, 3, bias=not kind.head_norm)
            if kind.head_norm:
                state[f"{name}.gn.weight"] = torch.rand(256, generator=generator) + 0.5
                state[f"{name}.gn.bias"] = torch.randn(256, generator=generator) * 0.3
    add("bbox_head.retina_cls", 256, 9 * COUNT, 3)
    add("bbox_head.retina_reg", 256, 36, 3)
    return state


@cache
def weights(name: str) -> dict[str, Tensor]:
    """Random weights whose scores spread and whose boxes are plausible, with some that the clamp concerns."""
    kind = KINDS[name]
    state = empty(kind)
    inputs = [prepare(path, kind)[0] for path in images()]
    sides = [max(x.shape[i] for x in inputs) for i in (2, 3)]
    batch = torch.cat([F.pad(x, (0, sides[1] - x.shape[3], 0, sides[0] - x.shape[2])) for x in inputs])
    MEASURE.update(key.removesuffix(".running_var") for key in state if key.endswith("running_var"))
    backbone(state, kind, batch)
    MEASURE.clear()
    outputs = heads(state, backbone(state, kind, batch))
    for part, wanted, name in ((0, 0.4, "bbox_head.retina_cls"), (1, 0.3, "bbox_head.retina_reg")):
        state[name + ".weight"] *= wanted / torch.cat([level[part].flatten() for level in outputs]).std()
    generator = torch.Generator().manual_seed(2)
    state["bbox_head.retina_cls.bias"] = torch.randn(9 * COUNT, generator=generator) * 0.7 - 4.0
    state["bbox_head.retina_reg.bias"] = torch.randn(36, generator=generator) * 0.2
    state["bbox_head.retina_reg.bias"][2:36:12] = -5.0  # widths of a 150th of the anchor's: the lower limit
    return state


def write(folder: Path, state: dict[str, Tensor], meta: dict[str, Any], name: str = "model.pth") -> Path:
    torch.save({"meta": {"epoch": 12, "iter": 87948, **meta}, "state_dict": OrderedDict(state)}, folder / name)
    return folder / name


def convert(path: Path) -> Checkpoint:
    contents = reader.read(path)
    assert mmdetection.recognises(contents)
    return mmdetection.convert(contents)


def detector(checkpoint: Checkpoint, settings: ModelSettings) -> Detector:
    model = RetinaNet(settings, len(checkpoint.class_names), load_weights=False)
    model.load_state_dict(checkpoint.state)
    # The memory layout of the reference, so that convolutions sum in the same order.
    model.to(memory_format=torch.contiguous_format)
    return Detector(model, checkpoint.class_names)


def smaller(settings: ModelSettings) -> ModelSettings:
    images = dataclasses.replace(settings.preprocessing, size=SHORT, longer=LONG)
    return dataclasses.replace(settings, preprocessing=images)


def agree(found: Detections, wanted: tuple[Tensor, Tensor, Tensor]) -> bool:
    """The same boxes; of two with nearly equal scores either may come first."""
    boxes, scores, labels = wanted
    if len(found) != len(boxes):
        return False
    far = 1e4 * (found.labels[:, None] != labels[None]) + 100 * (found.scores[:, None] - scores[None]).abs()
    pairs = (far + (found.boxes[:, None] - boxes[None]).abs().amax(2)).argmin(1)
    return (
        len(pairs.unique()) == len(found)
        and torch.equal(found.labels, labels[pairs])
        and float((found.boxes - boxes[pairs]).abs().max()) < 1e-2
        and float((found.scores - scores[pairs]).abs().max()) < 1e-4
    )


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_detections(name: str, tmp_path: Path) -> None:
    kind, state = KINDS[name], weights(name)
    checkpoint = convert(write(tmp_path, state, kind.meta))
    assert checkpoint.class_names == NAMES
    plain = name.startswith("r18")
    assert bool(checkpoint.extra["assumed"]) == plain
    assert any("GN" in line for line in checkpoint.extra["assumed"]) == (kind.head_norm == "gn")
    # The configurations in the files ask for these small images themselves.
    here = detector(checkpoint, smaller(checkpoint.settings) if plain else checkpoint.settings)
    for path in images():
        wanted = expected(state, kind, path)
        assert len(wanted[0]) > 20
        assert wanted[1].max() < 0.999
        assert agree(here.predict(path), wanted), path.name


@torch.inference_mode()
def test_every_convention_matters(tmp_path: Path) -> None:
    """With any of them changed the boxes are no longer MMDetection's."""
    state = weights("r18")
    checkpoint = convert(write(tmp_path, state, KINDS["r18"].meta))
    path = images()[0]
    wanted = expected(state, KINDS["r18"], path, most=1000)  # boxes of P7 among them
    right = smaller(checkpoint.settings)
    right = dataclasses.replace(right, postprocessing=dataclasses.replace(right.postprocessing, max_detections=1000))
    assert agree(detector(checkpoint, right).predict(path), wanted)
    changes: dict[str, dict[str, Any]] = {
        "pyramid": {"p7_relu": True},
        "postprocessing": {"limit_shrinking": False},
        "preprocessing": {"interpolation": "antialias"},
        "anchors": {"offset": 0.5},
    }
    for part, change in changes.items():
        wrong = dataclasses.replace(right, **{part: dataclasses.replace(getattr(right, part), **change)})
        assert not agree(detector(checkpoint, wrong).predict(path), wanted), change


# ------------------------------------------------------------------------------------------- configurations, refusals


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return empty(KINDS["r18"])


def converted(state: dict[str, Tensor], meta: dict[str, Any], name: str = "model.pth") -> Checkpoint:
    return mmdetection.convert(reader.Contents(Path(name), state, {"meta": meta}))


def meaning(text: str) -> ModelSettings:
    from retinanet.checkpoints.foreign.mmdetection_config import Part
    from retinanet.checkpoints.foreign.mmdetection_settings import read

    return read(Part(Path("file.pth"), "", parse(text) or {})).settings


def test_configurations_of_both_generations_mean_the_same() -> None:
    assert meaning(config(2)) == meaning(config(3))
    found = meaning(config(3))
    assert (found.preprocessing.size, found.preprocessing.longer, found.preprocessing.multiple) == (200, 333, 32)
    assert found.preprocessing.interpolation == "opencv"
    assert found.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert found.preprocessing.std == pytest.approx((0.229, 0.224, 0.225))
    assert list(found.anchors.sizes) == [32, 64, 128, 256, 512]
    assert (found.pyramid.p6_from, found.pyramid.p7_relu) == ("c5", False)
    assert found.anchors.offset == 0
    assert found.postprocessing.limit_shrinking
    assert found.postprocessing.drop_empty


def test_a_configuration_of_the_kind_caffe() -> None:
    caffe = meaning(config(3, style="caffe"))
    assert caffe.backbone.stride_in_1x1
    assert caffe.preprocessing.mean == pytest.approx((123.675 / 255, 116.28 / 255, 103.53 / 255))
    assert caffe.preprocessing.std == pytest.approx((1 / 255, 1 / 255, 1 / 255))


@pytest.mark.parametrize(
    ("before", "after", "part", "name", "value"),
    [
        ("(333, 200)", "[(400, 300)]", "preprocessing", "size", 300),
        ("add_extra_convs='on_input'", "add_extra_convs='on_output'", "pyramid", "p6_from", "p5"),
        ("num_outs=5", "num_outs=5, relu_before_extra_convs=True", "pyramid", "p7_relu", True),
        ("score_thr=0.05", "score_thr=0.3", "postprocessing", "threshold", 0.3),
        ("iou_threshold=0.5", "iou_thr=0.6", "postprocessing", "nms_iou", 0.6),
        ("max_per_img=100", "max_per_img=300", "postprocessing", "max_detections", 300),
        ("min_bbox_size=0", "min_bbox_size=-1", "postprocessing", "drop_empty", False),
        ("octave_base_scale=4", "octave_base_scale=3", "anchors", "sizes", (24, 48, 96, 192, 384)),
        ("ratios=[0.5, 1.0, 2.0]", "ratios=[1.0]", "anchors", "ratios", (1.0,)),
        ("strides=[8,", "center_offset=0.5, strides=[(8, 8),", "anchors", "offset", 0.5),
        ("requires_grad=True", "requires_grad=True, eps=1e-3", "backbone", "norm_eps", 1e-3),
        ("keep_ratio=True", "keep_ratio=True, backend='pillow'", "preprocessing", "interpolation", "pillow"),
        (
            "type='LoadImageFromFile'",
            "type='LoadImageFromFile', to_float32=True",
            "preprocessing",
            "interpolation",
            "plain",
        ),
        (
            "type='RetinaHead'",
            "type='mmdet.models.RetinaHead', norm_cfg=dict(type='GN', num_groups=32)",
            "head",
            "norm",
            "group",
        ),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_what_a_configuration_says(version: int, before: str, after: str, part: str, name: str, value: Any) -> None:
    text = config(version)
    assert before in text
    assert getattr(getattr(meaning(text.replace(before, after)), part), name) == value


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("type='FPN'", "type='PAFPN'", "model.neck.type"),
        ("type='RetinaHead'", "type='GARetinaHead'", "model.bbox_head.type"),
        ("type='AnchorGenerator'", "type='LegacyAnchorGenerator'", "model.bbox_head.anchor_generator.type"),
        ("type='DeltaXYWHBBoxCoder'", "type='TBLRBBoxCoder'", "model.bbox_head.bbox_coder.type"),
        ("norm_eval=True", "dcn=dict(type='DCN', deform_groups=1)", "model.backbone.dcn"),
        ("type='ResNet'", "type='ResNetV1d'", "model.backbone.type"),
        ("use_sigmoid=True", "use_sigmoid=False", "model.bbox_head.loss_cls.use_sigmoid"),
        ("type='nms'", "type='soft_nms'", "model.test_cfg.nms.type"),
        ("min_bbox_size=0", "min_bbox_size=4", "model.test_cfg.min_bbox_size"),
        ("num_outs=5", "num_outs=5, norm_cfg=dict(type='IN')", "model.neck.norm_cfg.type"),
        ("keep_ratio=True", "keep_ratio=False", "keep_ratio"),
        ("(333, 200)", "333", "scale"),
        ("strides=[8, 16, 32, 64, 128]", "strides=[4, 8, 16, 32, 64]", "model.bbox_head.anchor_generator.strides"),
        ("nms_pre=1000", "nms_pre=2 * 500", "computes model.test_cfg.nms_pre"),
        ("score_thr=0.05", "score_thr=open('x').read()", "computes model.test_cfg.score_thr"),
        ("score_thr=0.05", "score_thr=5", "threshold"),
    ],
)
def test_what_cannot_be_converted(before: str, after: str, named: str, plain: dict[str, Tensor]) -> None:
    assert before in config(3, 18)
    with pytest.raises(RequestError) as error:
        converted(plain, {"cfg": config(3, 18).replace(before, after)})
    assert "model.pth" in str(error.value)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_in_a_configuration_is_executed(tmp_path: Path) -> None:
    file = tmp_path / "made"
    text = f"a = open({str(file)!r}, 'w')\nb = [1, -2.5, (3, 'x')]\nc = dict(d=a.b, **{{'e': None}})\nimport os"
    assert parse(text) == {"a": UNKNOWN, "b": [1, -2.5, (3, "x")], "c": {"d": UNKNOWN, "e": None}}
    assert not file.exists()
    for bad in ("model = dict(", "x = " + "(" * 5000 + ")" * 5000, "x = " + "-" * 20000 + "1", "#" * 2**21, "x = '\0'"):
        assert parse(bad) is None


def test_without_a_configuration_the_name_tells_the_kind(plain: dict[str, Tensor]) -> None:
    for name, style in (("retinanet_r50_caffe_fpn_1x.pth", "caffe"), ("retinanet_r50_fpn_1x.pth", "pytorch")):
        found = converted(empty(KINDS["r50"]), {"CLASSES": NAMES}, name)
        assert found.settings.backbone.stride_in_1x1 == (style == "caffe")
        assert found.settings.preprocessing.size == 800
        assert any(f'"{style}"' in line for line in found.extra["assumed"])
    found = converted(plain, {})
    assert found.class_names == tuple(f"class {i}" for i in range(COUNT))
    assert any("names" in line for line in found.extra["assumed"])


@pytest.mark.parametrize("caffe", [True, False])
def test_what_is_given_stands_over_a_configuration(caffe: bool, plain: dict[str, Tensor]) -> None:
    contents = reader.Contents(Path("model.pth"), plain, {"meta": {"cfg": config(3, 18), "CLASSES": NAMES}})
    given = {"postprocessing": {"threshold": 0.3}, "preprocessing": {"channels": "bgr" if caffe else "rgb"}}
    found = mmdetection.convert(contents, given).settings
    assert (found.postprocessing.threshold, found.preprocessing.size) == (0.3, 200)
    assert found.preprocessing.channels == given["preprocessing"]["channels"]
    with pytest.raises(RequestError, match=r"boxes of 9 anchors.*with 3 anchors"):
        mmdetection.convert(contents, {"anchors": {"ratios": [1.0]}})


def test_batch_normalised_heads_without_a_configuration(plain: dict[str, Tensor]) -> None:
    state = {name: t for name, t in plain.items() if not re.fullmatch(r".*_convs\.\d\.conv\.bias", name)}
    for tower in ("cls", "reg"):
        for i in range(4):
            for part in ("weight", "bias", "running_mean", "running_var"):
                state[f"bbox_head.{tower}_convs.{i}.bn.{part}"] = torch.ones(256)
    state |= {name: t for name, t in plain.items() if name.startswith("neck.")}
    assert converted(state, {"CLASSES": NAMES}).settings.head.norm == "batch"


def test_anchors_in_another_order_and_normalised_boxes(plain: dict[str, Tensor]) -> None:
    text = (
        config(3, 18)
        .replace("ratios=", "scale_major=False, ratios=")
        .replace("[1.0, 1.0, 1.0, 1.0]", "[.1, .1, .2, .2]")
    )
    found = converted(plain, {"cfg": text, "CLASSES": NAMES}).state
    rows = plain["bbox_head.retina_reg.weight"].reshape(3, 3, 4, 256, 3, 3)  # scales, ratios
    wanted = rows.transpose(0, 1) * torch.tensor([0.1, 0.1, 0.2, 0.2])[:, None, None, None]
    torch.testing.assert_close(found["box_subnet.output.weight"], wanted.reshape(36, 256, 3, 3))
    rows = plain["bbox_head.retina_cls.weight"].reshape(3, 3, COUNT, 256, 3, 3)
    assert torch.equal(found["class_subnet.output.weight"], rows.transpose(0, 1).reshape(9 * COUNT, 256, 3, 3))


def test_tensors_that_do_not_fit(plain: dict[str, Tensor]) -> None:
    meta = {"cfg": config(3, 18), "CLASSES": NAMES}
    first = "bbox_head.cls_convs.0.conv.weight"
    ok = plain | {"ema_backbone_conv1_weight": torch.zeros(3), "bbox_head.loss_cls.edges": torch.zeros(11)}
    assert converted(ok, meta).class_names == NAMES

    grids = {k.replace("lateral_convs.0.conv.", "lateral_convs.0."): v for k, v in plain.items()}
    grids["neck.fpn_transitions.0.1.same_up.conv.weight"] = torch.zeros(256, 256, 3, 3)
    changes: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        ({k: v for k, v in plain.items() if k != "neck.fpn_convs.4.conv.bias"}, meta, "lacks"),
        (plain | {"bbox_head.fcos.weight": torch.zeros(1)}, meta, "bbox_head.fcos.weight"),
        (plain | {first: torch.zeros(256, 128, 3, 3)}, meta, "shape"),
        (plain | {first: torch.full((256, 256, 3, 3), float("nan"))}, meta, "finite"),
        (plain | {"bbox_head.retina_reg.weight": torch.zeros(24, 256, 3, 3)}, meta, "anchors"),
        ({k.replace("convs.0.conv.", "convs.0."): v for k, v in plain.items()}, meta, "1.x"),
        (plain, meta | {"mmdet_version": "1.2.0"}, "1.2.0"),
        (grids, meta, r"\(FPG\) as its neck.*fpn_transitions"),
        (grids, {}, r"\(FPG\)"),
        (plain | {"neck.pafpn_convs.0.conv.weight": torch.zeros(1)}, {}, "PAFPN"),
        ({k: v for k, v in plain.items() if "retina_cls" not in k}, meta, "retina_cls"),
        ({k: v for k, v in plain.items() if "layer3.1" not in k}, meta, "none of the ResNets"),
    ]
    for state, about, said in changes:
        with pytest.raises(RequestError, match=said):
            converted(state, about)
