"""From logits and deltas to boxes (section 4.1, "Inference")."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from retinanet.common.threads import alone, map_slices
from retinanet.config.settings import PostprocessingSettings
from retinanet.model.retinanet import Outputs
from retinanet.ops import boxes as geometry

TOGETHER = 320  # logits, of neighbouring anchors, that are looked at as one before any of them is looked at alone
SLICE = 1 << 20  # logits in which a thread looks for groups before it takes the next
ENOUGH = 1 << 22  # logits for each thread: to wake one for fewer takes as long as it saves
FIRST = 2  # times the wanted number of detections: how many of the best boxes suppression looks at first


def postprocess(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    sizes: Tensor,
    settings: PostprocessingSettings,
    scales: Tensor | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and labels of every image of a batch.

    On each level the (anchor, class) pairs with a score above the threshold, at most ``candidates`` of them, the best
    first, are decoded and clipped to the image; over all levels together non-maximum suppression is applied class by
    class; the best ``max_detections`` remain. The result is that of the plain algorithm, though sigmoid and decoding
    see only the candidates.

    Args:
        outputs: per level logits (B, N_l, K) and deltas (B, N_l, 4).
        anchors: per level (N_l, 4), input pixels.
        sizes: (B, 2), height and width of each image within its padding.
        scales: (B, 2), how many input pixels, down and across, are one pixel of the image as it was given; only
            ``inclusive`` boxes need to know, 1 by default.

    Returns:
        For each image boxes (n, 4) float32 x1 y1 x2 y2 in input pixels, scores (n,) float32 descending, labels (n,)
        int64.
    """
    thresholds = [settings.threshold] * len(anchors)
    if settings.coarsest_threshold is not None:
        thresholds[-1] = settings.coarsest_threshold
    with alone(outputs.logits[0].device) as threads:
        groups, classes = [_grouped(level) for level in outputs.logits], outputs.logits[0].shape[2]
        best = _best_in_groups(groups, threads)
        sizes = sizes.to(best[0].device, torch.float32)
        pixels = torch.ones_like(sizes) if scales is None else scales.to(sizes)

        def finish(images: slice) -> list[tuple[Tensor, Tensor, Tensor]]:
            grouped, highest, deltas = (
                [level[images] for level in levels] for levels in (groups, best, outputs.deltas)
            )
            candidates = _candidates(grouped, highest, deltas, classes, anchors, thresholds, settings)
            return _detections(candidates, sizes[images], pixels[images], settings)

        length = max(1, math.ceil(len(sizes) / threads))
        images = [slice(start, start + length) for start in range(0, len(sizes), length)]
        return [result for results in map_slices(finish, images, threads) for result in results]


