"""What Detectron2's RetinaNets compute, by plain functions over the names in its files; nothing of the package is used.

The weights are random, the files are written as Detectron2 writes them.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from retinanet.checkpoints.native import Checkpoint
from retinanet.config.model_settings import ModelSettings
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.weight_files.reader import Contents

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tiny_coco"
SIZE, LONGER = 160, 267  # small, for the time it takes; short and long images meet either limit
RESNEXT = 32  # groups, of 4 channels in the first stage
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SIZES = tuple((float(x), x * 2 ** (1 / 3), x * 2 ** (2 / 3)) for x in (32, 64, 128, 256, 512))
MEAN = (103.53, 116.28, 123.675)  # of B, G, R

State = dict[str, Tensor]


class Origin(NamedTuple):
    """What the model's configuration says; here as the zoo's, but for the sizes of images."""

    size: int = SIZE
    longer: int = LONGER
    channels: str = "BGR"
    mean: tuple[float, ...] = MEAN  # of the channels as they come
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    stride_in_1x1: bool = True
    sizes: tuple[tuple[float, ...], ...] = SIZES
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    offset: float = 0.0
    box_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    threshold: float = 0.05
    candidates: int = 1000
    nms: float = 0.5
    most: int = 100

    @property
    def anchors(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)


ZOO = Origin()


class Found(NamedTuple):
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    outside: int = 0  # boxes among the best hundred that lay outside the image


def images() -> list[Path]:
    """Three images of different shapes, upright and wide."""
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data/tiny_coco")
    chosen: dict[tuple[int, int], Path] = {}
    for path in sorted((DATA / "val2017").glob("*.jpg")):
        with Image.open(path) as image:
            chosen.setdefault(image.size, path)
    shapes = sorted(chosen, key=lambda size: size[0] / size[1])
    return [chosen[shapes[i]] for i in (0, len(shapes) // 2, -1)]


# ------------------------------------------------------------------------------------------- what the origin computes


def convolve(state: State, name: str, x: Tensor, stride: int = 1, calibrate: bool = False) -> Tensor:
    """A convolution as large as its weight says, and the normalisation with constants that belongs to it."""
    weight = state[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2, groups=groups)
    if f"{name}.norm.weight" not in state:
        return x
    gain, shift, mean, variance = (
        state[f"{name}.norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    if calibrate:
        variance.copy_(x.var(dim=(0, 2, 3)))
        mean.copy_(x.mean(dim=(0, 2, 3)))
    factor = gain / (variance + 1e-5).sqrt()
    return (x - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]


def features(state: State, x: Tensor, calibrate: bool = False, stride_in_1x1: bool = True) -> list[Tensor]:
    """P3 to P7 of a normalised and padded image (1, 3, H, W)."""
    body = "backbone.bottom_up"
    x = convolve(state, f"{body}.stem.conv1", x, 2, calibrate).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    stages = []
    for stage in (2, 3, 4, 5):
        block = 0
        while f"{body}.res{stage}.{block}.conv1.weight" in state:
            name = f"{body}.res{stage}.{block}"
            stride = 2 if stage > 2 and block == 0 else 1
            # The size is halved in the first convolution of a basic block, and in that of a bottleneck by default.
            early = stride if stride_in_1x1 or f"{name}.conv3.weight" not in state else 1
            inner = convolve(state, f"{name}.conv1", x, early, calibrate).relu()
            inner = convolve(state, f"{name}.conv2", inner, stride // early, calibrate)
            if f"{name}.conv3.weight" in state:
                inner = convolve(state, f"{name}.conv3", inner.relu(), 1, calibrate)
            short = f"{name}.shortcut"
            x = inner + (convolve(state, short, x, stride, calibrate) if f"{short}.weight" in state else x)
            x = x.relu()
            block += 1
        stages.append(x)
    merged = convolve(state, "backbone.fpn_lateral5", stages[3])
    maps = [convolve(state, "backbone.fpn_output5", merged)]
    for level in (4, 3):
        above = merged.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        merged = convolve(state, f"backbone.fpn_lateral{level}", stages[level - 2]) + above
        maps.insert(0, convolve(state, f"backbone.fpn_output{level}", merged))
    wide = state["backbone.top_block.p6.weight"].shape[1] == stages[3].shape[1]
    maps.append(convolve(state, "backbone.top_block.p6", stages[3] if wide else maps[2], 2))
    maps.append(convolve(state, "backbone.top_block.p7", maps[3].relu(), 2))
    return maps


def subnet(state: State, kind: str, output: str, x: Tensor, values: int) -> Tensor:
    """Rows (positions and their anchors, values)."""
    layer = 0
    while f"head.{kind}.{layer}.weight" in state:
        x = convolve(state, f"head.{kind}.{layer}", x)
        norm = f"head.{kind}.{layer + 1}"  # there in models with GN, else ReLU has this number
        if f"{norm}.running_var" in state:  # one BN for all levels
            parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *parts)
            layer += 1
        elif f"{norm}.weight" in state:
            x = F.group_norm(x, 32, state[f"{norm}.weight"], state[f"{norm}.bias"])
            layer += 1
        x = x.relu()
        layer += 2
    x = convolve(state, f"head.{output}", x)[0]  # (anchors * values, h, w)
    return x.reshape(-1, values, *x.shape[1:]).permute(2, 3, 0, 1).reshape(-1, values)


def anchors_of(level: int, height: int, width: int, there: Origin = ZOO) -> Tensor:
    """The anchors of P3 + level: row by row, in a position size by size, of a size ratio by ratio."""
    stride, rows = 8 * 2**level, []
    for y in range(height):
        for x in range(width):
            cx, cy = (x + there.offset) * stride, (y + there.offset) * stride
            for size in there.sizes[level]:
                for ratio in there.ratios:
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    rows.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    return torch.tensor(rows)


def resized(sides: tuple[int, ...], shorter: int, longer: int) -> list[int]:
    """The sides when the shorter becomes ``shorter``, unless the longer would become more than ``longer``."""
    scaled = [float(shorter) if side == min(sides) else side * (shorter / min(sides)) for side in sides]
    if max(scaled) > longer:
        factor = longer / max(scaled)
        scaled = [side * factor for side in scaled]
    return [int(side + 0.5) for side in scaled]


def network_input(path: Path, there: Origin = ZOO) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """(1, 3, H, W) normalised and padded, and (height, width) as it is resized and as it is in the file."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
    width, height = resized(image.size, there.size, there.longer) if there.size else image.size
    pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    pixels = pixels[:, :, ::-1] if there.channels == "BGR" else pixels
    x = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) - torch.tensor(there.mean)[:, None, None]
    x = x / torch.tensor(there.std)[:, None, None]
    return F.pad(x, (0, -width % 32, 0, -height % 32))[None], (height, width), (image.height, image.width)


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, there: Origin) -> Tensor:
    """Of what overlaps by more than a limit within a class only the best remains; places, the best first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = scores.argsort(descending=True), []
    while len(left) and len(kept) < there.most:
        best, rest = left[0], left[1:]
        kept.append(int(best))
        sides = torch.minimum(boxes[best, 2:], boxes[rest, 2:]) - torch.maximum(boxes[best, :2], boxes[rest, :2])
        common = sides.clamp(min=0).prod(dim=1)
        overlap = common / (areas[best] + areas[rest] - common)
        left = rest[(overlap <= there.nms) | (labels[rest] != labels[best])]
    return torch.tensor(kept, dtype=torch.int64)


@torch.no_grad()
def origin(state: State, path: Path, there: Origin = ZOO) -> Found:
    """The detections in pixels of the file."""
    x, (height, width), (full_height, full_width) = network_input(path, there)
    classes = len(state["head.cls_score.bias"]) // there.anchors
    boxes, scores, labels = [], [], []
    for level, feature in enumerate(features(state, x, stride_in_1x1=there.stride_in_1x1)):
        chances = subnet(state, "cls_subnet", "cls_score", feature, classes).sigmoid().flatten()
        deltas = subnet(state, "bbox_subnet", "bbox_pred", feature, 4) / torch.tensor(there.box_weights)
        best = (chances > there.threshold).nonzero()[:, 0]
        best = best[chances[best].argsort(descending=True)[: there.candidates]]
        row = best // classes
        anchors = anchors_of(level, *feature.shape[2:], there)[row]
        sides = anchors[:, 2:] - anchors[:, :2]
        centres = anchors[:, :2] + sides / 2 + deltas[row, :2] * sides
        sides = sides * deltas[row, 2:].clamp(max=math.log(1000 / 16)).exp()
        boxes.append(torch.cat((centres - sides / 2, centres + sides / 2), dim=1))
        scores.append(chances[best])
        labels.append(best % classes)
    together = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    kept = suppress(*together, there)
    found, chances, names = (tensor[kept] for tensor in together)
    # Scaled back, and only then clipped.
    found = found * torch.tensor([full_width / width, full_height / height] * 2)
    found = torch.minimum(found.clamp(min=0), torch.tensor([full_width, full_height] * 2))
    full = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    return Found(found[full], chances[full], names[full], int((~full).sum()))


# ------------------------------------------------------------------------------------------------ files of the origin


def layout(
    depth: int,
    classes: int = 80,
    p6_inputs: int | None = None,
    norm: Literal["", "GN", "BN"] = "",
    resnext: bool = False,
    anchors: int = 9,
) -> State:
    """Random weights under Detectron2's names; ``norm`` is that of the heads."""
    generator = torch.Generator().manual_seed(depth)
    state: State = OrderedDict()

    def convolution(name: str, inputs: int, outputs: int, kernel: int, gain: float = 2.0, bias: float = 0.1) -> None:
        deviation = math.sqrt(gain / (inputs * kernel**2))
        state[f"{name}.weight"] = torch.randn((outputs, inputs, kernel, kernel), generator=generator) * deviation
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * bias

    def normalised(name: str, inputs: int, outputs: int, kernel: int, loud: float = 1.0) -> None:
        convolution(name, inputs, outputs, kernel)
        del state[f"{name}.bias"]
        state[f"{name}.norm.weight"] = (torch.rand(outputs, generator=generator) + 0.5) * loud
        state[f"{name}.norm.bias"] = torch.randn(outputs, generator=generator) * 0.3
        state[f"{name}.norm.running_mean"] = torch.zeros(outputs)
        state[f"{name}.norm.running_var"] = torch.ones(outputs)

    widths = (256, 512, 1024, 2048) if depth >= 50 else (64, 128, 256, 512)
    for level, width in zip((3, 4, 5), widths[1:]):
        convolution(f"backbone.fpn_lateral{level}", width, 256, 1, gain=0.5)
        convolution(f"backbone.fpn_output{level}", 256, 256, 3, gain=1.0)
    convolution("backbone.top_block.p6", p6_inputs or widths[-1], 256, 3)
    convolution("backbone.top_block.p7", 256, 256, 3)
    body, inputs = "backbone.bottom_up", 64
    normalised(f"{body}.stem.conv1", 3, 64, 7)
    for stage, blocks, outputs in zip((2, 3, 4, 5), BLOCKS[depth], widths):
        for block in range(blocks):
            name, inner = f"{body}.res{stage}.{block}", 64 * 2 ** (stage - 2)
            if inputs != outputs:
                normalised(f"{name}.shortcut", inputs, outputs, 1)
            # Quiet blocks: otherwise a network this deep makes much of the last bit of its input.
            if depth >= 50:
                inner *= 2 if resnext else 1
                normalised(f"{name}.conv1", inputs, inner, 1)
                normalised(f"{name}.conv2", inner // RESNEXT if resnext else inner, inner, 3)
                normalised(f"{name}.conv3", inner, outputs, 1, loud=0.3)
            else:
                normalised(f"{name}.conv1", inputs, inner, 3)
                normalised(f"{name}.conv2", inner, outputs, 3, loud=0.3)
            inputs = outputs
    for kind in ("cls_subnet", "bbox_subnet"):
        for layer in range(4):
            convolution(f"head.{kind}.{layer * (3 if norm else 2)}", 256, 256, 3)
            if norm:
                name = f"head.{kind}.{layer * 3 + 1}"
                state[f"{name}.weight"] = torch.rand(256, generator=generator) + 0.5
                state[f"{name}.bias"] = torch.randn(256, generator=generator) * 0.3
            if norm == "BN":
                state[f"{name}.running_mean"] = torch.randn(256, generator=generator) * 0.3
                state[f"{name}.running_var"] = torch.rand(256, generator=generator) + 0.5
                state[f"{name}.num_batches_tracked"] = torch.tensor(5)
    convolution("head.cls_score", 256, anchors * classes, 3)
    convolution("head.bbox_pred", 256, anchors * 4, 3)
    return state


@lru_cache(maxsize=1)
def made(
    depth: int,
    classes: int = 80,
    p6_inputs: int | None = None,
    norm: Literal["", "GN", "BN"] = "",
    resnext: bool = False,
    there: Origin = ZOO,
) -> State:
    """The same, with statistics and outputs such that scores and boxes vary as those of a trained network do."""
    state, early = layout(depth, classes, p6_inputs, norm, resnext, there.anchors), there.stride_in_1x1
    with torch.no_grad():
        side = there.size // 32 * 32
        x = torch.cat([network_input(path, there)[0][:, :, :side, :side] for path in images()])
        maps = features(state, x, True, early)
        # Their few positions have to be seen among many; but large boxes show the last bits that a deep network loses.
        for level, loud in ((6, 1.7), (7, 1.6 if depth < 101 else 1.0)):
            for part in ("weight", "bias"):
                state[f"backbone.top_block.p{level}.{part}"] *= loud * maps[0].std() / maps[level - 3].std()
            maps = features(state, x, stride_in_1x1=early)
        for kind, output, values, spread in (
            ("cls_subnet", "cls_score", classes, 1.2),
            ("bbox_subnet", "bbox_pred", 4, 0.15 * max(there.box_weights)),
        ):
            rows = [subnet(state, kind, output, one[None], values) for feature in maps for one in feature]
            channels = torch.cat(rows).reshape(-1, there.anchors * values)
            factor = spread / channels.std(dim=0)
            state[f"head.{output}.weight"] *= factor[:, None, None, None]
            state[f"head.{output}.bias"] -= channels.mean(dim=0)
            state[f"head.{output}.bias"] *= factor
    state["head.cls_score.bias"] -= {80: 7.5, 20: 7, 3: 6}[classes]
    return state


def written(state: State, folder: Path, kind: str) -> Path:
    """The file as the model zoo publishes it (pkl), or as the trainer writes it (pth)."""
    path = folder / f"model_final.{kind}"
    if kind == "pkl":
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        data = {"model": arrays, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(data))
        return path
    momentum = {0: {"momentum_buffer": torch.zeros(3)}}
    torch.save(
        {
            "model": state,
            "optimizer": {"state": momentum, "param_groups": [{"lr": 0.01, "params": [0]}]},
            "scheduler": {"milestones": [60000, 80000], "last_epoch": 90000},
            "iteration": 89999,
        },
        path,
    )
    return path


@lru_cache(maxsize=1)
def layout_18() -> State:
    return layout(18)


def old(state: State) -> State:
    """With what files of Detectron2's first year hold beside the weights."""
    extra = {"pixel_mean": torch.tensor(MEAN)[:, None, None], "pixel_std": torch.ones(3, 1, 1)}
    for level in range(5):
        extra[f"anchor_generator.cell_anchors.{level}"] = anchors_of(level, 1, 1)
    return OrderedDict(state) | extra


# --------------------------------------------------------------------------------------------------- and what is here


def contents(state: State) -> Contents:
    return Contents(Path("model_final.pth"), dict(state), {})


def settings_with(settings: ModelSettings, **changes: Any) -> ModelSettings:
    """Settings changed by their dotted names, the dot as two underscores; small images in any case."""
    for name, value in {"preprocessing__size": SIZE, "preprocessing__longer": LONGER, **changes}.items():
        group, key = name.split("__")
        part = replace(getattr(settings, group), **{key: value})
        settings = replace(settings, **{group: part})
    return settings


def detector(checkpoint: Checkpoint, **changes: Any) -> Detector:
    settings = settings_with(checkpoint.settings, **changes)
    with torch.device("meta"):  # without the time that random weights take
        model = RetinaNet(settings, len(checkpoint.class_names), load_weights=False)
    model.load_state_dict({name: tensor.clone() for name, tensor in checkpoint.state.items()}, assign=True)
    model.to(memory_format=torch.channels_last)
    return Detector(model, checkpoint.class_names)


def different(found: Any, expected: Found) -> str:
    """How two lists of detections differ, nothing where they are the same."""
    if len(found.boxes) != len(expected.boxes):
        return f"{len(found.boxes)} boxes instead of {len(expected.boxes)}"
    # Of two boxes with nearly equal scores either may come first: pair them by label, place and score.
    keys = [
        torch.cat([boxes, 1000 * labels[:, None], 100 * scores[:, None]], dim=1).double()
        for boxes, labels, scores in (
            (found.boxes, found.labels, found.scores),
            (expected.boxes, expected.labels, expected.scores),
        )
    ]
    pairs = torch.cdist(*keys, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    if len(pairs.unique()) != len(pairs) or not torch.equal(found.labels, expected.labels[pairs]):
        return "other boxes"
    shift = float((found.boxes - expected.boxes[pairs]).abs().max())
    change = float((found.scores - expected.scores[pairs]).abs().max())
    return "" if shift < 1e-2 and change < 1e-4 else f"boxes by {shift:.4f} px, scores by {change:.6f}"
