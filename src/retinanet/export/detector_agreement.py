"""Whether two detectors say the same of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.config.settings import PostprocessingSettings
from retinanet.inference.detections import Detections
from retinanet.ops import boxes as geometry

PIXELS = 0.5
"""How far a box may be off, in pixels of the image."""
SCORE = 1e-3
NEAR_IOU = 1e-2
"""So near to the limit of suppression, either of two detectors may be right."""
FEW = 2
SHARE = 0.02
"""So many of all detections may differ for being right at a limit, or FEW where that is more."""


@dataclass
class Agreement:
    """Over all images compared."""

    detections: int = 0
    """Of the model's own."""
    pixels: float = 0.0
    """The largest difference of a corner, of detections that both have."""
    score: float = 0.0
    limits: int = 0
    """Detections that one has and the other has not, their score or overlap being right at a limit."""
    others: int = 0
    """The same, without such a reason."""

    @property
    def good(self) -> bool:
        return self.others == 0 and self.limits <= max(FEW, SHARE * self.detections)

    def add(self, found: Detections, expected: Detections, settings: PostprocessingSettings) -> None:
        """Compare what was ``found`` with the model's own; paired are the nearest of one label and nearly one score."""
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
        for mine, rest, theirs in ((found, alone[0], expected), (expected, alone[1], found)):
            reasons = _at_limit(mine, theirs, settings)
            self.limits += int((rest & reasons).sum())
            self.others += int((rest & ~reasons).sum())


def _at_limit(mine: Detections, theirs: Detections, settings: PostprocessingSettings) -> Tensor:
    """Of each detection, whether a difference in the last digits may be why the other has none like it."""
    thresholds = [settings.threshold, settings.coarsest_threshold or 0.0]
    near = torch.zeros(len(mine), dtype=torch.bool)
    for limit in thresholds:
        near |= (mine.scores - limit).abs() <= SCORE
    for found in (mine, theirs):
        if len(found) >= settings.max_detections:  # there were more, and it is a matter of the score which were left
            near |= mine.scores <= found.scores[-1] + SCORE
    if settings.drop_empty:
        near |= (mine.boxes[:, 2:] - mine.boxes[:, :2]).amin(dim=1) <= PIXELS
    if len(theirs):
        overlap = geometry.iou(mine.boxes, theirs.boxes)
        same = mine.labels[:, None] == theirs.labels[None]
        # It overlaps one by just so much; or one of nearly its score suppressed it there, as it did that one here.
        level = (overlap - settings.nms_iou).abs() <= NEAR_IOU
        level |= (overlap > settings.nms_iou) & ((mine.scores[:, None] - theirs.scores[None]).abs() <= SCORE)
        near |= (level & same).any(dim=1)
    return near
