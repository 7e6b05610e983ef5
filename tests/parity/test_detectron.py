"""A file of Detectron's RetinaNet gives here what a plain implementation of Detectron's own steps gives.

The reference below works on the blobs by their names, in inclusive pixels, with Detectron's order of anchors; it shares
nothing with the package. OpenCV's resize of floats is written out: it differs from cv2.resize by 2e-5 grey levels
with OpenCV's optimisations, by 6e-3 without.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from helpers.detectron_files import CFG, LONGER, MEANS, SIZE, pickled, random_blobs, resnet_blobs
from retinanet.checkpoints.foreign import detectron
from retinanet.checkpoints.native import Checkpoint
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.weight_files import reader
from retinanet.weight_files.reader import Contents

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tiny_coco" / "val2017"
needs_images = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/tiny_coco")


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """cv2.resize(image, None, fx=scale, fy=scale) of a float image (H, W, 3)."""

    def samples(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centres = (np.arange(np.rint(count * scale)) + 0.5) / scale - 0.5
        centres = centres.clip(0, count - 1)
        first = np.floor(centres).astype(int)
        return first, np.minimum(first + 1, count - 1), centres - first

    y, below, down = samples(image.shape[0])
    x, right, across = samples(image.shape[1])
    rows = image[y] * (1 - down)[:, None, None] + image[below] * down[:, None, None]
    return rows[:, x] * (1 - across)[None, :, None] + rows[:, right] * across[None, :, None]


def network_input(image: np.ndarray) -> tuple[Tensor, float]:
    """(1, 3, H, W) in B, G, R, and the scale, of an image (H, W, 3) in R, G, B."""
    shorter, longer = sorted(image.shape[:2])
    scale = SIZE / shorter
    if np.round(scale * longer) > LONGER:
        scale = LONGER / longer
    resized = resize(image[:, :, ::-1].astype(np.float64) - MEANS, scale)
    height, width = (math.ceil(side / 128) * 128 for side in resized.shape[:2])
    data = np.zeros((1, 3, height, width), np.float32)
    data[0, :, : resized.shape[0], : resized.shape[1]] = resized.transpose(2, 0, 1)
    return torch.from_numpy(data), scale


def network(blobs: dict[str, np.ndarray], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Per level, P3 to P7, logits (A * K, h, w) and deltas (A * 4, h, w)."""
    w = {name: torch.from_numpy(blob) for name, blob in blobs.items()}
    groups = w["res2_0_branch2b_w"].shape[0] // w["res2_0_branch2b_w"].shape[1]

    def body(x: Tensor, name: str, stride: int = 1, norm: str = "", groups: int = 1) -> Tensor:
        weight, norm = w[f"{name}_w"], norm or f"{name}_bn"
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
        return x * w[f"{norm}_s"][:, None, None] + w[f"{norm}_b"][:, None, None]

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}_w"]
        return F.conv2d(x, weight, w[f"{name}_b"], stride, weight.shape[2] // 2)

    x = F.max_pool2d(body(x, "conv1", 2, "res_conv1_bn").relu(), 3, 2, 1)
    features, lasts = {}, {}
    for stage in range(2, 6):
        block = 0
        while f"res{stage}_{block}_branch2a_w" in w:
            name = f"res{stage}_{block}_branch"
            stride = 2 if block == 0 and stage > 2 else 1
            # ResNets come from Microsoft and halve in the first convolution, ResNeXts from Torch.
            in_1x1, in_3x3 = (stride, 1) if groups == 1 else (1, stride)
            inside = body(body(x, f"{name}2a", in_1x1).relu(), f"{name}2b", in_3x3, groups=groups).relu()
            shortcut = body(x, f"{name}1", stride) if block == 0 else x
            x = (body(inside, f"{name}2c") + shortcut).relu()
            block += 1
        features[stage], lasts[stage] = x, f"res{stage}_{block - 1}_sum"
    inner = conv(features[5], f"fpn_inner_{lasts[5]}")
    levels = [conv(inner, f"fpn_{lasts[5]}")]
    for stage in (4, 3):
        above = inner.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        inner = above + conv(features[stage], f"fpn_inner_{lasts[stage]}_lateral")
        levels.insert(0, conv(inner, f"fpn_{lasts[stage]}"))
    levels.append(conv(features[5], "fpn_6", 2))
    levels.append(conv(levels[-1].relu(), "fpn_7", 2))

    results: dict[str, list[Tensor]] = {"cls": [], "bbox": []}
    for kind, outputs in results.items():
        for level in levels:
            for index in range(4):
                level = conv(level, f"retnet_{kind}_conv_n{index}_fpn3").relu()
            outputs.append(conv(level, f"retnet_{kind}_pred_fpn3")[0])
    return results["cls"], results["bbox"]


def position_anchors(stride: float) -> np.ndarray:
    """(9, 4) x1, y1, x2, y2 around the first position, inclusive pixels: octave by octave, ratios 1, 2, 1/2."""
    anchors = []
    for octave in range(3):
        for ratio in (1.0, 2.0, 0.5):
            width = np.round(np.sqrt(stride * stride / ratio))
            height = np.round(width * ratio)
            half = np.array([width, height]) * 4 * 2 ** (octave / 3) / 2 - 0.5
            centre = (stride - 1) / 2
            anchors.append([*(centre - half), *(centre + half)])
    return np.array(anchors)


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (n,) of inclusive boxes: a box of one pixel has x1 = x2."""
    shared = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + 1
    shared = shared.clip(0).prod(axis=1)
    return shared / ((box[2:] - box[:2] + 1).prod() + (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) - shared)


@torch.inference_mode()
def reference(blobs: dict[str, np.ndarray], image: np.ndarray) -> dict[str, Tensor]:
    """What Detectron writes into its results: boxes as x, y, x + w, y + h in pixels of the image, scores, labels."""
    x, scale = network_input(image)
    found: dict[int, list[np.ndarray]] = {}
    for level, (logits, deltas) in enumerate(zip(*network(blobs, x)), start=3):
        stride = 2.0**level
        scores = logits.sigmoid().numpy().reshape(9, 80, *logits.shape[1:])
        flat = scores.ravel()
        chosen = np.flatnonzero(flat > (0.05 if level < 7 else 0.0))
        chosen = chosen[np.argsort(-flat[chosen], kind="stable")[:1000]]
        anchor, label, row, column = np.unravel_index(chosen, scores.shape)
        boxes = position_anchors(stride)[anchor] + np.stack([column, row, column, row], axis=1) * stride
        moves = deltas.numpy().reshape(9, 4, *deltas.shape[1:])[anchor, :, row, column].astype(np.float64)
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        centres = boxes[:, :2] + sides / 2 + moves[:, :2] * sides
        sides = sides * np.exp(np.minimum(moves[:, 2:], np.log(1000 / 16)))
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2 - 1], axis=1) / scale
        boxes = boxes.clip(0, [image.shape[1] - 1, image.shape[0] - 1] * 2)
        for one, box, score in zip(label, boxes, flat[chosen]):
            found.setdefault(int(one), []).append(np.array([*box, score]))
    kept = []
    for one, rows in found.items():
        waiting = np.array(sorted(rows, key=lambda r: -r[4]))
        while len(waiting):
            kept.append([*waiting[0], one])
            waiting = waiting[1:][overlap(waiting[0, :4], waiting[1:, :4]) < 0.5]
    best = np.array(sorted(kept, key=lambda r: -r[4])[:100])
    best[:, 2:4] += 1
    return {
        "boxes": torch.from_numpy(best[:, :4]).float(),
        "scores": torch.from_numpy(best[:, 4]).float(),
        "labels": torch.from_numpy(best[:, 5]).long(),
    }


def detector(checkpoint: Checkpoint, **changed: Any) -> Detector:
    """``changed``: parts of the model's settings with other values, such as postprocessing={"inclusive": False}."""
    parts = {name: dataclasses.replace(getattr(checkpoint.settings, name), **new) for name, new in changed.items()}
    with torch.device("meta"):  # saves the time of random weights
        model = RetinaNet(dataclasses.replace(checkpoint.settings, **parts), 80, load_weights=False)
    model.load_state_dict(checkpoint.state, assign=True)
    return Detector(model, checkpoint.class_names)


def agree(found: Detections, expected: dict[str, Tensor]) -> bool:
    """One to one the same labels, boxes within 0.01 px, scores within 1e-4."""
    if len(found) != len(expected["boxes"]):
        return False
    # Of two boxes with nearly equal scores either may come first: pair them by label, place and score.
    keys = [
        torch.cat([boxes, 1000 * labels[:, None], 100 * scores[:, None]], dim=1).double()
        for boxes, labels, scores in (
            (found.boxes, found.labels, found.scores),
            (expected["boxes"], expected["labels"], expected["scores"]),
        )
    ]
    pairs = torch.cdist(*keys, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    return (
        len(pairs.unique()) == len(found)
        and torch.equal(found.labels, expected["labels"][pairs])
        and float((found.boxes - expected["boxes"][pairs]).abs().max()) < 1e-2
        and float((found.scores - expected["scores"][pairs]).abs().max()) < 1e-4
    )


def images(count: int) -> list[Path]:
    """Images of different shapes, after resizing as well; all but few need rounding to whole pixels."""
    chosen: dict[tuple[int, int], Path] = {}
    for path in sorted(DATA.glob("*.jpg")):
        with Image.open(path) as image:
            chosen.setdefault(image.size, path)
    return list(chosen.values())[:count]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@functools.cache
def resnet() -> Checkpoint:
    tensors = {name: torch.from_numpy(blob) for name, blob in resnet_blobs().items()}
    return detectron.convert(Contents(Path("model_final.pkl"), tensors, {"cfg": CFG}))


@pytest.mark.slow
@needs_images
def test_detections_of_a_file(tmp_path: Path) -> None:
    blobs = resnet_blobs()
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickled(blobs, CFG))
    contents = reader.read(path)
    assert detectron.recognises(contents)
    checkpoint = detectron.convert(contents)
    assert checkpoint.extra["origin"] == "Detectron, ResNet-50"
    assert checkpoint.class_names[:2] == ("person", "bicycle")
    here = detector(checkpoint)
    for image in images(3):
        expected = reference(blobs, pixels(image))
        assert len(expected["boxes"]) > 20
        assert float(expected["scores"].max()) > 0.5
        assert agree(here.predict(image), expected), image.name


@needs_images
def test_low_scores_of_the_coarsest_level() -> None:
    blobs, checkpoint = resnet_blobs(), resnet()
    shift = np.float32(-1.5)
    blobs = blobs | {"retnet_cls_pred_fpn3_b": blobs["retnet_cls_pred_fpn3_b"] + shift}
    state = checkpoint.state | {"class_subnet.output.bias": checkpoint.state["class_subnet.output.bias"] + float(shift)}
    checkpoint = checkpoint._replace(state=state)
    (image,) = images(1)
    expected = reference(blobs, pixels(image))
    low = int((expected["scores"] < 0.05).sum())
    assert 0 < low < len(expected["scores"]) == 100
    assert agree(detector(checkpoint).predict(image), expected)
    plain = detector(checkpoint, postprocessing={"coarsest_threshold": None}).predict(image)
    assert len(plain) < 100, "without that level's own threshold there is nothing below 0.05"


@pytest.mark.slow
@needs_images
def test_detections_of_a_resnext() -> None:
    blobs = random_blobs(101, groups=64, width=4)
    tensors = {name: torch.from_numpy(blob) for name, blob in blobs.items()}
    checkpoint = detectron.convert(Contents(Path("X-101.pkl"), tensors, {"cfg": CFG}))
    assert checkpoint.extra["origin"] == "Detectron, ResNeXt-101-64x4d"
    (image,) = images(1)
    expected = reference(blobs, pixels(image))
    assert len(expected["boxes"]) > 20
    assert agree(detector(checkpoint).predict(image), expected)


@needs_images
@pytest.mark.parametrize(
    ("part", "setting"),
    [
        ("postprocessing", {"inclusive": False}),
        ("anchors", {"rounding": "none"}),
        ("preprocessing", {"rounding": "nearest"}),
        ("backbone", {"stride_in_1x1": False}),
    ],
)
def test_every_convention_matters(part: str, setting: dict[str, Any]) -> None:
    (image,) = images(1)
    assert not agree(detector(resnet(), **{part: setting}).predict(image), expected_of_the_first())


@functools.cache
def expected_of_the_first() -> dict[str, Tensor]:
    return reference(resnet_blobs(), pixels(images(1)[0]))
