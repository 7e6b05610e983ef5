"""The part of an ONNX file after the network: from its outputs to detections.

The same function as :mod:`retinanet.inference.postprocessing`, in ONNX's own operators (opset 18).
"""

from __future__ import annotations

import numpy as np

from retinanet.config.model_settings import AnchorSettings, ModelSettings, PostprocessingSettings
from retinanet.exporting.onnx.onnx_ops import Ops
from retinanet.exporting.onnx.onnx_preprocess import Sides
from retinanet.ops.anchors import cell_anchors
from retinanet.ops.boxes import MAX_LOG_RATIO


def postprocess(
    ops: Ops, logits: list[str], deltas: list[str], sides: Sides, settings: ModelSettings, num_classes: int
) -> None:
    """From logits (B, N_l, K) and deltas (B, N_l, 4) of each level to four tensors, D being ``max_detections``:

    "boxes" (B, D, 4) float32, "scores" (B, D) float32 descending, "labels" (B, D) int64, "counts" (B,) int64; after
    an image's last detection boxes and scores are 0, and labels -1.
    """
    after = settings.postprocessing
    thresholds = [after.threshold] * len(logits)
    if after.coarsest_threshold is not None:
        thresholds[-1] = after.coarsest_threshold
    per_level = []
    for i, level in enumerate(settings.anchors.levels):
        values, labels, anchor = _candidates(ops, logits[i], num_classes, after.candidates)
        # From here on a score of 0 means dropped: thresholds are at least 0, and a score must be above.
        scores, threshold = ops.Sigmoid(values), ops.constant(thresholds[i], np.float32, f"threshold.p{level}")
        scores = ops.Where(ops.Greater(scores, threshold), scores, ops.floats(0))
        anchors = _anchors(ops, anchor, sides.padded, settings.anchors, i)
        per_level.append((scores, labels, _decode(ops, ops.rows(deltas[i], anchor), anchors, after)))
    scores, labels, boxes = (ops.Concat(*tensors, axis=1) for tensors in zip(*per_level, strict=True))

    pixel = ops.Gather(ops.cast(sides.scale, np.float32), ops.ints([1, 0]))  # x before y, as in boxes
    corner = ops.Gather(ops.cast(ops.Mul(sides.original, sides.scale), np.float32), ops.ints([1, 0]))
    if after.clip == "before":
        boxes = _clip_inclusive(ops, boxes, corner, pixel) if after.inclusive else _clip(ops, boxes, corner)
        if after.drop_empty:
            scores = _without_empty(ops, scores, boxes)
    scores, labels, boxes = _best(ops, scores, labels, boxes, _most(ops, scores))
    kept = _suppress(ops, scores, labels, boxes, num_classes, after)
    count = ops.ints([after.max_detections])
    scores, labels, boxes = _best(ops, kept, labels, boxes, count)
    if after.clip == "after":
        boxes = _clip(ops, boxes, corner)
        if after.drop_empty:
            scores, labels, boxes = _best(ops, _without_empty(ops, scores, boxes), labels, boxes, count)

    # In float64: a box that reaches the edge has to end at the edge, not a rounding error beyond.
    exact = ops.Div(ops.cast(boxes, np.float64), ops.Gather(sides.scale, ops.ints([1, 0, 1, 0])))
    exact = ops.Max(exact, ops.doubles(0.0))
    boxes = ops.cast(ops.Min(exact, ops.Gather(sides.original, ops.ints([1, 0, 1, 0]))), np.float32)
    there = ops.Greater(scores, ops.floats(0))
    ops.Where(ops.Unsqueeze(there, ops.ints([-1])), boxes, ops.floats(0), outputs=["boxes"])
    ops.Identity(scores, outputs=["scores"])
    ops.Where(there, labels, ops.ints(-1), outputs=["labels"])
    ops.ReduceSum(ops.cast(there, np.int64), ops.ints([1]), keepdims=0, outputs=["counts"])


def _candidates(ops: Ops, logits: str, num_classes: int, limit: int) -> tuple[str, str, str]:
    """The ``limit`` highest logits of one level: their values, labels and anchors, each (B, n)."""
    # An anchor that is not among the n with the highest logits holds none of the n best pairs. So there is one maximum
    # over millions of logits, and a sort of a few.
    best = ops.ReduceMax(logits, ops.ints([2]), keepdims=0)
    values, rows = ops.TopK(best, _at_most(ops, best, limit), outputs=2)
    if num_classes == 1:
        return values, ops.Mul(rows, ops.ints(0)), rows
    pairs = ops.Reshape(ops.rows(logits, rows), ops.ints([0, -1]))  # (B, n * K)
    values, indices = ops.TopK(pairs, _at_most(ops, pairs, limit), outputs=2)
    classes = ops.ints(num_classes)
    return values, ops.Mod(indices, classes), ops.GatherElements(rows, ops.Div(indices, classes), axis=1)


def _at_most(ops: Ops, tensor: str, limit: int) -> str:
    """``limit``, or the length of the second axis where that is less: (1,) int64."""
    least: str = ops.Min(ops.Shape(tensor, start=1, end=2), ops.ints([limit]))
    return least


