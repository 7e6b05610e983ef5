"""What is read from Detectron's files beside the weights, and what is refused (its boxes: parity/test_detectron.py)."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.detectron_files import CFG, LONGER, MEANS, SIZE, resnet_blobs
from retinanet.checkpoints.foreign import detectron
from retinanet.common.errors import RequestError
from retinanet.weight_files.reader import Contents


def contents(cfg: str | None = None, **blobs: Any) -> Contents:
    """The ResNet's, with some blobs changed, or left out where None is given."""
    tensors = {name: torch.from_numpy(blob) for name, blob in resnet_blobs().items()} | blobs
    about = {} if cfg is None else {"cfg": cfg}
    return Contents(Path("some.pkl"), {name: blob for name, blob in tensors.items() if blob is not None}, about)


def test_settings_without_configuration_are_those_of_the_zoo() -> None:
    settings = detectron.convert(contents()).settings
    images, found = settings.preprocessing, settings.postprocessing
    assert (images.size, images.longer, images.multiple) == (800, 1333, 128)
    assert (found.threshold, found.candidates, found.nms_iou, found.max_detections) == (0.05, 1000, 0.5, 100)
    assert settings.backbone.name == "resnet50"
    assert settings.backbone.stride_in_1x1
    assert settings.anchors.sizes == (32, 64, 128, 256, 512)
    assert settings.preprocessing.mean == pytest.approx([mean / 255 for mean in reversed(MEANS)])


def test_settings_of_a_configuration() -> None:
    settings = detectron.convert(contents(CFG)).settings
    assert (settings.preprocessing.size, settings.preprocessing.longer) == (SIZE, LONGER)
    assert settings.preprocessing.mean == pytest.approx([mean / 255 for mean in reversed(MEANS)])
    plain = """
        RETINANET: {ANCHOR_SCALE: 3, ASPECT_RATIOS: "(0.25, 1.0, 4.0)", INFERENCE_TH: 0.1, PRE_NMS_TOP_N: 500}
        TEST: {SCALE: 600, MAX_SIZE: 1000, NMS: 0.4, DETECTIONS_PER_IM: 50}
        PIXEL_MEANS: [[[1, 2, 3]]]
        RESNETS: {STRIDE_1X1: false}
    """
    settings = detectron.convert(contents(plain)).settings
    assert settings.anchors.sizes == (24, 48, 96, 192, 384)
    assert settings.anchors.ratios == (0.25, 1.0, 4.0)
    assert (settings.preprocessing.size, settings.preprocessing.longer) == (600, 1000)
    assert settings.preprocessing.mean == pytest.approx((3 / 255, 2 / 255, 1 / 255))
    found = settings.postprocessing
    assert (found.threshold, found.candidates, found.nms_iou, found.max_detections) == (0.1, 500, 0.4, 50)
    assert not settings.backbone.stride_in_1x1


def test_rows_follow_the_order_of_the_ratios() -> None:
    bias = torch.arange(36.0)
    converted = detectron.convert(contents("RETINANET: {ASPECT_RATIOS: [2.0, 1.0, 0.5]}", retnet_bbox_pred_fpn3_b=bias))
    anchors = converted.state["box_subnet.output.bias"].reshape(9, 4)[:, 0] / 4
    assert anchors.tolist() == [2, 5, 8, 1, 4, 7, 0, 3, 6], "ratio 1/2 of every octave, then 1, then 2"


@pytest.mark.parametrize(
    ("cfg", "blobs", "message"),
    [
        (None, {"fpn_6_b": None}, "no blob fpn_6_b"),
        (None, {"res5_2_branch2a_w": None}, r"backbone of \[3, 4, 6, 2\] blocks"),
        (None, {"fpn_inner_res5_2_sum_gn_s": torch.ones(256)}, "has fpn_inner_res5_2_sum_gn_s, which no RetinaNet"),
        (None, {"fpn_7_w": torch.ones(256, 256, 1, 1)}, r"fpn_7_w has the shape \(256, 256, 1, 1\), where"),
        (None, {"fpn_7_b": torch.full((256,), math.nan)}, "fpn_7_b holds numbers that are not finite"),
        (None, {"retnet_cls_pred_fpn3_w": torch.ones(729, 256, 3, 3)}, "81 class outputs .* softmax"),
        (None, {"retnet_bbox_pred_fpn3_w": torch.ones(2880, 256, 3, 3)}, "720 anchors"),
        (None, {"res2_0_branch2b_w": torch.ones(64, 8, 3, 3)}, "ResNeXt-50-8x8d"),
        ("RETINANET: {SOFTMAX: true}", {}, "RETINANET.SOFTMAX True; only False"),
        ("MODEL: {NUM_CLASSES: 21}", {}, "80 class outputs for an anchor, not 20"),
        ("FPN: {COARSEST_STRIDE: 100}", {}, "model.preprocessing.multiple must be a multiple of 32"),
        ("TEST: {SCALES: [600, 800]}", {}, "several sizes"),
        ("TEST: {NMS: much}", {}, "'much' as TEST.NMS"),
        ("TEST: {MAX_SIZE: -5}", {}, "-5.0 as TEST.MAX_SIZE"),
        ("BBOX_XFORM_CLIP: 3.0", {}, "BBOX_XFORM_CLIP 3.0"),
        ("PIXEL_MEANS: [1, 2]", {}, "2 numbers as PIXEL_MEANS"),
        ("TEST: [", {}, "not YAML"),
        ("just words", {}, "no mapping of names to values"),
        ("[" * 20_000, {}, "not YAML"),
    ],
)
def test_what_cannot_be_converted_is_refused(cfg: str | None, blobs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        detectron.convert(contents(cfg, **blobs))
    assert re.fullmatch(r"some\.pkl:? .+", str(caught.value)), "one line that names the file"


def test_a_configuration_executes_nothing_and_does_not_grow(tmp_path: Path) -> None:
    made = tmp_path / "made"
    call = f"RNG_SEED: !!python/object/apply:os.mkdir ['{made}']\nTEST: {{NMS: 0.3}}"
    assert detectron.convert(contents(call)).settings.postprocessing.nms_iou == 0.3
    assert not made.exists()
    # Nine lists of nine times the one before: 387 million numbers, were they written out.
    lists = "A: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    for key in ("PIXEL_MEANS: *a8", "RETINANET: {SOFTMAX: *a8}", "RETINANET: {ASPECT_RATIOS: *a8}"):
        with pytest.raises(RequestError, match="configur"):
            detectron.convert(contents(lists + key))


def test_other_files_are_not_recognised() -> None:
    assert detectron.recognises(contents())
    assert not detectron.recognises(Contents(Path("other.pth"), {"conv1.weight": torch.ones(1)}, {}))
    assert not detectron.recognises(contents(retnet_cls_pred_fpn3_w=None, retnet_cls_pred_fpn3_b=None))
