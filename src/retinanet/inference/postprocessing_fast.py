"""Post-processing that skips nearly all logits by one cheap test.

Of millions of logits nearly all lie below the threshold. So:

1. The logits of neighbouring anchors, which lie together in memory, form groups. Of all logits, only the maximum of
   each group is computed.
2. Groups whose maximum is below the threshold hold no candidate. A group that is not among the k with the highest
   maxima holds none of the k best pairs either. Both are left out.
3. Of the groups that remain, single logits are compared; the k best per level and image are the candidates.
4. Only candidates are decoded and get a score by the sigmoid.

After step 1 the tensors are small, and starting an operation takes longer than running it. Therefore all levels and
images of a batch are handled by the same operations. Within them a *source* is one level of one image; sources are
numbered level by level: ``level * batch + image``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.common.devices import has_float64
from retinanet.common.threads import map_slices, one_thread_each
from retinanet.config.model_settings import PostprocessingSettings
from retinanet.ops import boxes as geometry
from retinanet.ops.network_outputs import Outputs

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (n, 4), scores (n,), labels (n,)."""

GROUP_LOGITS = 320  # about so many logits of neighbouring anchors make a group
SLICE = 1 << 20  # logits of which a thread computes the groups' maxima before it takes the next slice
LOGITS_PER_THREAD = 1 << 22  # with fewer, waking a thread takes as long as it saves
FIRST = 2  # NMS takes the FIRST * max_detections highest-scoring boxes first, and more only if it needs them


def postprocess_batch(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    sizes: Tensor,
    settings: PostprocessingSettings,
    scales: Tensor | None = None,
) -> list[Found]:
    """As :func:`retinanet.inference.postprocessing.postprocess`."""
    thresholds = [settings.threshold] * len(anchors)
    if settings.coarsest_threshold is not None:
        thresholds[-1] = settings.coarsest_threshold
    with one_thread_each(outputs.logits[0].device) as threads:
        levels = _maxima([_Level.of(logits) for logits in outputs.logits], threads)
        sizes = sizes.float().to(levels[0].highest.device)
        pixels = torch.ones_like(sizes) if scales is None else scales.float().to(sizes.device)

        def finish(images: slice) -> list[Found]:
            own = [level.of_images(images) for level in levels]
            candidates = _candidates(own, [d[images] for d in outputs.deltas], anchors, thresholds, settings)
            own_sizes, own_pixels = sizes[images], pixels[images]
            if not has_float64(own_sizes.device):  # which suppression needs
                candidates = _Candidates(*(tensor.cpu() for tensor in candidates))
                own_sizes, own_pixels = own_sizes.cpu(), own_pixels.cpu()
            return _detections(candidates, own_sizes, own_pixels, settings)

        length = max(1, math.ceil(len(sizes) / threads))
        images = [slice(start, start + length) for start in range(0, len(sizes), length)]
        return [result for results in map_slices(finish, images, threads) for result in results]


