"""Detectron2's checkpoints with other configurations than the model zoo's: config.yaml, given settings, assumptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.detectron2_origin import ZOO, Origin, detector, different, images, layout_18, made, origin, written
from retinanet.checkpoints.foreign import detectron2
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.errors import RequestError
from retinanet.weight_files.reader import Beside, Contents, read

TORCHVISION_STD = (58.395, 57.12, 57.375)  # of R, G, B
OTHER = Origin(
    size=128,
    longer=200,
    channels="RGB",
    mean=(123.675, 116.28, 103.53),
    std=TORCHVISION_STD,
    sizes=tuple((float(x), x * 1.5, x * 2.5) for x in (24, 40, 100, 200, 420)),
    ratios=(1.0, 0.4, 2.0, 3.0),
    offset=0.5,
    box_weights=(10.0, 10.0, 5.0, 4.0),
    threshold=0.1,
    candidates=300,
    nms=0.4,
    most=60,
)
"""No value is the zoo's."""


def config(there: Origin, **model: Any) -> dict[str, Any]:
    """As the trainer dumps it, though without what no detection depends on."""
    rows = [list(row) for row in there.sizes]
    generator = {"NAME": "DefaultAnchorGenerator", "SIZES": rows, "ASPECT_RATIOS": [list(there.ratios)]}
    return {
        "VERSION": 2,
        "INPUT": {"MIN_SIZE_TEST": there.size, "MAX_SIZE_TEST": there.longer, "FORMAT": there.channels},
        "TEST": {"DETECTIONS_PER_IMAGE": there.most},
        "MODEL": {
            "META_ARCHITECTURE": "RetinaNet",
            "PIXEL_MEAN": list(there.mean),
            "PIXEL_STD": list(there.std),
            "ANCHOR_GENERATOR": generator | {"OFFSET": there.offset},
            "RESNETS": {"STRIDE_IN_1X1": there.stride_in_1x1, "DEFORM_ON_PER_STAGE": [False] * 4},
            "FPN": {"NORM": "", "FUSE_TYPE": "sum", "IN_FEATURES": ["res3", "res4", "res5"]},
            "RETINANET": {
                "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
                "BBOX_REG_WEIGHTS": there.box_weights,  # a tuple, with a tag of Python's
                "SCORE_THRESH_TEST": there.threshold,
                "TOPK_CANDIDATES_TEST": there.candidates,
                "NMS_THRESH_TEST": there.nms,
            },
        }
        | model,
    }


def given(there: Origin) -> dict[str, Any]:
    """The same as settings of ours."""
    return {
        "preprocessing": {
            "size": there.size,
            "longer": there.longer,
            "channels": there.channels.lower(),
            "mean": [value / 255 for value in there.mean],
            "std": [value / 255 for value in there.std],
        },
        "anchors": {
            "sizes": [row[0] for row in there.sizes],
            "scales": [size / there.sizes[0][0] for size in there.sizes[0]],
            "ratios": list(there.ratios),
            "offset": there.offset,
        },
        "head": {"box_weights": list(there.box_weights)},
        "postprocessing": {
            "threshold": there.threshold,
            "candidates": there.candidates,
            "nms_iou": there.nms,
            "max_detections": there.most,
        },
    }


def same(checkpoint: Checkpoint, expected: Any, image: Path, there: Origin) -> bool:
    sizes = {"preprocessing__size": there.size, "preprocessing__longer": there.longer}
    return not different(detector(checkpoint, **sizes).predict(image), expected)


