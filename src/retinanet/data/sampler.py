"""Repeat-factor sampling: images of rare classes are drawn more often (Gupta, Dollár and Girshick, "LVIS", 2019).

A class c that the share f_c of the images contains has the repeat factor r_c = max(1, sqrt(t / f_c)) for a threshold
t, an image that of the class in it with the largest. In an epoch an image is drawn r times on average: floor(r) or
ceil(r) times in each, and which of the two is a function of the epoch alone, so that a run can be entered anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinanet.data import augment
from retinanet.data.dataset import DetectionData

BITS = 32
ONE = 1 << BITS  # a whole draw, of which fractions are counted: sums of whole numbers have no rounding
GOLDEN = 2654435769  # ONE divided by the golden ratio, odd: its multiples spread as evenly as any and meet every number


def repeat_factors(data: DetectionData, threshold: float) -> NDArray[np.float64]:
    """(N,) the repeat factor of each image, 1 or more; 1 for images without objects.

    Regions to ignore make no class present.
    """
    found = data.annotations
    counted = ~found.crowds
    pairs = np.unique(found.images[counted] * len(data.class_names) + found.labels[counted])
    images, classes = np.divmod(pairs, len(data.class_names))
    share = np.bincount(classes, minlength=len(data.class_names)) / max(1, len(data))
    factors = np.sqrt(np.maximum(1.0, threshold / np.maximum(share, 1e-300)))  # (K,)
    result = np.ones(len(data))
    np.maximum.at(result, images, factors[classes])
    return result


@dataclass(frozen=True)
class Repeats:
    """Which images an epoch draws how often.

    Systematic sampling: the numbers of draws stand one behind the other on a line, with marks at a distance of 1 over
    it. An image is drawn once for each mark within its piece. From epoch to epoch the marks move on by the golden
    ratio: after any number of epochs every image has had its share, give or take a few draws.
    """

    ends: NDArray[np.int64]
    """(N + 1,) where on the line of draws beyond the first each image begins and ends, in units of 1 / ONE."""
    offset: int = 0
    """Where the marks lie in epoch 0."""

    @classmethod
    def of(cls, factors: NDArray[np.float64], seed: int) -> Repeats:
        """For repeat factors (N,) of 1 or more.

        An epoch has a whole number of draws, the factors' sum, rounded; what they have beyond 1 is scaled to fit.
        """
        beyond = factors - 1
        extra = round(float(factors.sum())) - len(factors)
        pieces = np.rint(beyond * (extra / beyond.sum() * ONE if extra else 0)).astype(np.int64)
        pieces[beyond.argmax()] += extra * ONE - pieces.sum()  # what rounding has left, millionths of a draw
        ends = np.concatenate(([0], np.cumsum(pieces)))
        return cls(ends, int(augment.rng(4, seed).integers(ONE)))

    @property
    def draws(self) -> int:
        """Of an epoch."""
        return len(self.ends) - 1 + int(self.ends[-1] >> BITS)

    @property
    def expected(self) -> NDArray[np.float64]:
        """(N,) how many times each image is drawn in an epoch, on average over epochs."""
        return 1 + np.diff(self.ends) / ONE

    def counts(self, epoch: int) -> NDArray[np.int64]:
        """(N,) how many times each image is drawn in an epoch; their sum is :attr:`draws`."""
        return 1 + np.diff((self.ends + (self.offset + epoch * GOLDEN) % ONE) >> BITS)

    def drawn(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The draws of an epoch, not in the order in which they are shown.

        Returns:
            (T,) images, and (T,) how many times each was drawn before within the epoch.
        """
        counts = self.counts(epoch)
        images = np.repeat(np.arange(len(counts)), counts)
        return images, np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)

    def seen(self, epoch: int, image: int) -> int:
        """How many times an image is drawn in all epochs before this one."""
        start, end = self.ends[image : image + 2].tolist()
        if start == end:
            return epoch
        return (
            epoch + sum_of_floors(epoch, GOLDEN, self.offset + end) - sum_of_floors(epoch, GOLDEN, self.offset + start)
        )


def sum_of_floors(count: int, slope: int, start: int) -> int:
    """Sum of (slope j + start) // ONE over j from 0 to count - 1; in a few dozen steps, however large the count."""
    # Points of the grid under a line, counted column by column; what is below one row is counted row by row instead,
    # which is the same question about a flatter line: Euclid's algorithm.
    total, unit = 0, ONE
    while count > 0:
        total += count * (count - 1) // 2 * (slope // unit) + count * (start // unit)
        slope, start = slope % unit, start % unit
        rows, rest = divmod(slope * count + start, unit)
        count, slope, start, unit = rows, unit, rest, slope
    return total
