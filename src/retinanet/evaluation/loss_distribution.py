"""Which examples carry the loss (section 5.1, "Analysis of the Focal Loss", and figure 4).

Every anchor and class of a data set's images is an example, a positive or a negative one. Sorted from the smallest
loss to the largest and divided by their sum, the losses of each kind show how many examples the loss is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.config.settings import MatchingSettings
from retinanet.losses import pointwise
from retinanet.ops.iou_assigner import IGNORED, match

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detector import Detector

# Logits are counted, not kept: some ten million examples an image, in bins of a hundredth from -40 to 40.
BINS, LIMIT = 8000, 40.0
POINTS = 1001


@dataclass(frozen=True)
class Curve:
    """Cumulative normalised loss of positives or of negatives."""

    fraction: NDArray[np.float64]
    """(n,) of the examples, 0 to 1, the easiest first."""
    cumulative: NDArray[np.float64]
    """(n,) their share of the whole loss."""
    examples: int

    def hardest(self, share: float = 0.01) -> float:
        """How much of the loss the hardest ``share`` of the examples carry, 0 to 1."""
        return 1 - float(np.interp(1 - share, self.fraction, self.cumulative))


@dataclass(frozen=True)
class Difficulty:
    """Of one loss."""

    positives: Curve
    negatives: Curve


@dataclass(frozen=True)
class Margins:
    """How often each x_t = y x occurred among positives and among negatives: (BINS,) each."""

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    def under(self, gamma: float) -> Difficulty:
        """The curves of the focal loss with ``gamma``; alpha is the same for all of one kind and drops out."""
        return Difficulty(_curve(self.positives, gamma), _curve(self.negatives, gamma))


def _curve(counts: NDArray[np.int64], gamma: float) -> Curve:
    width = 2 * LIMIT / BINS
    x_t = torch.arange(BINS, dtype=torch.float64) * width - LIMIT + width / 2
    loss = pointwise.focal(x_t, gamma).numpy()[::-1]  # a large x_t is easy
    counts = counts[::-1]
    examples = int(counts.sum())
    if not examples:
        return Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0)
    fraction = np.concatenate([[0.0], np.cumsum(counts) / examples])
    total = np.concatenate([[0.0], np.cumsum(counts * loss)])
    # Within a bin the loss is spread evenly, so a straight line between its ends is right.
    at = np.unique(np.concatenate([np.linspace(0, 1, POINTS), 1 - np.geomspace(1e-6, 1, POINTS)]))
    return Curve(at, np.interp(at, fraction, total / total[-1]), examples)


@torch.inference_mode()
def margins(
    detector: Detector,
    data: DetectionData,
    matching: MatchingSettings,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> Margins:
    """Run the network over the images and count.

    Args:
        matching: which anchors are positives; ignored ones are no examples.
        indices: images of ``data``; all by default.
    """
    from retinanet.data.loader import eval_batches

    chosen = list(range(len(data))) if indices is None else list(indices)
    counts = np.zeros((2, BINS), dtype=np.int64)
    done = 0
    for batch in eval_batches(data, detector.settings.preprocessing, chosen, batch_size, 0):
        outputs = detector.forward(batch)
        logits = torch.cat([level.float().cpu() for level in outputs.logits], dim=1)  # (B, N, K)
        anchors = torch.cat(detector.model.anchors(batch.images.shape[2], batch.images.shape[3]))
        boxes, labels = [], []
        for i, (size, original) in zip(batch.indices, zip(batch.sizes.tolist(), batch.originals.tolist())):
            scale = torch.tensor([size[1] / original[1], size[0] / original[0]] * 2)
            boxes.append(torch.as_tensor(data.boxes(i)) * scale)
            labels.append(torch.as_tensor(np.where(data.crowd(i), IGNORED, data.labels(i))))
        targets = match(anchors, boxes, labels, matching).labels  # (B, N)
        own = pointwise.positive_pairs(targets, logits.shape[2])
        others = ~own & (targets != IGNORED)[..., None]
        for row, x_t in enumerate((logits[own], -logits[others])):
            places = ((x_t.clamp(-LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))).long().clamp(max=BINS - 1)
            counts[row] += torch.bincount(places, minlength=BINS).numpy()
        done += len(batch.indices)
        if on_progress is not None:
            on_progress(done, len(chosen))
    return Margins(counts[0], counts[1])


def reading(found: dict[float, Difficulty]) -> list[str]:
    """Figure 4 in words."""
    said = []
    for gamma, difficulty in found.items():
        positives, negatives = difficulty.positives, difficulty.negatives
        said.append(
            f"gamma {gamma:g}: the hardest 1 % of {negatives.examples} negatives carry {negatives.hardest():.0%} of "
            f"their loss; the hardest 20 % of {positives.examples} positives {positives.hardest(0.2):.0%}"
        )
    return said
