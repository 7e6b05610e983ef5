"""What the readers of all projects ask of a file's tensors: which network they are of, and whether it takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from retinanet.common.errors import RequestError
from retinanet.common.fields import name as printable
from retinanet.config.settings import AnchorSettings, ModelSettings
from retinanet.weight_files.reader import Contents

DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
"""Whether the blocks are bottlenecks, and how many there are in each stage -> a ResNet's depth."""
WIDTHS: dict[tuple[int, ...], str] = {
    (64, 64): "resnet{}",
    (128, 128): "wide_resnet{}_2",
    (128, 4): "resnext{}_32x4d",
    (256, 8): "resnext{}_32x8d",
    (256, 4): "resnext{}_64x4d",
}
"""Channels out and in (of a group) of the first stage's 3 x 3 convolutions -> the kind of network of bottlenecks."""


def shape(contents: Contents, name: str) -> tuple[int, ...]:
    """The shape of a convolution's weight, four numbers.

    Raises:
        RequestError: there is none of that name, or it is no convolution's.
    """
    tensor = contents.tensors.get(name)
    if tensor is None or tensor.ndim != 4:
        found = "is not there" if tensor is None else f"has the shape {tuple(tensor.shape)}"
        raise RequestError(f"{contents.path}: {name}, the weight of a convolution, {found}; is the file complete?")
    return tuple(tensor.shape)


def resnet(contents: Contents, stage: str, first: int = 1) -> str:
    """timm's name of the ResNet, ResNeXt or wide ResNet that the blocks make up.

    Args:
        stage: what names of its tensors begin with, with a place for the number of the stage: "backbone.layer{}".
        first: that number for the first stage.

    Raises:
        RequestError: it is none of these.
    """
    counts = []
    for number in range(first, first + 4):
        blocks = [re.match(rf"{re.escape(stage.format(number))}\.(\d+)\.", name) for name in contents.tensors]
        counts.append(len({found[1] for found in blocks if found}))
    block = f"{stage.format(first)}.0"
    bottlenecks = f"{block}.conv3.weight" in contents.tensors
    depth = DEPTHS.get((bottlenecks, tuple(counts)))
    kind = WIDTHS.get(shape(contents, f"{block}.conv2.weight")[:2]) if depth is not None else None
    name = (kind or "").format(depth)
    if not name or not (bottlenecks or kind == WIDTHS[64, 64]) or not _exists(name):
        raise RequestError(
            f"{contents.path} has a backbone of {counts} {'bottlenecks' if bottlenecks else 'basic blocks'}, which is "
            "none of the ResNets, ResNeXts and wide ResNets known here: others cannot be converted"
        )
    return name


def _exists(name: str) -> bool:
    import timm

    return name in timm.list_models()


def words(name: str) -> str:
    """timm's name of such a network for readers: ResNeXt-101 32x4d."""
    spelt = name.replace("wide_resnet", "Wide ResNet-").replace("resnext", "ResNeXt-").replace("resnet", "ResNet-")
    return spelt.removesuffix("_2").replace("_", " ")


def count_batches(state: dict[str, Tensor]) -> None:
    """Batch normalisation with constants does not count batches: add the counters that ours has."""
    for name in [name for name in state if name.endswith("running_var")]:
        state.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))


def places(anchors: AnchorSettings) -> Tensor:
    """(A,) int64: where each of our anchors of a position, by ratio and then scale, is among those by scale first."""
    return torch.arange(anchors.per_position).reshape(len(anchors.scales), len(anchors.ratios)).t().flatten()


def by_ratio(state: dict[str, Tensor], anchors: AnchorSettings) -> None:
    """Bring the rows of both outputs, by scale and then by ratio, into our order: by ratio, then by scale."""
    order = places(anchors)
    for name in [name for name in state if name.startswith(("class_subnet.output.", "box_subnet.output."))]:
        state[name] = state[name].unflatten(0, (anchors.per_position, -1))[order].flatten(0, 1)


def require_fit(
    path: str | Path, state: Mapping[str, Tensor], origins: Mapping[str, str], settings: ModelSettings, count: int
) -> None:
    """Compare shapes before anything is allocated, then see that weights are finite, and variances not negative.

    Args:
        path: of the file, for messages. state: under our names. origins: our name -> that in the file, where it is
            another. count: of classes.

    Raises:
        RequestError: the network of these settings does not take this state.
    """
    from retinanet.model.shapes import outline  # here, for it imports timm

    try:
        expected = outline(settings, count, 2 * len(state) + 1000)
    except RequestError as error:
        raise RequestError(f"{path} holds a RetinaNet that cannot be built here ({error})") from error
    for name, tensor in state.items():
        there = printable(origins.get(name, name))
        if name not in expected:
            raise RequestError(f"{path} holds {there}, for which its network has no place")
        if tensor.shape != expected[name].shape:
            raise RequestError(
                f"{path}: {there} has the shape {tuple(tensor.shape)}, where {tuple(expected[name].shape)} is needed "
                f"in a RetinaNet with {settings.backbone.name}"
            )
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            raise RequestError(f"{path}: {there} has the type {tensor.dtype}, where {expected[name].dtype} is needed")
    missing = sorted(expected.keys() - state.keys())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RequestError(
            f"{path} lacks the tensor that is {missing[0]} here{more}; is it a whole RetinaNet with "
            f"{settings.backbone.name}?"
        )
    for name, tensor in state.items():
        if not tensor.float().isfinite().all():
            there = printable(origins.get(name, name))
            raise RequestError(f"{path}: {there} holds numbers that are not finite; did training diverge?")
        if name.endswith("running_var") and (tensor < 0).any():
            there = printable(origins.get(name, name))
            raise RequestError(f"{path}: {there} holds variances below 0; is the file damaged?")