def _detections(
    candidates: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    sizes: Tensor,
    pixels: Tensor,
    settings: PostprocessingSettings,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Clips and suppresses what :func:`_candidates` returns; sizes and pixels are (B, 2)."""
    image, scores, labels, boxes, passed = candidates
    if settings.clip == "before":
        if settings.inclusive:
            boxes = _clip_inclusive(boxes, sizes[image], pixels[image])
        else:
            boxes = geometry.clip(boxes, *sizes[image].unbind(dim=1))
        if settings.drop_empty:
            passed &= _not_empty(boxes)
    results = []
    for i, size in enumerate(sizes):
        index = ((image == i) & passed).nonzero()[:, 0]
        kept = _suppress(boxes[index], scores[index], labels[index], settings)
        if settings.clip == "after":
            clipped = geometry.clip(kept[0], *size.unbind())
            full = _not_empty(clipped) if settings.drop_empty else slice(None)
            kept = clipped[full], kept[1][full], kept[2][full]
        results.append(kept)
    return results


def _clip_inclusive(boxes: Tensor, sizes: Tensor, pixels: Tensor) -> Tensor:
    """(n, 4) into images of ``sizes`` (n, 2), in which one pixel of the image as given is ``pixels`` (n, 2).

    It is a box's first and last pixel that Detectron scales back and clips. The box ends one pixel of the image after
    the last, which is ``pixels`` here, where an exact box ends one pixel of the input after it.
    """
    pixel, side = pixels.flip(1), sizes.flip(1)  # (n, 2), x before y
    start = torch.minimum(boxes[:, :2].clamp(min=0), side - pixel)
    end = torch.minimum(torch.maximum(boxes[:, 2:] + pixel - 1, pixel), side)
    return torch.cat((start, end), dim=1)


def _not_empty(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _best_in_groups(groups: Sequence[Tensor], threads: int) -> list[Tensor]:
    """The highest logit of each group of neighbouring anchors: per level (B, N_l / n, n * K) -> (B, N_l / n)."""
    # Nearly all the time goes into this maximum, which threads share; whether it is cut into slices changes no bit.
    threads = min(threads, sum(level.numel() for level in groups) // ENOUGH)
    slices = [
        some
        for level in groups
        for some in level.flatten(0, 1).split(max(1, SLICE // level.shape[2]) if threads > 1 else level.numel() + 1)
    ]
    best = torch.cat(map_slices(lambda values: values.amax(dim=1), slices, threads))
    levels = best.split([level.shape[0] * level.shape[1] for level in groups])
    return [values.view(level.shape[:2]) for values, level in zip(levels, groups)]


def _candidates(
    groups: Sequence[Tensor],
    best: Sequence[Tensor],
    deltas: Sequence[Tensor],
    classes: int,
    anchors: Sequence[Tensor],
    thresholds: Sequence[float],
    settings: PostprocessingSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The best (anchor, class) pairs of each level: images (n,), scores (n,), labels (n,), decoded boxes (n, 4), and
    whether a score is above its threshold (n,).

    Nearly all of millions of logits lie below the threshold. Groups of neighbouring anchors whose highest logit does
    are left out first, by one maximum over memory that lies together, then the single logits of the rest. A group
    outside the k with the highest logits holds none of the k best pairs, so the number of groups is limited as well.
    Behind the maximum all levels are handled at once: with what is left, to begin costs more than to do.

    Args:
        groups: per level (B, N_l / n, n * K), what :func:`_grouped` returns.
        best: per level (B, N_l / n), what :func:`_best_in_groups` returns.
        deltas: per level (B, N_l, 4).
        classes: K.
    """
    batch, device = len(groups[0]), groups[0].device
    together = [level.shape[2] // classes for level in groups]
    groups = [level.flatten(0, 1) for level in groups]  # (B * N_l / n, n * K)
    limits = [_logit(threshold) for threshold in thresholds]
    highest = torch.cat([values.flatten() for values in best])
    (place,) = torch.cat([values.flatten() >= limit for values, limit in zip(best, limits)]).nonzero(as_tuple=True)

    # A part is one level of one image; parts come level by level. Each may have so many candidates.
    sizes = [len(logits) // batch for logits in groups for _ in range(batch)]
    ends = torch.tensor(list(itertools.accumulate(sizes)), device=device)
    part = torch.bucketize(place, ends, right=True)
    chosen, counts = _best(highest[place], part, batch, len(groups), settings.candidates)
    place, part = place[chosen], part[chosen]

    # The anchors of these groups, then their logits; NaN, where other levels' groups are larger, is above no limit.
    first = [0, *itertools.accumulate(len(logits) for logits in groups)]
    width = max(together)
    values = torch.cat(
        [
            functional.pad(logits.index_select(0, rows - start), (0, (width - n) * classes), value=math.nan)
            for logits, n, rows, start in zip(groups, together, place.split(counts), first)
        ]
    ).reshape(-1, classes)
    limit = torch.tensor(limits, device=device)[part // batch].repeat_interleave(width)
    (near,) = (values.amax(dim=1) >= limit).nonzero(as_tuple=True)
    values = values.index_select(0, near)
    row, label = (values >= limit[near, None]).nonzero(as_tuple=True)
    values, near = values[row, label], near[row]
    part, place, within = part[near // width], place[near // width], near % width
    chosen, counts = _best(values, part, batch, len(groups), settings.candidates)
    values, part, place, within, label = (tensor[chosen] for tensor in (values, part, place, within, label))

    level, image = part // batch, part % batch
    group = place - (ends - torch.tensor(sizes, device=device))[part]
    anchor = group * torch.tensor(together, device=device)[level] + within
    own = list(zip(image.split(counts), anchor.split(counts)))
    chosen_deltas = torch.cat([level[i, j] for level, (i, j) in zip(deltas, own)])
    at = torch.cat([boxes[j] for boxes, (_, j) in zip(anchors, own)])
    boxes = geometry.decode(chosen_deltas.float(), at, settings.limit_shrinking)
    scores = torch.sigmoid(values.float())
    return image, scores, label, boxes, scores > torch.tensor(thresholds, device=device)[level]


def _grouped(logits: Tensor) -> Tensor:
    """(B, N, K) -> (B, N / n, n * K): the logits of each group of n neighbouring anchors."""
    size = _together(*logits.shape[1:])
    return logits.reshape(len(logits), logits.shape[1] // size, size * logits.shape[2])


def _together(count: int, classes: int) -> int:
    """How many neighbouring anchors make a group: a divisor of their number, of about ``TOGETHER`` logits."""
    return next(n for n in range(max(1, TOGETHER // classes), 0, -1) if count % n == 0)


def _logit(threshold: float) -> float:
    """The logit of a score, a little lower, for the rounding of sigmoid and of bfloat16: scores are compared later."""
    if threshold <= 0:
        return -math.inf
    limit = math.log(threshold / (1 - threshold))
    return limit - 0.01 * (1 + abs(limit))


def _best(values: Tensor, part: Tensor, batch: int, levels: int, limit: int) -> tuple[Tensor | slice, list[int]]:
    """Places of the ``limit`` highest values of each part, and how many they are on each level; ``part`` ascends."""
    counts = torch.bincount(part, minlength=batch * levels).tolist()
    kept = [min(limit, count) for count in counts]
    on_level = [sum(kept[i : i + batch]) for i in range(0, len(kept), batch)]
    if max(counts) <= limit:
        return slice(None), on_level
    start, chosen = 0, []
    for count, k in zip(counts, kept):
        chosen.append(start + torch.topk(values[start : start + count], k, sorted=False).indices)
        start += count
    return torch.cat(chosen), on_level


def _suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, settings: PostprocessingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise non-maximum suppression of one image; of equal scores either may come first."""
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
