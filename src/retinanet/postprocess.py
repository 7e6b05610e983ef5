"""From logits and deltas to boxes (section 4.1, "Inference")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet import boxes as geometry
from retinanet.config import PostprocessingSettings
from retinanet.model.retinanet import Outputs

TOGETHER = 320  # logits, of neighbouring anchors, that are looked at as one before any of them is looked at alone
FIRST = 2  # times the wanted number of detections: how many of the best boxes suppression looks at first


def postprocess(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    sizes: Tensor,
    settings: PostprocessingSettings,
    scales: Tensor | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and labels of every picture of a batch.

    On each level the (anchor, class) pairs with a score above the threshold, at most ``candidates`` of them, the best
    first, are decoded and clipped to the picture; over all levels together non-maximum suppression is applied class by
    class; the best ``max_detections`` remain. The result is that of the plain algorithm, though sigmoid and decoding
    see only the candidates.

    Args:
        outputs: per level logits (B, N_l, K) and deltas (B, N_l, 4).
        anchors: per level (N_l, 4), input pixels.
        sizes: (B, 2), height and width of each picture within its padding.
        scales: (B, 2), how many input pixels, down and across, are one pixel of the picture as it was given; only
            ``inclusive`` boxes need to know, 1 by default.

    Returns:
        For each picture boxes (n, 4) float32 x1 y1 x2 y2 in input pixels, scores (n,) float32 descending, labels (n,)
        int64.
    """
    thresholds = [settings.threshold] * len(anchors)
    if settings.coarsest_threshold is not None:
        thresholds[-1] = settings.coarsest_threshold
    parts = [
        _candidates(logits, deltas, level, threshold, settings)
        for logits, deltas, level, threshold in zip(outputs.logits, outputs.deltas, anchors, thresholds, strict=True)
    ]
    passed = torch.cat([scores > threshold for (_, scores, _, _), threshold in zip(parts, thresholds)])
    picture, scores, labels, boxes = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    sizes = sizes.to(boxes.device, boxes.dtype)
    if settings.clip == "before":
        if settings.inclusive:
            pixels = torch.ones_like(sizes) if scales is None else scales.to(boxes.device, boxes.dtype)
            boxes = _clip_inclusive(boxes, sizes[picture], pixels[picture])
        else:
            boxes = geometry.clip(boxes, *sizes[picture].unbind(dim=1))
        if settings.drop_empty:
            passed &= _not_empty(boxes)
    results = []
    for i in range(len(sizes)):
        mine = ((picture == i) & passed).nonzero()[:, 0]
        kept = _suppress(boxes[mine], scores[mine], labels[mine], settings)
        if settings.clip == "after":
            clipped = geometry.clip(kept[0], *sizes[i].unbind())
            full = _not_empty(clipped) if settings.drop_empty else slice(None)
            kept = clipped[full], kept[1][full], kept[2][full]
        results.append(kept)
    return results


def _clip_inclusive(boxes: Tensor, sizes: Tensor, pixels: Tensor) -> Tensor:
    """(n, 4) into pictures of ``sizes`` (n, 2), in which one pixel of the picture as given is ``pixels`` (n, 2).

    It is a box's first and last pixel that Detectron scales back and clips. The box ends one pixel of the picture after
    the last, which is ``pixels`` here, where an exact box ends one pixel of the input after it.
    """
    pixel, side = pixels.flip(1), sizes.flip(1)  # (n, 2), x before y
    start = torch.minimum(boxes[:, :2].clamp(min=0), side - pixel)
    end = torch.minimum(torch.maximum(boxes[:, 2:] + pixel - 1, pixel), side)
    return torch.cat((start, end), dim=1)


def _not_empty(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _candidates(
    logits: Tensor, deltas: Tensor, anchors: Tensor, threshold: float, settings: PostprocessingSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best (anchor, class) pairs of one level: pictures (n,), scores (n,), labels (n,), decoded boxes (n, 4).

    Nearly all of millions of logits lie below the threshold. Groups of neighbouring anchors whose highest logit does
    are left out first, by one maximum over memory that lies together, then the single logits of the rest. A group
    outside the k with the highest logits holds none of the k best pairs, so the number of groups is limited as well.
    """
    batch, count, classes = logits.shape
    together = next(n for n in range(max(1, TOGETHER // classes), 0, -1) if count % n == 0)
    groups = logits.reshape(batch, count // together, together * classes)
    limit = -math.inf
    if threshold > 0:
        limit = math.log(threshold / (1 - threshold))
        # A little lower, for the rounding of sigmoid and of bfloat16: the scores are compared at the end.
        limit -= 0.01 * (1 + abs(limit))

    best = groups.amax(dim=2)
    picture, group = (best >= limit).nonzero(as_tuple=True)
    chosen = _best(best[picture, group], picture, batch, settings.candidates)
    picture, group = picture[chosen], group[chosen]
    values = groups[picture, group]  # (m, together * K)
    row, pair = (values >= limit).nonzero(as_tuple=True)
    values, picture, group = values[row, pair], picture[row], group[row]
    chosen = _best(values, picture, batch, settings.candidates)
    values, picture, group, pair = values[chosen], picture[chosen], group[chosen], pair[chosen]

    anchor = group * together + pair // classes
    boxes = geometry.decode(deltas[picture, anchor].float(), anchors[anchor], settings.limit_shrinking)
    return picture, torch.sigmoid(values.float()), pair % classes, boxes


def _best(values: Tensor, picture: Tensor, batch: int, limit: int) -> Tensor:
    """Places of the ``limit`` highest values of each picture; ``picture`` (n,) ascends."""
    counts = torch.bincount(picture, minlength=batch).tolist()
    if max(counts) <= limit:
        return torch.arange(len(values), device=values.device)
    start, chosen = 0, []
    for count in counts:
        chosen.append(start + torch.topk(values[start : start + count], min(limit, count), sorted=False).indices)
        start += count
    return torch.cat(chosen)


def _suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, settings: PostprocessingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise non-maximum suppression of one picture; of equal scores either may come first."""
    from torchvision.ops import nms  # here, so that importing retinanet does not import torchvision

    scores, order = scores.sort(descending=True, stable=True)
    boxes, labels = boxes[order], labels[order]
    # Classes are kept apart by moving their boxes far from each other; float64 keeps every bit of a coordinate then.
    wide = torch.float64 if boxes.device.type != "mps" else torch.float32  # Apple's GPUs have no float64
    apart = boxes.to(wide)
    if len(boxes):
        apart = apart + (labels * (apart.max() - apart.min() + 1))[:, None]
    # What remains of the best n boxes does not depend on the others, and suppression takes time as n squared: twice
    # as many as are wanted often suffice.
    first = FIRST * settings.max_detections
    while True:
        keep = nms(apart[:first], scores[:first].to(wide), settings.nms_iou)
        if len(keep) >= settings.max_detections or first >= len(scores):
            break
        first *= 4
    keep = keep[: settings.max_detections]
    return boxes[keep], scores[keep], labels[keep]