@dataclass(frozen=True)
class _Level:
    """The logits of one level in groups of n neighbouring anchors."""

    logits: Tensor
    """(B, groups, n * K)"""
    size: int
    """n"""
    highest: Tensor
    """(B, groups), the highest logit of each group; empty until :func:`_maxima` has computed it."""

    @classmethod
    def of(cls, logits: Tensor) -> _Level:
        """Group (B, N, K); n divides N."""
        batch, count, classes = logits.shape
        size = next(n for n in range(max(1, GROUP_LOGITS // classes), 0, -1) if count % n == 0)
        return cls(logits.reshape(batch, count // size, size * classes), size, logits.new_empty(0))

    def of_images(self, images: slice) -> _Level:
        return _Level(self.logits[images], self.size, self.highest[images])


def _maxima(levels: Sequence[_Level], threads: int) -> list[_Level]:
    """The levels with the highest logit of each group."""
    # Nearly all the time goes into this maximum, which threads share. Slices change no bit of the result.
    threads = min(threads, sum(level.logits.numel() for level in levels) // LOGITS_PER_THREAD)
    slices = []
    for level in levels:
        rows = max(1, SLICE // level.logits.shape[2]) if threads > 1 else level.logits.numel() + 1
        slices += level.logits.flatten(0, 1).split(rows)
    highest = torch.cat(map_slices(lambda values: values.amax(dim=1), slices, threads))
    chunks = highest.split([level.logits.shape[0] * level.logits.shape[1] for level in levels])
    return [
        _Level(level.logits, level.size, values.view(level.logits.shape[:2])) for level, values in zip(levels, chunks)
    ]


class _Candidates(NamedTuple):
    """The best (anchor, class) pairs of each level of each image."""

    image: Tensor
    """(n,) int64"""
    scores: Tensor
    """(n,) float32"""
    labels: Tensor
    """(n,) int64"""
    boxes: Tensor
    """(n, 4) float32, decoded, not clipped."""
    passed: Tensor
    """(n,) bool, whether the score is above the threshold of its level."""


def _candidates(
    levels: Sequence[_Level],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    thresholds: Sequence[float],
    settings: PostprocessingSettings,
) -> _Candidates:
    """Steps 2 to 4; ``deltas`` are per level (B, N_l, 4)."""
    batch, device = len(deltas[0]), deltas[0].device
    limits = [_limit(threshold) for threshold in thresholds]
    limit_of = torch.tensor(limits, device=device)

    # Step 2. Groups have one number over all sources, in the order of the sources.
    highest = torch.cat([level.highest.flatten() for level in levels])
    is_near = torch.cat([level.highest.flatten() >= limit for level, limit in zip(levels, limits)])
    (group,) = is_near.nonzero(as_tuple=True)
    groups_in = [level.highest.shape[1] for level in levels for _ in range(batch)]  # of each source
    first_after = torch.tensor(list(itertools.accumulate(groups_in)), device=device)
    source = torch.bucketize(group, first_after, right=True)
    best, per_level = _best(highest[group], source, batch, len(levels), settings.candidates)
    group, source = group[best], source[best]

    # Step 3. One row per anchor of these groups, so many rows per group as the largest groups have anchors.
    width = max(level.size for level in levels)
    logits = _anchor_logits(levels, group.split(per_level), width)  # (groups * width, K)
    limit = limit_of[source // batch].repeat_interleave(width)
    (row,) = (logits.amax(dim=1) >= limit).nonzero(as_tuple=True)  # few rows are left for the comparison of every logit
    logits = logits.index_select(0, row)
    index, label = (logits >= limit[row, None]).nonzero(as_tuple=True)
    logit, row = logits[index, label], row[index]
    best, per_level = _best(logit, source[row // width], batch, len(levels), settings.candidates)
    logit, row, label = logit[best], row[best], label[best]

    # Step 4. Back from rows to anchors.
    group, source, within = group[row // width], source[row // width], row % width
    level, image = source // batch, source % batch
    group_in_source = group - (first_after - torch.tensor(groups_in, device=device))[source]
    anchor = group_in_source * torch.tensor([level.size for level in levels], device=device)[level] + within
    per_level_indices = list(zip(image.split(per_level), anchor.split(per_level)))
    chosen_deltas = torch.cat([level_deltas[i, j] for level_deltas, (i, j) in zip(deltas, per_level_indices)])
    chosen_anchors = torch.cat([boxes[j] for boxes, (_, j) in zip(anchors, per_level_indices)])
    scores = torch.sigmoid(logit.float())
    return _Candidates(
        image,
        scores,
        label,
        geometry.decode(chosen_deltas.float(), chosen_anchors, settings.limit_shrinking),
        scores > torch.tensor(thresholds, device=device)[level],
    )


def _limit(threshold: float) -> float:
    """A logit slightly below that of the threshold, because sigmoid and bfloat16 round; scores are compared later."""
    if threshold <= 0:
        return -math.inf
    limit = math.log(threshold / (1 - threshold))
    return limit - 0.01 * (1 + abs(limit))


def _anchor_logits(levels: Sequence[_Level], groups: Sequence[Tensor], width: int) -> Tensor:
    """(groups * width, K), the logits of each anchor of the ``groups``, given per level by their numbers.

    Groups of fewer anchors than ``width`` are filled with NaN, which is above no limit.
    """
    results, first = [], 0
    for level, numbers in zip(levels, groups):
        logits = level.logits.flatten(0, 1)
        classes = logits.shape[1] // level.size
        chosen = logits.index_select(0, numbers - first)
        results.append(F.pad(chosen, (0, (width - level.size) * classes), value=math.nan))
        first += len(logits)
    return torch.cat(results).reshape(-1, classes)


def _best(values: Tensor, source: Tensor, batch: int, levels: int, limit: int) -> tuple[Tensor | slice, list[int]]:
    """Indices of the ``limit`` highest values of each source, and how many they are on each level.

    Args:
        source: (n,) ascending.
    """
    counts = torch.bincount(source, minlength=batch * levels).tolist()
    kept = [min(limit, count) for count in counts]
    per_level = [sum(kept[i : i + batch]) for i in range(0, len(kept), batch)]
    if max(counts) <= limit:
        return slice(None), per_level
    start, chosen = 0, []
    for count, k in zip(counts, kept):
        chosen.append(start + torch.topk(values[start : start + count], k, sorted=False).indices)
        start += count
    return torch.cat(chosen), per_level


def _detections(
    candidates: _Candidates, sizes: Tensor, pixels: Tensor, settings: PostprocessingSettings
) -> list[Found]:
    """Clip and suppress; ``sizes`` and ``pixels`` are (B, 2)."""
    image, scores, labels, boxes, passed = candidates
    if settings.clip == "before":
        if settings.inclusive:
            boxes = geometry.clip_inclusive(boxes, sizes[image], pixels[image])
        else:
            boxes = geometry.clip(boxes, *sizes[image].unbind(dim=1))
        if settings.drop_empty:
            passed &= geometry.not_empty(boxes)
    results = []
    for i, size in enumerate(sizes):
        index = ((image == i) & passed).nonzero()[:, 0]
        kept = _suppress(boxes[index], scores[index], labels[index], settings)
        if settings.clip == "after":
            clipped = geometry.clip(kept[0], *size.unbind())
            full = geometry.not_empty(clipped) if settings.drop_empty else slice(None)
            kept = clipped[full], kept[1][full], kept[2][full]
        results.append(kept)
    return results


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor, settings: PostprocessingSettings) -> Found:
    """Non-maximum suppression of one image."""
    from torchvision.ops import nms  # here, so that importing retinanet does not import torchvision

    scores, order = scores.sort(descending=True, stable=True)
    boxes, labels = boxes[order], labels[order]
    # Classes are kept apart by moving their boxes far from each other; float64 keeps every bit of a coordinate then.
    apart = boxes.double()
    if len(boxes) and settings.nms == "class":
        apart = apart + (labels * (apart.max() - apart.min() + 1))[:, None]
    # What remains of the best n boxes does not depend on the others, and suppression takes time as n squared: twice
    # as many as are wanted often suffice.
    first = FIRST * settings.max_detections
    while True:
        keep = nms(apart[:first], scores[:first].double(), settings.nms_iou)
        if len(keep) >= settings.max_detections or first >= len(scores):
            break
        first *= 4
    keep = keep[: settings.max_detections]
    return boxes[keep], scores[keep], labels[keep]
