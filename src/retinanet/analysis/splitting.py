"""Splits one list of images into train and val, so that every class has its share of both.

This is the iterative stratification of Sechidis, Tsoumakas and Vlahavas (On the stratification of multi-label data,
2011) for two sides. The class with the fewest images left is dealt out first, each image to the side that lacks the
class most: a frequent class still gets its share later, a rare one does not. Images without objects count as one more
class. The items that are dealt out are images, or groups of images that must stay on one side. Afterwards items are
exchanged, because a rare class may still be on one side only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.near_duplicates import ImageFigures, connected_groups, similar_pairs
from retinanet.common.errors import RequestError
from retinanet.data.dataset import DetectionData

Ints = NDArray[np.int64]
TRAIN, VAL = 0, 1
WORK = 3 * 10**7  # limits the search for exchanges, each of which takes time for every class of every image, to seconds


def split(
    data: DetectionData, fraction: float, seed: int = 0, groups: Ints | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the images of a data set into train and val; the same seed gives the same split.

    Every class with two or more images comes to both sides, as far as exchanging images two by two can do it: one
    image cannot hold ten classes. :func:`one_sided` names the other classes. Crowd regions do not count.

    Args:
        data: N images.
        fraction: the share of the images for train, above 0 and below 1. Train gets ``round(fraction * N)`` images, but
            both sides get at least one.
        seed: for the order in which images are dealt out.
        groups: (N,) integers. Images with the same number, such as near-duplicates, stay on one side. The size of train
            is then only as near to ``round(fraction * N)`` as moving or exchanging single groups brings it.

    Returns:
        The indices of the images for train and for val, both ascending.

    Raises:
        RequestError: the fraction is not between 0 and 1, or there are fewer than two images, or groups.
    """
    if not 0 < fraction < 1:
        raise RequestError(f"the fraction of the images for train is {fraction:g}: give one above 0 and below 1")
    if len(data) < 2:
        raise RequestError(f"{data.root} has {len(data)} images: at least 2 are needed to split them")
    item_of: Ints = np.arange(len(data)) if groups is None else np.unique(groups, return_inverse=True)[1]
    if len(item_of) != len(data):
        raise ValueError(f"{len(item_of)} groups for {len(data)} images")
    if not item_of.any():
        raise RequestError(f"all {len(data)} images of {data.root} are of one group, which stays on one side")
    size = min(max(round(fraction * len(data)), 1), len(data) - 1)
    items = _items(data, item_of)
    side_of = _deal(items, size, np.random.default_rng(seed))
    if groups is not None:
        _approach_size(items, side_of, size)
    _Exchanges(items, side_of, size).run()
    while groups is not None and _approach_size(items, side_of, size):  # exchanges may have made another move possible
        _Exchanges(items, side_of, size).run()
    in_train = side_of[item_of] == TRAIN
    return np.flatnonzero(in_train), np.flatnonzero(~in_train)


def duplicate_groups(figures: ImageFigures) -> Ints:
    """(N,) ``groups`` for :func:`split`: the same number for images that are copies or look nearly the same."""
    numbers = np.arange(figures.total)
    pairs = similar_pairs(figures)
    for group in connected_groups(pairs.first, pairs.second):
        numbers[group] = group[0]
    return numbers


def one_sided(data: DetectionData, train: Ints, val: Ints) -> list[str]:
    """Names of the classes that have two or more images, all of them on one side."""
    images, labels = _presence(data)
    held = np.array(
        [np.bincount(labels[np.isin(images, side)], minlength=len(data.class_names)) for side in (train, val)]
    )
    return [data.class_names[i] for i in np.flatnonzero((held.sum(0) > 1) & (held == 0).any(0))]


@dataclass(frozen=True)
class _Items:
    """G items (images or groups of images), and E pairs of an item with a class that it has, in the order of items."""

    weights: Ints  # (G,) images of each item
    owners: Ints  # (E,) the item of each pair
    labels: Ints  # (E,) the class of each pair; the last class is that of images without objects
    counts: Ints  # (E,) images of the item that have the class
    classes: int
    divisible: NDArray[np.bool_]  # (classes,) whether two or more items have the class, so that it can be on both sides


def _presence(data: DetectionData) -> tuple[Ints, Ints]:
    """Every image with every class that it has, once: (P,) images, (P,) labels, ascending."""
    notes = data.annotations
    width = len(data.class_names)
    pairs = np.unique(notes.images[~notes.crowds] * width + notes.labels[~notes.crowds])
    return pairs // width, pairs % width


