"""The user's class names for a checkpoint whose file names none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retinanet.checkpoints.foreign import coco_classes
from retinanet.checkpoints.native import Checkpoint
from retinanet.common.arguments import class_names_of
from retinanet.common.errors import RequestError


def assumption(count: int) -> str:
    """The sentence of a reader that had to assume the class names."""
    return f"the names of its {count} classes{', which are those of COCO' if count == 80 else ''}"


def with_names(checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """The checkpoint with other class names, in the order of its labels.

    A model that was fine-tuned with torchvision has K + 1 outputs a position for K classes: its labels start at 1, and
    output 0 is the background's, which is never trained as a class. It takes K names, and output 0 is dropped, unless
    the file names its classes.

    Raises:
        RequestError: names are repeated or invalid, or there are more or fewer than classes.
    """
    names = class_names_of(list(names))
    count = len(checkpoint.class_names)
    before = checkpoint.extra.get("assumed", ())
    assumed = [line for line in before if line != assumption(count)]
    named = checkpoint._replace(class_names=names, extra={**checkpoint.extra, "assumed": assumed})
    if len(names) == count:
        return named
    unnamed = assumption(count) in before or checkpoint.class_names[0] == coco_classes.BACKGROUND
    has_background = unnamed and str(checkpoint.extra.get("origin", "")).startswith("torchvision")
    if has_background and len(names) == count - 1:
        return named._replace(state=_without_first_class(named, count))
    accepted = f"{count - 1} (without the background) or {count}" if has_background and count > 1 else f"{count}"
    raise RequestError(f"there are {len(names)} class names, but the checkpoint takes {accepted}")


def _without_first_class(checkpoint: Checkpoint, count: int) -> dict[str, Any]:
    """The state without the first class's row of the class output, whose shape is (anchors * count, ...)."""
    state = dict(checkpoint.state)
    for name in ("class_subnet.output.weight", "class_subnet.output.bias"):
        rows = state[name].unflatten(0, (-1, count))  # (anchors, count, ...)
        state[name] = rows[:, 1:].flatten(0, 1).contiguous()
    return state