def test_a_config_beside_the_file_or_given_settings(tmp_path: Path) -> None:
    state, image = dict(made(18, 3, there=OTHER)), images()[-1]
    state["head.cls_score.bias"] = state["head.cls_score.bias"] + 3  # more boxes than are kept
    expected = origin(state, image, OTHER)
    assert len(expected.boxes) == OTHER.most
    path = written(state, tmp_path, "pth")
    with pytest.raises(RequestError, match=r"boxes of 12 anchors and 36 class outputs.*config\.yaml.*--model\.anchors"):
        detectron2.convert(read(path))
    by_settings = detectron2.convert(read(path), given(OTHER))
    assert same(by_settings, expected, image, OTHER)
    assert not any(key in line for line in by_settings.extra["assumed"] for key in ("FORMAT", "SIZES", "WEIGHTS"))

    (tmp_path / "config.yaml").write_text(yaml.dump(config(OTHER)))
    beside = detectron2.convert(read(path))
    assert same(beside, expected, image, OTHER)
    assert len(beside.extra["assumed"]) == 1, "only the names of the classes"
    size = beside.settings.preprocessing
    assert (size.size, size.longer) == (OTHER.size, OTHER.longer)
    assert (
        detectron2.convert(read(path), {"postprocessing": {"threshold": 0.2}}).settings.postprocessing.threshold == 0.2
    )
    for change in (
        {"preprocessing": {"channels": "bgr"}},
        {"head": {"box_weights": [1.0] * 4}},
        {"anchors": {"ratios": [0.4, 1.0, 2.0, 3.0]}},  # in another order than the outputs are
    ):
        assert not same(detectron2.convert(read(path), change), expected, image, OTHER)


def test_resnext(tmp_path: Path) -> None:
    there = ZOO._replace(size=96, longer=160, stride_in_1x1=False, std=(57.375, 57.12, 58.395))
    state, image = made(50, 3, resnext=True, there=there), images()[-1]
    checkpoint = detectron2.convert(read(written(state, tmp_path, "pkl")))
    assert checkpoint.settings.backbone.name == "resnext50_32x4d"
    expected = origin(state, image, there)
    assert len(expected.boxes) > 20
    assert same(checkpoint, expected, image, there)
    (line, _) = checkpoint.extra["assumed"]
    assert "PIXEL_STD [57.375, 57.12, 58.395]" in line
    assert "STRIDE_IN_1X1 False" in line


def contents(text: str | None, state: dict[str, torch.Tensor] | None = None) -> Contents:
    beside = None if text is None else Beside(Path("config.yaml"), text)
    return Contents(Path("model_final.pth"), dict(state or layout_18()), {}, beside)


def settings_of(text: str) -> Any:
    return detectron2.convert(contents(text)).settings


def test_every_assumption_is_named() -> None:
    (line, names) = detectron2.convert(contents(None)).extra["assumed"]
    for key in (
        *("MIN_SIZE_TEST 800", "MAX_SIZE_TEST 1333", "FORMAT BGR", "PIXEL_MEAN [103.53", "PIXEL_STD [1, 1, 1]"),
        *("SIZES", "ASPECT_RATIOS", "OFFSET", "BBOX_REG_WEIGHTS", "SCORE_THRESH_TEST 0.05", "TOPK_CANDIDATES_TEST"),
        *("NMS_THRESH_TEST 0.5", "DETECTIONS_PER_IMAGE 100"),
    ):
        assert key in line
    assert "STRIDE_IN_1X1" not in line, "basic blocks have no 1 x 1 convolution"
    assert "COCO" in names
    (line, _) = detectron2.convert(contents("INPUT: {MIN_SIZE_TEST: 640, FORMAT: RGB}")).extra["assumed"]
    assert "MIN_SIZE_TEST" not in line
    assert "FORMAT" not in line
    assert "MAX_SIZE_TEST 1333" in line


def test_parts_of_a_configuration() -> None:
    zoo = settings_of("_BASE_: ../Base-RetinaNet.yaml\nMODEL: {RESNETS: {DEPTH: 18}}")
    assert zoo == detectron2.convert(contents(None)).settings
    assert settings_of("INPUT: {MIN_SIZE_TEST: 0}").preprocessing.resize == "none"
    images = settings_of("INPUT: {MIN_SIZE_TEST: 900, MAX_SIZE_TEST: 640}").preprocessing
    assert (images.size, images.longer) == (640, 640), "the longer side is 640 in any case"
    one_for_all = "MODEL: {ANCHOR_GENERATOR: {SIZES: [[32, 64, 96]], ASPECT_RATIOS: [0.5, 1, 2]}}"
    assert settings_of(one_for_all).anchors.sizes == (32.0,) * 5
    assert settings_of(one_for_all).anchors.scales == (1.0, 2.0, 3.0)
    text = "MODEL: {RETINANET: {BBOX_REG_WEIGHTS: !!python/tuple [2, 2, 1, 1]}, PIXEL_STD: '[57.375, 57.12, 58.395]'}"
    assert settings_of(text).head.box_weights == (2, 2, 1, 1)
    assert settings_of(text).preprocessing.std == pytest.approx((58.395 / 255, 57.12 / 255, 57.375 / 255))