def _anchors(ops: Ops, anchor: str, padded: str, settings: AnchorSettings, level: int) -> str:
    """The boxes (B, n, 4) of anchors given by their indices (B, n) on a level, the ``level``-th of the settings."""
    stride = 2 ** settings.levels[level]
    grid = ops.Div(ops.Add(padded, ops.ints([stride - 1])), ops.ints([stride]))  # (2,): every halving rounds up
    step = ops.Div(padded, grid) if settings.strides == "torchvision" else ops.ints([stride] * 2)
    step = ops.cast(step, np.float32)
    position, columns = ops.Div(anchor, ops.ints(settings.per_position)), ops.slice(grid, 1, 2)
    offset = ops.floats(settings.offset)
    y = ops.Mul(ops.Add(ops.cast(ops.Div(position, columns), np.float32), offset), ops.slice(step, 0, 1))
    x = ops.Mul(ops.Add(ops.cast(ops.Mod(position, columns), np.float32), offset), ops.slice(step, 1, 2))
    x, y = (ops.Unsqueeze(tensor, ops.ints([-1])) for tensor in (x, y))
    cells = ops.floats(cell_anchors(settings, level).numpy())
    cell = ops.Gather(cells, ops.Mod(anchor, ops.ints(settings.per_position)))
    boxes: str = ops.Add(ops.Concat(x, y, x, y, axis=-1), cell)
    return boxes


def _decode(ops: Ops, deltas: str, anchors: str, settings: PostprocessingSettings) -> str:
    start, end = ops.slice(anchors, 0, 2), ops.slice(anchors, 2, 4)
    size, half = ops.Sub(end, start), ops.floats(0.5)
    centre = ops.Add(ops.Mul(ops.Add(start, end), half), ops.Mul(ops.slice(deltas, 0, 2), size))
    limited = ops.Min(ops.slice(deltas, 2, 4), ops.floats(MAX_LOG_RATIO))
    if settings.limit_shrinking:
        limited = ops.Max(limited, ops.floats(-MAX_LOG_RATIO))
    reach = ops.Mul(ops.Mul(ops.Exp(limited), size), half)
    boxes: str = ops.Concat(ops.Sub(centre, reach), ops.Add(centre, reach), axis=-1)
    return boxes


def _clip(ops: Ops, boxes: str, corner: str) -> str:
    clipped: str = ops.Min(ops.Max(boxes, ops.floats(0)), ops.Concat(corner, corner, axis=0))
    return clipped


def _clip_inclusive(ops: Ops, boxes: str, corner: str, pixel: str) -> str:
    """As :func:`retinanet.ops.boxes.clip_inclusive`."""
    start = ops.Min(ops.Max(ops.slice(boxes, 0, 2), ops.floats(0)), ops.Sub(corner, pixel))
    last = ops.Sub(ops.Add(ops.slice(boxes, 2, 4), pixel), ops.floats(1))
    clipped: str = ops.Concat(start, ops.Min(ops.Max(last, pixel), corner), axis=-1)
    return clipped


def _without_empty(ops: Ops, scores: str, boxes: str) -> str:
    """The scores, 0 for boxes without width or height."""
    sides = ops.Sub(ops.slice(boxes, 2, 4), ops.slice(boxes, 0, 2))
    full = ops.Greater(ops.ReduceMin(sides, ops.ints([-1]), keepdims=0), ops.floats(0))
    kept: str = ops.Where(full, scores, ops.floats(0))
    return kept


def _most(ops: Ops, scores: str) -> str:
    """The largest number of boxes that passed in an image, at least 1: further ones need no suppression."""
    passed = ops.cast(ops.Greater(scores, ops.floats(0)), np.int64)
    most = ops.ReduceMax(ops.ReduceSum(passed, ops.ints([1]), keepdims=0), keepdims=1)
    at_least_one: str = ops.Max(most, ops.ints([1]))
    return at_least_one


def _best(ops: Ops, scores: str, labels: str, boxes: str, count: str) -> tuple[str, str, str]:
    """The ``count`` (1,) highest scores of each image, filled up with zeros where there are fewer."""
    there = ops.Shape(scores, start=1, end=2)
    more = ops.Max(ops.Sub(count, there), ops.ints([0]))
    filled = ops.Pad(scores, ops.Concat(ops.ints([0, 0, 0]), more, axis=0), ops.floats(0))
    scores, indices = ops.TopK(filled, count, outputs=2)
    indices = ops.Min(indices, ops.Sub(there, ops.ints([1])))
    return scores, ops.GatherElements(labels, indices, axis=1), ops.rows(boxes, indices)


def _suppress(
    ops: Ops, scores: str, labels: str, boxes: str, num_classes: int, settings: PostprocessingSettings
) -> str:
    """Non-maximum suppression: the scores, 0 for what is suppressed.

    Each class has its own row of scores, in which those of other classes are 0. Libraries move the boxes of each class
    far away from the others' instead, which costs precision: with 1000 classes at 1333 pixels float32 leaves an eighth
    of a pixel. Class-agnostic suppression needs one row for all.
    """
    by_class = ops.Unsqueeze(scores, ops.ints([1]))
    if num_classes > 1 and settings.nms == "class":
        classes = ops.ints(np.arange(num_classes)[None, :, None])
        is_class = ops.Equal(ops.Unsqueeze(labels, ops.ints([1])), classes)
        by_class = ops.Where(is_class, by_class, ops.floats(0))  # (B, K, n)
    kept = ops.NonMaxSuppression(
        boxes, by_class, ops.ints(settings.max_detections), ops.floats(settings.nms_iou), ops.floats(0)
    )  # (m, 3): image, class, box
    indices = ops.Gather(kept, ops.ints([0, 2]), axis=1)
    ones = ops.Expand(ops.floats(1), ops.Shape(kept, start=0, end=1))
    mask = ops.ScatterND(ops.Mul(scores, ops.floats(0)), indices, ones)
    result: str = ops.Mul(scores, mask)
    return result