def _items(data: DetectionData, item_of: Ints) -> _Items:
    images, labels = _presence(data)
    empty = np.setdiff1d(np.arange(len(data)), images)
    classes = len(data.class_names) + 1
    images, labels = np.concatenate([images, empty]), np.concatenate([labels, np.full(len(empty), classes - 1)])
    pairs, counts = np.unique(item_of[images] * classes + labels, return_counts=True)
    divisible = np.bincount(pairs % classes, minlength=classes) > 1
    return _Items(np.bincount(item_of), pairs // classes, pairs % classes, counts, classes, divisible)


def _deal(items: _Items, size: int, rng: np.random.Generator) -> Ints:
    """(G,) the side of each item: iterative stratification. Train gets ``size`` images, or nearly so with groups."""
    total = int(items.weights.sum())
    images = np.bincount(items.labels, items.counts, items.classes).astype(np.int64)
    to_train = np.rint(images * (size / total)).astype(np.int64)
    to_train = np.where(items.divisible, np.clip(to_train, 1, images - 1), to_train)
    wanted = [to_train.tolist(), (images - to_train).tolist()]  # images of each class that a side still lacks
    room = [size, total - size]  # images that a side still lacks

    shuffled = rng.permutation(len(items.weights))
    order = np.lexsort((shuffled[items.owners], items.labels))
    members = np.split(items.owners[order], np.cumsum(np.bincount(items.labels, minlength=items.classes))[:-1])
    starts = np.searchsorted(items.owners, np.arange(len(items.weights) + 1)).tolist()
    labels, counts, weights = items.labels.tolist(), items.counts.tolist(), items.weights.tolist()

    side_of = [-1] * len(weights)
    left = np.array([len(m) for m in members])
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for item in members[rarest].tolist():
            if side_of[item] >= 0:
                continue
            side = max((TRAIN, VAL), key=lambda side: (wanted[side][rarest], room[side]))
            if room[side] < weights[item]:
                side = max((TRAIN, VAL), key=lambda side: room[side])
            side_of[item] = side
            room[side] -= weights[item]
            for pair in range(starts[item], starts[item + 1]):
                wanted[side][labels[pair]] -= counts[pair]
                left[labels[pair]] -= 1
    return np.array(side_of)


def _approach_size(items: _Items, side_of: Ints, size: int) -> bool:
    """Move single groups, or exchange two of different size, while that brings train nearer to ``size`` images.

    Returns:
        Whether anything changed.
    """
    changed = False
    for side in (TRAIN, VAL):
        if not (side_of == side).any():
            side_of[items.weights.argmin()] = side
            changed = True
    while True:
        excess = int(items.weights[side_of == TRAIN].sum()) - size
        larger, smaller = (TRAIN, VAL) if excess > 0 else (VAL, TRAIN)
        given = np.unique(items.weights[side_of == larger])
        returned = np.unique(items.weights[side_of == smaller])
        if (side_of == larger).sum() > 1:
            returned = np.concatenate([[0], returned])  # nothing comes back: a move
        after = np.abs(abs(excess) - (given[:, None] - returned))
        i, j = np.unravel_index(after.argmin(), after.shape)
        if after[i, j] >= abs(excess):
            return changed
        away = np.flatnonzero((side_of == larger) & (items.weights == given[i]))[0]
        back = np.flatnonzero((side_of == smaller) & (items.weights == returned[j]))[:1]
        side_of[away], side_of[back], changed = smaller, larger, True


class _Exchanges:
    """Exchanges items two by two, so that classes which one side lacks come to both sides."""

    def __init__(self, items: _Items, side_of: Ints, size: int) -> None:
        self.items, self.side_of, self.size = items, side_of, size
        self.held = np.zeros((2, items.classes), np.int64)  # items of each class on each side
        np.add.at(self.held, (side_of[items.owners], items.labels), 1)
        self.starts = np.searchsorted(items.owners, np.arange(len(side_of) + 1))
        self.tries = WORK // len(items.owners)

    def run(self) -> None:
        """Exchange items while any exchange helps."""
        while self._exchange(TRAIN) or self._exchange(VAL):
            pass

    def _costs(self, side: int) -> NDArray[np.float64]:
        """(G,) how many more classes a side lacks after an item left ``side``; infinite for items of the other side."""
        lost = (self.held[side] == 1).astype(np.int64) - (self.held[1 - side] == 0)  # (K,)
        cost = self.items.divisible * lost
        total = np.bincount(self.items.owners, cost[self.items.labels], len(self.side_of))
        return np.where(self.side_of == side, total, np.inf)

    def _move(self, item: int) -> None:
        labels, side = self.items.labels[self.starts[item] : self.starts[item + 1]], self.side_of[item]
        self.held[side, labels] -= 1
        self.held[1 - side, labels] += 1
        self.side_of[item] = 1 - side

    def _exchange(self, side: int) -> bool:
        """Exchange an item of ``side``, with a class that the other side lacks, for one of the other side."""
        items = self.items
        excess = int(items.weights[self.side_of == TRAIN].sum()) - self.size
        cost = self._costs(side)
        lacking = items.divisible & (self.held[1 - side] == 0)
        helpful = np.unique(items.owners[lacking[items.labels]])
        for item in helpful[np.argsort(cost[helpful], kind="stable")].tolist():
            if self.tries <= 0:
                return False
            self.tries -= 1
            self._move(item)
            gain = items.weights - items.weights[item]  # images that ``side`` gains with the other item
            allowed = np.abs(excess + (gain if side == TRAIN else -gain)) <= abs(excess)
            allowed[item] = False
            back = np.where(allowed, self._costs(1 - side), np.inf)
            other = int(back.argmin())
            if cost[item] + back[other] < 0:
                self._move(other)
                return True
            self._move(item)
        return False
