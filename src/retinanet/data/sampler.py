"""Repeat-factor sampling: images of rare classes are drawn more often (Gupta, Dollár and Girshick, "LVIS", 2019).

A class c that the share f_c of the images contains has the repeat factor r_c = max(1, sqrt(t / f_c)) for a threshold
t. An image has the largest factor r of the classes in it, and is drawn r times an epoch on average: floor(r) or ceil(r)
times, by stochastic rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinanet.data import augment
from retinanet.data.dataset import DetectionData

GRID = 1 << 20  # the shift is a multiple of 1 / GRID: adding it to a whole number has no rounding error
GOLDEN = 648055  # GRID divided by the golden ratio; odd, so that its multiples modulo GRID take every value


def repeat_factors(data: DetectionData, threshold: float) -> NDArray[np.float64]:
    """(N,) the repeat factor of each image, 1 or more; 1 for images without objects. Crowd regions do not count."""
    annotations = data.annotations
    counted = ~annotations.crowds
    pairs = np.unique(annotations.images[counted] * len(data.class_names) + annotations.labels[counted])
    images, classes = np.divmod(pairs, len(data.class_names))
    share = np.bincount(classes, minlength=len(data.class_names)) / max(1, len(data))
    factors = np.sqrt(np.maximum(1.0, threshold / np.maximum(share, 1e-300)))  # (K,)
    result = np.ones(len(data))
    np.maximum.at(result, images, factors[classes])
    return result


@dataclass(frozen=True)
class Repeats:
    """How often an epoch draws each image: a function of (seed, epoch).

    The same shift is added to the cumulative sums of all factors before they are rounded down (systematic
    sampling). An image is rounded up as often as its fraction says, and all epochs have the same length. The first
    shift is random. It grows by the golden ratio each epoch, which spreads the extra draws of an image evenly.
    """

    ends: NDArray[np.float64]
    """(N + 1,) cumulative sums of the factors beyond 1, from 0 to a whole number."""
    seed: int

    @classmethod
    def of(cls, factors: NDArray[np.float64], seed: int) -> Repeats:
        """For repeat factors (N,) of 1 or more; what they have beyond 1 is scaled so that its sum is a whole number."""
        ends = np.concatenate(([0], np.cumsum(factors - 1)))
        extra = round(float(factors.sum())) - len(factors)
        if ends[-1] > 0:
            ends *= extra / ends[-1]
        ends = np.minimum(ends, extra)
        ends[ends == ends[-1]] = extra  # exactly: floating point may have left it just below
        return cls(ends, seed)

    @property
    def draws(self) -> int:
        """Number of draws in an epoch."""
        return len(self.ends) - 1 + int(self.ends[-1])

    @property
    def expected(self) -> NDArray[np.float64]:
        """(N,) how many times an epoch draws each image on average."""
        return 1 + np.diff(self.ends)

    @property
    def most(self) -> int:
        """No epoch draws an image more often than this."""
        return 1 + int(np.ceil(np.diff(self.ends).max()))

    def counts(self, epoch: int) -> NDArray[np.int64]:
        """(N,) how many times an epoch draws each image; the sum is :attr:`draws`."""
        first = int(augment.rng(4, self.seed).integers(GRID))
        shift = (first + epoch * GOLDEN) % GRID / GRID
        whole: NDArray[np.int64] = np.floor(self.ends + shift).astype(np.int64)
        return 1 + whole[1:] - whole[:-1]

    def drawn(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The draws of an epoch, before they are shuffled.

        Returns:
            (T,) images, and (T,) a number for each draw that no other draw of the image has in any epoch. Without
            repeats it is the epoch.
        """
        counts = self.counts(epoch)
        images = np.repeat(np.arange(len(counts)), counts)
        copies = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
        return images, epoch * self.most + copies
