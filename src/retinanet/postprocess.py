"""From logits and deltas to boxes (section 4.1, "Inference")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet import boxes as geometry
from retinanet.config import PostprocessingSettings
from retinanet.model.retinanet import Outputs


def postprocess(
    outputs: Outputs, anchors: Sequence[Tensor], sizes: Tensor, settings: PostprocessingSettings
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and labels of every picture of a batch.

    On each level the (anchor, class) pairs with a score above the threshold, at most ``candidates`` of them, the best
    first, are decoded and clipped to the picture; over all levels together non-maximum suppression is applied class by
    class; the best ``max_detections`` remain. The result is that of the plain algorithm, though sigmoid and decoding
    see only the candidates.

    Args:
        outputs: per level logits (B, N_l, K) and deltas (B, N_l, 4).
        anchors: per level (N_l, 4), input pixels.
        sizes: (B, 2) int64, height and width of each picture within its padding.

    Returns:
        For each picture boxes (n, 4) float32 x1 y1 x2 y2 in input pixels, scores (n,) float32 descending, labels (n,)
        int64.
    """
    parts = [
        _candidates(logits, deltas, level, settings)
        for logits, deltas, level in zip(outputs.logits, outputs.deltas, anchors, strict=True)
    ]
    scores, labels, boxes = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    sides = sizes.to(boxes.device)[:, :, None].to(boxes.dtype)  # (B, 2, 1)
    boxes = geometry.clip(boxes, sides[:, 0], sides[:, 1])
    return [
        _suppress(b[s > settings.threshold], s[s > settings.threshold], n[s > settings.threshold], settings)
        for b, s, n in zip(boxes, scores, labels, strict=True)
    ]


def _candidates(
    logits: Tensor, deltas: Tensor, anchors: Tensor, settings: PostprocessingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """The best (anchor, class) pairs of one level: scores (B, k), labels (B, k), decoded boxes (B, k, 4).

    An anchor outside the k with the highest best class has no pair among the k best, since k pairs are at least as
    good: so a maximum over the classes and two small selections give the exact top k of N * K scores.
    """
    batch, count, classes = logits.shape
    k = min(settings.candidates, count)
    rows = torch.topk(logits.amax(dim=2), k, dim=1, sorted=False).indices  # (B, k)
    best = logits.gather(1, rows[:, :, None].expand(-1, -1, classes)).reshape(batch, -1)  # (B, k * K)
    top, pairs = torch.topk(best, min(settings.candidates, best.shape[1]), dim=1)
    rows = rows.gather(1, pairs // classes)
    chosen = deltas.gather(1, rows[:, :, None].expand(-1, -1, 4)).float()
    return torch.sigmoid(top.float()), pairs % classes, geometry.decode(chosen, anchors[rows])


def _suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, settings: PostprocessingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise non-maximum suppression of one picture; of equal scores either may come first."""
    from torchvision.ops import batched_nms  # here, so that importing retinanet does not import torchvision

    # Classes may be kept apart by moving their boxes far from each other; float64 keeps every bit of a coordinate then.
    wide = torch.float64 if boxes.device.type != "mps" else torch.float32  # Apple's GPUs have no float64
    keep = batched_nms(boxes.to(wide), scores.to(wide), labels, settings.nms_iou)[: settings.max_detections]
    return boxes[keep], scores[keep], labels[keep]
