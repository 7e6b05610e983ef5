"""How the loss is distributed over examples (section 5.1, "Analysis of the Focal Loss", and figure 4).

Every pair of an anchor and a class is an example, positive or negative. The losses of each kind are sorted from the
smallest to the largest, summed up and divided by their total. The curve shows how much of the loss the hardest
examples make up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.config.settings import MatchingSettings
from retinanet.data.annotations import resized_boxes
from retinanet.data.loader import eval_batches
from retinanet.losses import pointwise
from retinanet.ops.iou_assigner import IGNORED, match

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detector import Detector

# An image has some ten million examples. So logits are counted in bins of 0.01 from -40 to 40, and not kept.
BINS, LIMIT = 8000, 40.0
POINTS = 1001


@dataclass(frozen=True)
class Curve:
    """Cumulative normalised loss of positives or of negatives."""

    fraction: NDArray[np.float64]
    """(n,) share of the examples, 0 to 1, the easiest first."""
    cumulative: NDArray[np.float64]
    """(n,) the share of the loss that these examples make up."""
    examples: int

    def hardest(self, share: float = 0.01) -> float:
        """The share of the loss, 0 to 1, that the hardest ``share`` of the examples make up."""
        return 1 - float(np.interp(1 - share, self.fraction, self.cumulative))


@dataclass(frozen=True)
class LossCurves:
    """The curves of one loss."""

    positives: Curve
    negatives: Curve


@dataclass(frozen=True)
class LogitCounts:
    """How often each x_t = y x occurred among positives and among negatives: (BINS,) each."""

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    def curves(self, gamma: float) -> LossCurves:
        """The curves of the focal loss with ``gamma``; alpha is the same for all of one kind and cancels."""
        return LossCurves(_curve(self.positives, gamma), _curve(self.negatives, gamma))


def _curve(counts: NDArray[np.int64], gamma: float) -> Curve:
    width = 2 * LIMIT / BINS
    x_t = torch.arange(BINS, dtype=torch.float64) * width - LIMIT + width / 2
    loss = pointwise.focal(x_t, gamma).numpy()[::-1]  # the easiest first: a large x_t has a small loss
    counts = counts[::-1]
    examples = int(counts.sum())
    if not examples:
        return Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0)
    fraction = np.concatenate([[0.0], np.cumsum(counts) / examples])
    total = np.concatenate([[0.0], np.cumsum(counts * loss)])
    # The loss is spread evenly within a bin, so a straight line joins the ends of a bin.
    at = np.unique(np.concatenate([np.linspace(0, 1, POINTS), 1 - np.geomspace(1e-6, 1, POINTS)]))
    return Curve(at, np.interp(at, fraction, total / total[-1]), examples)


@torch.inference_mode()
def count_logits(
    detector: Detector,
    data: DetectionData,
    matching: MatchingSettings,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> LogitCounts:
    """Run the network over the images and count the logits of positives and negatives.

    Args:
        matching: decides which anchors are positives; ignored anchors are not examples.
        indices: images of ``data``; all by default.
    """
    chosen = list(range(len(data))) if indices is None else list(indices)
    counts = np.zeros((2, BINS), dtype=np.int64)
    done, resized = 0, resized_boxes(data.annotations, detector.settings.preprocessing)
    for batch in eval_batches(data, detector.settings.preprocessing, chosen, batch_size, 0):
        outputs = detector.forward(batch)
        logits = torch.cat([level.float().cpu() for level in outputs.logits], dim=1)  # (B, N, K)
        anchors = torch.cat(detector.model.anchors(batch.images.shape[2], batch.images.shape[3]))
        boxes, labels = [], []
        for i in batch.indices:
            boxes.append(torch.from_numpy(resized[data.box_range(i)]))
            labels.append(torch.from_numpy(data.training_labels(i)))
        targets = match(anchors, boxes, labels, matching).labels  # (B, N)
        positive = pointwise.positive_pairs(targets, logits.shape[2])
        negative = ~positive & (targets != IGNORED)[..., None]
        for row, x_t in enumerate((logits[positive], -logits[negative])):
            bins = ((x_t.clamp(-LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))).long().clamp(max=BINS - 1)
            counts[row] += torch.bincount(bins, minlength=BINS).numpy()
        done += len(batch.indices)
        if on_progress is not None:
            on_progress(done, len(chosen))
    return LogitCounts(counts[0], counts[1])


def summary(by_gamma: Mapping[float, LossCurves]) -> list[str]:
    """Figure 4 in words, a line for each gamma."""
    return [
        f"gamma {gamma:g}: the hardest 1 % of {curves.negatives.examples} negatives make up "
        f"{curves.negatives.hardest():.0%} of their loss; the hardest 20 % of {curves.positives.examples} positives "
        f"{curves.positives.hardest(0.2):.0%}"
        for gamma, curves in by_gamma.items()
    ]
