"""From logits and deltas to boxes (section 4.1, "Inference").

:func:`postprocess_reference` is the algorithm for one image. :func:`postprocess` gives the same for a batch, by the
faster way of :mod:`retinanet.inference.postprocessing_fast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.config.model_settings import PostprocessingSettings
from retinanet.inference.postprocessing_fast import Found, postprocess_batch
from retinanet.ops import boxes as geometry
from retinanet.ops.network_outputs import Outputs


def postprocess_reference(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    size: Tensor,
    settings: PostprocessingSettings,
    scale: Tensor,
) -> Found:
    """Boxes, scores and labels of one image, as :func:`postprocess` describes them.

    Args:
        outputs: per level logits (N_l, K) and deltas (N_l, 4).
        size, scale: (2,), the image's row of ``sizes`` and ``scales``.
    """
    from torchvision.ops import batched_nms

    levels = []
    for level, (logits, deltas, level_anchors) in enumerate(zip(*outputs, anchors, strict=True)):
        threshold = settings.threshold
        if level == len(anchors) - 1 and settings.coarsest_threshold is not None:
            threshold = settings.coarsest_threshold
        pair_scores = torch.sigmoid(logits.float()).flatten()  # of each (anchor, class)
        pairs = pair_scores.argsort(descending=True, stable=True)[: settings.candidates]
        pairs = pairs[pair_scores[pairs] > threshold]
        index, label = pairs // logits.shape[1], pairs % logits.shape[1]
        boxes = geometry.decode(deltas[index].float(), level_anchors[index], settings.limit_shrinking)
        levels.append((boxes, pair_scores[pairs], label))
    boxes, scores, labels = (torch.cat(tensors) for tensors in zip(*levels))

    clipped = geometry.clip_inclusive(boxes, size, scale) if settings.inclusive else geometry.clip(boxes, *size)
    has_area = geometry.not_empty(clipped) if settings.drop_empty else torch.ones_like(labels, dtype=torch.bool)
    if settings.clip == "before":
        boxes, scores, labels, clipped = (tensor[has_area] for tensor in (clipped, scores, labels, clipped))
        has_area = has_area[has_area]
    groups = labels if settings.nms == "class" else torch.zeros_like(labels)  # boxes of a group suppress each other
    # In float64: groups are kept apart by an offset to their boxes, which would cost coordinates some digits.
    kept = batched_nms(boxes.double(), scores.double(), groups, settings.nms_iou)[: settings.max_detections]
    kept = kept[has_area[kept]]
    return clipped[kept], scores[kept], labels[kept]


def postprocess(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    sizes: Tensor,
    settings: PostprocessingSettings,
    scales: Tensor | None = None,
) -> list[Found]:
    """Boxes, scores and labels of every image of a batch.

    On each level the (anchor, class) pairs with a score above the threshold, at most ``candidates`` of them, the best
    first, are decoded and clipped to the image; over all levels together non-maximum suppression is applied, class by
    class, or with ``nms`` "agnostic" to all classes at once; the best ``max_detections`` remain. Of equal scores either
    may come first.

    Args:
        outputs: per level logits (B, N_l, K) and deltas (B, N_l, 4).
        anchors: per level (N_l, 4), input pixels.
        sizes: (B, 2), height and width of each image within its padding.
        scales: (B, 2), how many input pixels, down and across, are one pixel of the image as it was given; used
            only if ``settings.inclusive`` is true; 1 by default.

    Returns:
        For each image boxes (n, 4) float32 x1 y1 x2 y2 in input pixels, scores (n,) float32 descending, labels (n,)
        int64.
    """
    return postprocess_batch(outputs, anchors, sizes, settings, scales)


def with_options(settings: PostprocessingSettings, options: PredictOptions) -> PostprocessingSettings:
    """The settings with those that a call replaces."""
    if options.threshold is not None:
        settings = replace(settings, threshold=options.threshold, coarsest_threshold=None)
    if options.max_detections is not None:
        settings = replace(settings, max_detections=options.max_detections)
    return settings if options.nms is None else replace(settings, nms=options.nms)
