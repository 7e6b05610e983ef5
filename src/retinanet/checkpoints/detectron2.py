"""Detectron2's RetinaNets: their weights under our names, and the conventions that their boxes depend on.

A checkpoint holds weights alone: the conventions are those of the model zoo's configurations. A model that was trained
with other ones, say with a ResNet that halves the size in its 3 x 3 convolutions, cannot be told from its file.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from retinanet.anchors import cell_anchors
from retinanet.checkpoints import coco
from retinanet.checkpoints.native import Checkpoint
from retinanet.checkpoints.network import by_ratio, count_batches, places, require_fit, resnet, shape, words
from retinanet.checkpoints.reading import Contents
from retinanet.config import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.errors import RequestError

BODY = "backbone.bottom_up."
ANCHORS = AnchorSettings(offset=0.0)
PER_POSITION = ANCHORS.per_position

PIXEL_MEAN = (103.53, 116.28, 123.675)  # of B, G and R in 0..255
PIXEL_STD = (1.0, 1.0, 1.0)

PATTERNS = (
    (r"backbone\.bottom_up\.stem\.conv1\.(\w+)", r"backbone.body.conv1.\1"),
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.(\w+)", r"backbone.body.layer<\1>.\2.conv\3.\4"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.(\w+)", r"backbone.body.layer<\1>.\2.bn\3.\4"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.(\w+)", r"backbone.body.layer<\1>.\2.downsample.0.\3"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.(\w+)", r"backbone.body.layer<\1>.\2.downsample.1.\3"),
    (r"backbone\.fpn_(lateral|output)([345])\.(\w+)", r"pyramid.\1.\2.conv.\3"),
    (r"backbone\.top_block\.(p[67])\.(\w+)", r"pyramid.\1.conv.\2"),
    (r"head\.cls_score\.(\w+)", r"class_subnet.output.\1"),
    (r"head\.bbox_pred\.(\w+)", r"box_subnet.output.\1"),
)
"""There -> here, but for the subnets' towers; a stage <n> there is a layer n - 1 here."""
TOWER = re.compile(r"head\.(cls|bbox)_subnet\.(\d+)\.(\w+)")
BESIDE = re.compile(r"pixel_mean|pixel_std|anchor_generator\.cell_anchors\.\d+")  # in old files; no weights


def recognises(contents: Contents) -> bool:
    """Whether these are the tensors of a Detectron2 detector, RetinaNet or not."""
    return any(name.startswith((BODY, "head.cls_subnet.")) for name in contents.tensors)


def convert(contents: Contents) -> Checkpoint:
    """A checkpoint of ours that gives the boxes that Detectron2's predictor gives with this one.

    Raises:
        RequestError: where the file holds another kind of detector, or a RetinaNet that cannot be built here; where
            tensors are missing, left over, of other shapes, or not finite.
    """
    path, tensors = contents.path, contents.tensors
    for name in (f"{BODY}stem.conv1.weight", "backbone.top_block.p6.weight", "head.cls_score.weight"):
        if name not in tensors:
            raise RequestError(
                f"{path} is a checkpoint of Detectron2, but not of a RetinaNet with a ResNet: it has no {name}"
            )
    settings = _settings(contents, resnet(contents, BODY + "res{}", first=2))
    count = shape(contents, "head.cls_score.weight")[0] // PER_POSITION
    _check_anchors(contents)

    step = 3 if settings.head.norm == "group" else 2
    state, origins = {}, {}
    for name, tensor in tensors.items():
        if BESIDE.fullmatch(name):
            continue
        ours = rename(name, step)
        if ours is None:
            raise RequestError(
                f"{path} holds {name}, which no RetinaNet of Detectron2 that can be converted has: a ResNet without "
                "deformable convolutions, a pyramid without normalisation, and heads with none or with GN are known"
            )
        origins[ours] = name
        state[ours] = tensor.float() if tensor.is_floating_point() else tensor
    _drop_biases(contents, state, settings)
    count_batches(state)
    require_fit(contents.path, state, origins, settings, count)
    by_ratio(state, ANCHORS)
    stem = "backbone.body.conv1.weight"
    state[stem] = state[stem].flip(1)  # B, G, R -> R, G, B
    return Checkpoint(state, settings, coco.names(count), {"origin": f"Detectron2, {words(settings.backbone.name)}"})