@pytest.mark.parametrize("text", ["model: {_target_: detectron2.RetinaNet}", "epochs: 3", ""])
def test_other_peoples_config_is_not_used_and_that_is_said(text: str) -> None:
    checkpoint = detectron2.convert(contents(text))
    assert checkpoint.settings == detectron2.convert(contents(None)).settings
    assert any("config.yaml" in line for line in checkpoint.extra["assumed"])


def test_a_configuration_that_would_fill_the_memory_is_refused_at_once() -> None:
    lists = "A: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    for line in (
        *("INPUT: {FORMAT: *a11}", "_BASE_: *a11", "TEST: {DETECTIONS_PER_IMAGE: *a11}", "MODEL: {PIXEL_STD: *a11}"),
        *("MODEL: {ANCHOR_GENERATOR: {SIZES: *a11}}", "MODEL: {ANCHOR_GENERATOR: {ASPECT_RATIOS: *a11}}"),
        *("MODEL: {RESNETS: {DEPTH: *a11}}", "MODEL: {RETINANET: {NUM_CLASSES: *a11}}"),
        "MODEL: {META_ARCHITECTURE: *a11}",
    ):
        with pytest.raises(RequestError) as error:
            detectron2.convert(contents(lists + line))
        assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: ../other.yaml", r"builds on _BASE_ '\.\./other\.yaml'"),
        ("MODEL: {META_ARCHITECTURE: GeneralizedRCNN}", "META_ARCHITECTURE 'GeneralizedRCNN'"),
        ("MODEL: {RETINANET: {NUM_CLASSES: 20}}", "NUM_CLASSES 20, but .* has 80: .* another model"),
        ("MODEL: {RETINANET: {NUM_CONVS: 3}}", "NUM_CONVS 3"),
        ("MODEL: {RESNETS: {DEPTH: 50}}", "DEPTH 50"),
        ("MODEL: {RESNETS: {DEFORM_ON_PER_STAGE: [false, true, true, true]}}", "DEFORM_ON_PER_STAGE"),
        ("MODEL: {RETINANET: {IN_FEATURES: [p2, p3, p4, p5, p6]}}", "IN_FEATURES"),
        ("MODEL: {FPN: {FUSE_TYPE: avg}}", "FUSE_TYPE 'avg'"),
        ("MODEL: {RETINANET: {BBOX_REG_WEIGHTS: [1, 1]}}", "2 numbers as .*BBOX_REG_WEIGHTS"),
        ("MODEL: {RETINANET: {BBOX_REG_WEIGHTS: [1, 1, 0, 1]}}", "box_weights"),
        ("MODEL: {RETINANET: {SCORE_THRESH_TEST: 3}}", "threshold must be"),
        ("MODEL: {RETINANET: {NMS_THRESH_TEST: much}}", "'much'"),
        ("MODEL: {ANCHOR_GENERATOR: {SIZES: [[1, 2, 4], [2, 4, 9], [4, 8, 16], [8, 16, 32], [9, 18, 36]]}}", "proport"),
        ("MODEL: {ANCHOR_GENERATOR: {SIZES: [[32], [64]]}}", "for each of 5 levels"),
        ("MODEL: {ANCHOR_GENERATOR: {SIZES: !!python/object/apply:eval ['[[x] for x in [1]]']}}", "SIZES"),
        ("MODEL: {ANCHOR_GENERATOR: {SIZES: []}}", "SIZES"),
        ("MODEL: {RESNETS: {STRIDE_IN_1X1: sometimes}}", "not true or false"),
        ("INPUT: {FORMAT: L}", "'l' as INPUT.FORMAT"),
        ("INPUT: {MIN_SIZE_TEST: .nan}", "MIN_SIZE_TEST"),
        ("INPUT: {MAX_SIZE_TEST: 0}", "MAX_SIZE_TEST"),
        ("MODEL: [", "not YAML"),
        ("just words", "no mapping of names to values"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        detectron2.convert(contents(text))
    assert "\n" not in str(error.value)
    assert "config.yaml" in str(error.value) or "model_final.pth" in str(error.value)
