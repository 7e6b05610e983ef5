"""How far the detections of two detectors agree on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.config.model_settings import PostprocessingSettings
from retinanet.inference.detections import Detections
from retinanet.ops import boxes as geometry

PIXELS = 0.5
"""The largest difference of a corner, in pixels of the image."""
SCORE = 1e-3
NEAR_IOU = 1e-2
"""With an overlap so near to the limit of suppression, either of two detectors may be right."""
FEW = 2
SHARE = 0.02
"""The share of all detections that may differ because they are at a limit, or FEW where that is more."""


@dataclass
class Agreement:
    """Over all images compared."""

    detections: int = 0
    """Of the model."""
    pixels: float = 0.0
    """The largest difference of a corner, of detections that both have."""
    score: float = 0.0
    limits: int = 0
    """Detections that only one of them has, whose score or overlap is at a limit."""
    others: int = 0
    """Detections that only one of them has, without such a reason."""

    @property
    def good(self) -> bool:
        return self.others == 0 and self.limits <= max(FEW, SHARE * self.detections)

    def add(self, found: Detections, expected: Detections, settings: PostprocessingSettings) -> None:
        """Compare with the model's detections; the nearest of one label and of nearly the same score are pairs."""
        self.detections += len(expected)
        apart = (found.boxes[:, None] - expected.boxes[None]).abs().amax(dim=2)
        scores = (found.scores[:, None] - expected.scores[None]).abs()
        same = found.labels[:, None] == expected.labels[None]
        apart = apart.masked_fill(~same | (scores > SCORE) | (apart > PIXELS), torch.inf)
        alone = [torch.ones(len(found), dtype=torch.bool), torch.ones(len(expected), dtype=torch.bool)]
        while apart.numel() and apart.min() < torch.inf:
            i, j = divmod(int(apart.argmin()), apart.shape[1])
            self.pixels, self.score = max(self.pixels, float(apart[i, j])), max(self.score, float(scores[i, j]))
            apart[i], apart[:, j] = torch.inf, torch.inf
            alone[0][i] = alone[1][j] = False
        for unpaired, side, other in ((alone[0], found, expected), (alone[1], expected, found)):
            reasons = _at_limit(side, other, settings)
            self.limits += int((unpaired & reasons).sum())
            self.others += int((unpaired & ~reasons).sum())


def _at_limit(side: Detections, other: Detections, settings: PostprocessingSettings) -> Tensor:
    """Whether rounding may be the reason why ``other`` lacks each detection of ``side``: (n,) bool."""
    thresholds = [settings.threshold, settings.coarsest_threshold or 0.0]
    near = torch.zeros(len(side), dtype=torch.bool)
    for limit in thresholds:
        near |= (side.scores - limit).abs() <= SCORE
    for found in (side, other):
        if len(found) >= settings.max_detections:  # There were more, and the lowest scores were dropped.
            near |= side.scores <= found.scores[-1] + SCORE
    if settings.drop_empty:
        near |= (side.boxes[:, 2:] - side.boxes[:, :2]).amin(dim=1) <= PIXELS
    if len(other):
        overlap = geometry.iou(side.boxes, other.boxes)
        same = (side.labels[:, None] == other.labels[None]) | (settings.nms == "agnostic")
        # Its overlap with a box is at the limit, or a box of nearly its score suppressed it there and not here.
        level = (overlap - settings.nms_iou).abs() <= NEAR_IOU
        level |= (overlap > settings.nms_iou) & ((side.scores[:, None] - other.scores[None]).abs() <= SCORE)
        near |= (level & same).any(dim=1)
    return near
