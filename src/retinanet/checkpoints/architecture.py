"""Helpers of the readers of all projects: which network a file's tensors are of, and whether they fit into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from retinanet.common.errors import RequestError
from retinanet.common.fields import name as printable
from retinanet.config.model_settings import AnchorSettings, ModelSettings
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
        problem = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
        raise RequestError(f"{contents.path}: {name}, the weight of a convolution, {problem}; is the file complete?")
    return tuple(tensor.shape)


def class_count(contents: Contents, classes: str, boxes: str, anchors: AnchorSettings, hint: str = "") -> int:
    """How many classes there are, by the channels of the two outputs.

    Args:
        classes, boxes: names of the outputs' weights. hint: a sentence for the message, that says what to do.

    Raises:
        RequestError: the channels do not fit to the number of anchors at a position.
    """
    scores, coordinates = (shape(contents, name)[0] for name in (classes, boxes))
    per_position = anchors.per_position
    if coordinates != 4 * per_position or scores == 0 or scores % per_position:
        raise RequestError(
            f"{contents.path} has boxes of {coordinates / 4:g} anchors and {scores} class outputs at a position, where "
            f"a RetinaNet with {per_position} anchors has one for each class and anchor" + (f". {hint}" if hint else "")
        )
    return scores // per_position


def renamed(
    contents: Contents,
    rename: Callable[[str], list[str]],
    project: str,
    unused: Callable[[str], object],
    hint: str = "",
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors under our names, floating ones in float32, and the name that each of them has in the file.

    Args:
        rename: a name in the file -> the names here, none for an unknown one. project: for messages.
        unused: whether to leave out a name. hint: what can be read, for the message.

    Raises:
        RequestError: a name is unknown.
    """
    state: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for name, tensor in contents.tensors.items():
        if unused(name):
            continue
        names = rename(name)
        if not names:
            there = printable(name)
            raise RequestError(
                f"{contents.path} holds {there}, which no RetinaNet of {project} that can be converted has{hint}"
            )
        for ours in names:
            state[ours], origins[ours] = tensor.float() if tensor.is_floating_point() else tensor, name
    count_batches(state)
    return state, origins


def resnet(contents: Contents, stage: str, first: int = 1) -> str:
    """timm's name of the ResNet, ResNeXt or wide ResNet that the blocks make up.

    Args:
        stage: the beginning of its tensors' names, with {} for the number of the stage: "backbone.layer{}".
        first: the number of the first stage.

    Raises:
        RequestError: it is none of these.
    """
    import timm  # takes a second

    counts = []
    for number in range(first, first + 4):
        blocks = [re.match(rf"{re.escape(stage.format(number))}\.(\d+)\.", name) for name in contents.tensors]
        counts.append(len({block[1] for block in blocks if block}))
    first_block = f"{stage.format(first)}.0"
    bottlenecks = f"{first_block}.conv3.weight" in contents.tensors
    depth = DEPTHS.get((bottlenecks, tuple(counts)))
    kind = WIDTHS.get(shape(contents, f"{first_block}.conv2.weight")[:2]) if depth is not None else None
    name = (kind or "").format(depth)
    if not name or not (bottlenecks or kind == WIDTHS[64, 64]) or name not in timm.list_models():
        raise RequestError(
            f"{contents.path} has a backbone of {counts} {'bottlenecks' if bottlenecks else 'basic blocks'}, which is "
            "none of the ResNets, ResNeXts and wide ResNets known here: others cannot be converted"
        )
    return name


def words(name: str) -> str:
    """timm's name of a ResNet as the papers write it: ResNeXt-101 32x4d."""
    text = name.replace("wide_resnet", "Wide ResNet-").replace("resnext", "ResNeXt-").replace("resnet", "ResNet-")
    return text.removesuffix("_2").replace("_", " ")


def count_batches(state: dict[str, Tensor]) -> None:
    """Add our counters of batches, which batch normalisation with constants does not have."""
    for name in [name for name in state if name.endswith("running_var")]:
        state.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))


def anchor_order(anchors: AnchorSettings) -> Tensor:
    """(A,) int64: the index of each of our anchors (by ratio, then scale) among those by scale, then ratio."""
    return torch.arange(anchors.per_position).reshape(len(anchors.scales), len(anchors.ratios)).t().flatten()


def by_ratio(state: dict[str, Tensor], anchors: AnchorSettings) -> None:
    """Change the rows of both outputs from the order by scale, then ratio, into ours: by ratio, then scale."""
    order = anchor_order(anchors)
    for name in [name for name in state if name.startswith(("class_subnet.output.", "box_subnet.output."))]:
        state[name] = state[name].unflatten(0, (anchors.per_position, -1))[order].flatten(0, 1)


def require_fit(
    path: str | Path, state: Mapping[str, Tensor], origins: Mapping[str, str], settings: ModelSettings, count: int
) -> None:
    """Refuse a state that does not fit: by shapes before memory is taken, then by infinite or negative values.

    Args:
        path: of the file, for messages. state: under our names. origins: our name -> the name in the file, where the
            two differ. count: the number of classes.

    Raises:
        RequestError: the state does not fit into the network of these settings.
    """
    from retinanet.model.shapes import outline  # imports timm, which takes a second

    try:
        expected = outline(settings, count, 2 * len(state) + 1000)
    except RequestError as error:
        raise RequestError(f"{path} holds a RetinaNet that cannot be built here ({error})") from error
    for name, tensor in state.items():
        there = printable(origins.get(name, name))
        if name not in expected:
            raise RequestError(f"{path} holds {there}, which is not in its network")
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
