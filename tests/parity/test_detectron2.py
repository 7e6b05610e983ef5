"""Detectron2's checkpoints give the boxes here that they give there."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.detectron2_origin import (
    Found,
    contents,
    detector,
    different,
    images,
    layout_18,
    made,
    old,
    origin,
    resized,
    settings_with,
    written,
)
from retinanet.checkpoints.foreign import coco_classes, detectron2
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.weight_files.reader import read

# --------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize(
    ("kind", "depth", "classes", "p6_inputs", "norm"),
    [
        ("pth", 101, 80, None, ""),
        ("pth", 18, 20, 256, ""),  # P6 from P5
        ("pkl", 18, 3, None, "GN"),  # its convolutions have biases under GN
        ("pkl", 18, 3, None, "BN"),
        ("pkl", 50, 80, None, ""),
    ],
)
def test_detections(kind: str, depth: int, classes: int, p6_inputs: int | None, norm: Any, tmp_path: Path) -> None:
    state = made(depth, classes, p6_inputs, norm)
    path = written(old(state) if depth == 18 else state, tmp_path, kind)
    found = read(path)
    assert detectron2.recognises(found)
    checkpoint = detectron2.convert(found)
    path.unlink()  # up to 250 MB
    assert checkpoint.class_names == coco_classes.names(classes)
    assert checkpoint.extra["origin"] == f"Detectron2, ResNet-{depth}"
    here, outside = detector(checkpoint), 0
    for image in images()[: 2 if depth == 101 else 3]:
        expected = expected_of_50(image) if depth == 50 else origin(state, image)
        assert len(expected.boxes) > 20
        assert len(expected.labels.unique()) > 2
        assert not different(here.predict(image), expected)
        outside += expected.outside
    assert outside or depth == 18, "the test should see boxes that are dropped"


@lru_cache
def expected_of_50(image: Path) -> Found:
    return origin(made(50), image)


@lru_cache(maxsize=1)
def fifty() -> tuple[Checkpoint, RetinaNet, list[Path], list[Found]]:
    """A ResNet-50, and what the origin finds in the images."""
    some = images()
    checkpoint = detectron2.convert(contents(made(50)))
    return checkpoint, detector(checkpoint).model, some, [expected_of_50(path) for path in some]


@pytest.mark.parametrize(
    "change",
    [
        {"backbone__stride_in_1x1": False},
        {"backbone__norm_eps": 1e-3},
        {"pyramid__p7_relu": False},
        {"anchors__offset": 0.5},
        {"anchors__rounding": "torchvision"},
        {"anchors__rounding": "detectron"},
        {"anchors__strides": "torchvision"},
        {"preprocessing__interpolation": "plain"},
        {"preprocessing__mean": (0.5, 0.5, 0.5)},
        {"preprocessing__std": (0.229, 0.224, 0.225)},
        {"preprocessing__multiple": 128},
        {"postprocessing__clip": "before"},
        {"postprocessing__drop_empty": False},
        {"postprocessing__candidates": 50},
        {"postprocessing__nms_iou": 0.3},
        {"postprocessing__max_detections": 300},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_convention_matters(change: dict[str, Any]) -> None:
    checkpoint, model, some, expected = fifty()
    settings = model.settings
    if next(iter(change)).startswith(("backbone", "pyramid")):
        here = detector(checkpoint, **change)
    else:
        model.settings = settings_with(settings, **change)
        here = Detector(model, checkpoint.class_names)
    try:
        assert any(different(here.predict(path), there) for path, there in zip(some, expected))
    finally:
        model.settings = settings


@pytest.mark.parametrize("part", ["body.conv1", "class_subnet.output", "box_subnet.output"])
def test_the_order_of_colours_and_anchors_matters(part: str) -> None:
    checkpoint, model, some, expected = fifty()
    (weight,) = (tensor for name, tensor in model.named_parameters() if name.endswith(f"{part}.weight"))
    given = weight.detach().clone()
    theirs = given.flip(1) if "conv1" in part else given.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2)
    here = Detector(model, checkpoint.class_names)
    assert not different(here.predict(some[0]), expected[0])
    try:
        weight.data.copy_(theirs)
        assert different(here.predict(some[0]), expected[0])
    finally:
        weight.data.copy_(given)


def test_sizes() -> None:
    from retinanet.ops.resize import resized_size

    settings = detectron2.convert(contents(layout_18())).settings.preprocessing
    chance = random.Random(0)
    common = [(480, 640), (427, 640), (375, 500), (1080, 1920), (3000, 4000), (1000, 3000), (333, 500), (2, 700)]
    for height, width in common + [(chance.randint(1, 3000), chance.randint(1, 3000)) for _ in range(5000)]:
        if Fraction(min(height, width) * 1333, max(height, width)) % 1 == Fraction(1, 2):
            continue  # between two whole numbers their rounding errors decide
        there = resized((height, width), 800, 1333)
        assert list(resized_size(height, width, settings)) == [max(1, side) for side in there]


def test_zoo_and_trainer_files_are_the_same(tmp_path: Path) -> None:
    state = layout_18()
    zoo, trainer = (detectron2.convert(read(written(state, tmp_path, kind))) for kind in ("pkl", "pth"))
    assert zoo.settings == trainer.settings
    assert zoo.state.keys() == trainer.state.keys()
    assert all(torch.equal(tensor, trainer.state[name]) for name, tensor in zoo.state.items())


def test_normalisation_given_in_the_file() -> None:
    state = old(layout_18())
    state["pixel_std"] = torch.tensor([57.375, 57.12, 58.395])[:, None, None]
    images = detectron2.convert(contents(state)).settings.preprocessing
    assert images.mean == pytest.approx((0.485, 0.456, 0.406))
    assert images.std == pytest.approx((0.229, 0.224, 0.225))


def test_a_backbone_that_was_trained_with_statistics() -> None:
    state = layout_18()
    counted = {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in state if "_var" in name}
    converted = detectron2.convert(contents(state | counted))
    assert not converted.settings.backbone.frozen_norm
    assert converted.state["backbone.body.bn1.num_batches_tracked"] == 7
    assert detectron2.convert(contents(state)).settings.backbone.frozen_norm


STEM, P6, SCORE = "backbone.bottom_up.stem.conv1", "backbone.top_block.p6", "head.cls_score"
ANCHORS = "anchor_generator.cell_anchors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{SCORE}.weight": None}, r"not of a RetinaNet.*head\.cls_score"),
        ({f"{P6}.weight": None}, r"not of a RetinaNet.*top_block\.p6"),
        ({f"{STEM}.norm.bias": None}, r"lacks .*bn1\.bias"),
        ({"backbone.fpn_lateral3.weight": None}, r"fpn_lateral3\.weight.*complete"),
        ({"backbone.bottom_up.res4.2.conv1.weight": torch.ones(1)}, r"\[2, 2, 3, 2\] basic blocks.*none of the Res"),
        ({"roi_heads.box_head.fc1.weight": torch.ones(1)}, r"holds roi_heads"),
        ({"backbone.fpn_output3.norm.weight": torch.ones(256)}, r"fpn_output3\.norm.*without normalisation"),
        ({"head.bbox_pred.weight": torch.ones(4, 256, 3, 3)}, r"boxes of 1 anchors.*9 anchors"),
        ({f"{SCORE}.weight": torch.ones(100, 256, 3, 3)}, r"100 class outputs"),
        ({f"{SCORE}.bias": torch.ones(7)}, r"head\.cls_score\.bias has the shape \(7,\)"),
        ({f"{P6}.weight": torch.ones(256, 9, 3, 3)}, r"top_block\.p6\.weight has the shape \(256, 9, 3, 3\)"),
        ({f"{STEM}.norm.running_var": torch.full((64,), torch.nan)}, r"stem.conv1.norm.running_var.*not finite"),
        ({"pixel_mean": torch.ones(1)}, r"PIXEL_MEAN is \[1\.0\]"),
        ({"pixel_std": torch.zeros(3)}, r"PIXEL_STD is \[0\.0"),
        ({f"{ANCHORS}.0": torch.ones(9, 4)}, r"other anchors"),
        ({f"{ANCHORS}.4": None}, r"other anchors"),
    ],
)
def test_refusals(changes: dict[str, Tensor | None], message: str) -> None:
    state: dict[str, Tensor | None] = dict(old(layout_18())) | changes
    with pytest.raises(RequestError, match=message) as error:
        detectron2.convert(contents({name: tensor for name, tensor in state.items() if tensor is not None}))
    assert "model_final.pth" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_are_not_recognised() -> None:
    for name in ("backbone.body.conv1.weight", "bbox_head.retina_cls.weight", "conv1_w"):
        assert not detectron2.recognises(contents({name: torch.ones(1)}))