def rename(name: str, step: int = 2) -> str | None:
    """A tensor's name there -> its name here, None for one that is not known.

    Args:
        step: how many modules a layer of a subnet is there: convolution and ReLU, 3 with a normalisation between them.
    """
    if found := TOWER.fullmatch(name):
        subnet, layer, part = "class" if found[1] == "cls" else "box", *divmod(int(found[2]), step)
        kind = "conv" if part == 0 else "norm.0" if part == 1 and step == 3 else None
        return f"{subnet}_subnet.tower.{layer}.{kind}.{found[3]}" if kind else None
    for there, here in PATTERNS:
        if found := re.fullmatch(there, name):
            return re.sub(r"<(\d)>", lambda stage: str(int(stage[1]) - 1), found.expand(here))
    return None


def _settings(contents: Contents, backbone: str) -> ModelSettings:
    """The conventions of the zoo's configurations, and what the tensors' shapes tell."""
    tensors = contents.tensors
    boxes, scores = shape(contents, "head.bbox_pred.weight"), shape(contents, "head.cls_score.weight")
    if boxes[0] != 4 * PER_POSITION or scores[0] == 0 or scores[0] % PER_POSITION:
        raise RequestError(
            f"{contents.path} has {boxes[0]} box outputs and {scores[0]} class outputs at a position; a RetinaNet of "
            f"Detectron2 has 4 and one per class for each of {PER_POSITION} anchors"
        )
    towers = [found for name in tensors if (found := TOWER.fullmatch(name)) and found[1] == "cls"]
    convolutions = {found[2] for found in towers if tensors[found[0]].ndim == 4}
    normalised = any(tensors[found[0]].ndim == 1 and found[2] not in convolutions for found in towers)
    width = shape(contents, "backbone.fpn_lateral3.weight")[0]
    mean = _colours(contents, "pixel_mean", PIXEL_MEAN)
    std = _colours(contents, "pixel_std", PIXEL_STD)
    return ModelSettings(
        backbone=BackboneSettings(
            name=backbone,
            frozen_norm=not any(name.endswith("num_batches_tracked") for name in tensors),
            norm_eps=1e-5,
            stride_in_1x1=backbone not in ("resnet18", "resnet34"),
        ),
        pyramid=PyramidSettings(
            channels=width, p6_from="p5" if shape(contents, "backbone.top_block.p6.weight")[1] == width else "c5"
        ),
        head=HeadSettings(depth=len(convolutions), width=width, norm="group" if normalised else "none"),
        anchors=ANCHORS,
        preprocessing=PreprocessingSettings(rounding="detectron2", interpolation="pillow", mean=mean, std=std),
        postprocessing=PostprocessingSettings(clip="after", drop_empty=True),
    )


def _colours(contents: Contents, name: str, default: tuple[float, ...]) -> tuple[float, float, float]:
    """Their numbers for B, G and R in 0..255 -> ours for R, G and B in 0..1."""
    values = torch.as_tensor(contents.tensors.get(name, default), dtype=torch.float64).flatten()
    if len(values) != 3 or not values.isfinite().all() or (name == "pixel_std" and not (values > 0).all()):
        raise RequestError(f"{contents.path}: {name} is {values.tolist()}, not the three numbers of a colour picture")
    blue, green, red = (values / 255).tolist()
    return red, green, blue


def _check_anchors(contents: Contents) -> None:
    """Old files hold the anchors of one position, level by level: they have to be the paper's."""
    prefix = "anchor_generator.cell_anchors."
    given = {name.removeprefix(prefix): t for name, t in contents.tensors.items() if name.startswith(prefix)}
    expected = {str(place): cell_anchors(ANCHORS, place) for place in range(len(ANCHORS.sizes))}
    same = given.keys() == expected.keys() and all(
        given[place].shape == anchors.shape
        and torch.allclose(given[place][places(ANCHORS)].float(), anchors, atol=1e-2)
        for place, anchors in expected.items()
    )
    if given and not same:
        raise RequestError(f"{contents.path} has other anchors than the zoo's RetinaNets: it cannot be converted")


def _drop_biases(contents: Contents, state: dict[str, Tensor], settings: ModelSettings) -> None:
    """Convolutions before a group normalisation have a bias there and none here."""
    if settings.head.norm != "group":
        return
    groups = 32  # theirs always; ours are fewer in a narrow head
    if settings.head.width % (4 * groups):
        raise RequestError(f"{contents.path} has normalised heads of {settings.head.width} channels: too few for here")
    for name in [name for name in state if re.fullmatch(r"(class|box)_subnet\.tower\.\d+\.conv\.bias", name)]:
        if state.pop(name).any():
            raise RequestError(
                f"{contents.path} has heads with GN whose convolutions have biases, which cannot be converted"
            )
