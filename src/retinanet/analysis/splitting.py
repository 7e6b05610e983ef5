"""One list of images parted into train and val, so that every class has its share of both.

This is the iterative stratification of Sechidis, Tsoumakas and Vlahavas (On the stratification of multi-label data,
2011) for two parts: the class with the fewest images left is dealt out first, each image to the part that lacks it
most, because a frequent class still finds its share later and a rare one does not. Images without objects are dealt
out as if they were of one more class. What is dealt out are images, or groups of images that must stay together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.near_duplicates import Looks, groups, near
from retinanet.common.errors import RequestError
from retinanet.data.dataset import DetectionData

Ints = NDArray[np.int64]
TRAIN, VAL = 0, 1
WORK = (
    3 * 10**7
)  # bounds the search for exchanges in large data, where each looks at every class of every image: seconds


def split(
    data: DetectionData, fraction: float, seed: int = 0, groups: Ints | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part the images of a data set; the same seed gives the same parts.

    Every class with two images or more comes into both parts, as far as exchanging images two by two brings it:
    a part of one image cannot hold ten classes. :func:`one_sided` names the others. Crowd regions do not count.

    Args:
        data: N images.
        fraction: of the images for train, above 0 and below 1. Both parts have one image at least, and train has
            exactly ``round(fraction * N)`` else.
        seed: of the order in which images are dealt out.
        groups: (N,) whole numbers: images with the same number, such as near-duplicates, stay in one part. Then
            train is as large as ``round(fraction * N)`` only as far as moving or exchanging single groups brings it.

    Returns:
        The places of the images for train and for val, each ascending.

    Raises:
        RequestError: the fraction is not between 0 and 1, or there are fewer than two images, or groups.
    """
    if not 0 < fraction < 1:
        raise RequestError(f"the fraction of the images for train is {fraction:g}: give one above 0 and below 1")
    if len(data) < 2:
        raise RequestError(f"{data.root} has {len(data)} images: at least 2 are needed to part them")
    item_of: Ints = np.arange(len(data)) if groups is None else np.unique(groups, return_inverse=True)[1]
    if len(item_of) != len(data):
        raise ValueError(f"{len(item_of)} groups for {len(data)} images")
    if not item_of.any():
        raise RequestError(f"all {len(data)} images of {data.root} are of one group, which stays in one part")
    size = min(max(round(fraction * len(data)), 1), len(data) - 1)
    items = _items(data, item_of)
    part = _deal(items, size, np.random.default_rng(seed))
    if groups is not None:
        _resize(items, part, size)
    _cover(items, part, size)
    in_train = part[item_of] == TRAIN
    return np.flatnonzero(in_train), np.flatnonzero(~in_train)


def look_alikes(seen: Looks) -> Ints:
    """(N,) for :func:`split`: a number for each image, the same for those that are copies or look nearly the same."""
    numbers = np.arange(seen.total)
    pairs = near(seen)
    for group in groups(pairs.first, pairs.second):
        numbers[group] = group[0]
    return numbers


def one_sided(data: DetectionData, train: Ints, val: Ints) -> list[str]:
    """Names of the classes that have two images or more, all of them in one of the parts."""
    held = np.zeros((2, len(data.class_names)), np.int64)
    owners, labels = _presence(data)
    for part, places in ((TRAIN, train), (VAL, val)):
        held[part] = np.bincount(labels[np.isin(owners, places)], minlength=len(data.class_names))
    return [data.class_names[i] for i in np.flatnonzero((held.sum(0) > 1) & (held == 0).any(0))]


@dataclass(frozen=True)
class _Items:
    """G images or groups of images, and the E pairs of an item and a class that it has, in the order of items."""

    weights: Ints  # (G,) images of the item
    owners: Ints  # (E,) the item
    labels: Ints  # (E,) the class; the last class is that of images without objects
    counts: Ints  # (E,) images of the item that have the class
    classes: int
    spread: NDArray[np.bool_]  # (classes,) whether two items or more have the class: it can be in both parts


def _presence(data: DetectionData) -> tuple[Ints, Ints]:
    """Every image with every class that it has, once: (P,) images, (P,) labels, ascending."""
    all_boxes = data.annotations
    counted = ~all_boxes.crowds
    width = len(data.class_names)
    pairs = np.unique(all_boxes.images[counted] * width + all_boxes.labels[counted])
    return pairs // width, pairs % width


def _items(data: DetectionData, item_of: Ints) -> _Items:
    images, labels = _presence(data)
    empty = np.setdiff1d(np.arange(len(data)), images)
    classes = len(data.class_names) + 1
    images, labels = np.concatenate([images, empty]), np.concatenate([labels, np.full(len(empty), classes - 1)])
    pairs, counts = np.unique(item_of[images] * classes + labels, return_counts=True)
    spread = np.bincount(pairs % classes, minlength=classes) > 1
    return _Items(np.bincount(item_of), pairs // classes, pairs % classes, counts, classes, spread)


def _deal(items: _Items, size: int, rng: np.random.Generator) -> Ints:
    """(G,) the part of each item; train gets ``size`` images, exactly so where items are single images."""
    total = int(items.weights.sum())
    images = np.bincount(items.labels, items.counts, items.classes).astype(np.int64)
    to_train = np.rint(images * (size / total)).astype(np.int64)
    to_train = np.where(items.spread, np.clip(to_train, 1, images - 1), to_train)
    lacking = [to_train.tolist(), (images - to_train).tolist()]  # images of each class, by part
    room = [size, total - size]

    turn = rng.permutation(len(items.weights))
    order = np.lexsort((turn[items.owners], items.labels))
    members = np.split(items.owners[order], np.cumsum(np.bincount(items.labels, minlength=items.classes))[:-1])
    starts = np.searchsorted(items.owners, np.arange(len(items.weights) + 1)).tolist()
    labels, counts, weights = items.labels.tolist(), items.counts.tolist(), items.weights.tolist()

    part = [-1] * len(weights)
    left = np.array([len(m) for m in members])
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for item in members[rarest].tolist():
            if part[item] >= 0:
                continue
            wish = max((TRAIN, VAL), key=lambda side: (lacking[side][rarest], room[side]))
            if room[wish] < weights[item]:
                wish = max((TRAIN, VAL), key=lambda side: room[side])
            part[item] = wish
            room[wish] -= weights[item]
            for i in range(starts[item], starts[item + 1]):
                lacking[wish][labels[i]] -= counts[i]
                left[labels[i]] -= 1
    return np.array(part)


def _resize(items: _Items, part: Ints, size: int) -> None:
    """Bring train nearer to ``size`` images by moving one group, or exchanging two of different size, at a time."""
    for side in (TRAIN, VAL):
        if not (part == side).any():
            part[items.weights.argmin()] = side
    while True:
        excess = int(items.weights[part == TRAIN].sum()) - size
        large, small = (TRAIN, VAL) if excess > 0 else (VAL, TRAIN)
        given = np.unique(items.weights[part == large])
        back = np.unique(items.weights[part == small])
        if (part == large).sum() > 1:
            back = np.concatenate([[0], back])
        after = np.abs(abs(excess) - (given[:, None] - back))
        i, j = np.unravel_index(after.argmin(), after.shape)
        if after[i, j] >= abs(excess):
            return
        there = np.flatnonzero((part == large) & (items.weights == given[i]))[0]
        here = np.flatnonzero((part == small) & (items.weights == back[j]))[:1]  # none where 0 comes back
        part[there], part[here] = small, large


def _cover(items: _Items, part: Ints, size: int) -> None:
    """Exchange items so that classes which one part lacks come into it, while any exchange helps."""
    held = np.zeros((2, items.classes), np.int64)  # items of each class, by part
    np.add.at(held, (part[items.owners], items.labels), 1)
    starts = np.searchsorted(items.owners, np.arange(len(part) + 1))
    tries = WORK // len(items.owners)

    def costs(side: int) -> NDArray[np.float64]:
        """(G,) by how much more classes are missing in a part, if this item leaves its own, which is ``side``."""
        cost = items.spread * ((held[side] == 1).astype(np.int64) - (held[1 - side] == 0))
        return np.where(part == side, np.bincount(items.owners, cost[items.labels], len(part)), np.inf)

    def move(item: int) -> None:
        own, side = items.labels[starts[item] : starts[item + 1]], part[item]
        held[side, own] -= 1
        held[1 - side, own] += 1
        part[item] = 1 - side

    def exchange(side: int) -> bool:
        nonlocal tries
        off = int(items.weights[part == TRAIN].sum()) - size
        cost = costs(side)
        lacking = items.spread & (held[1 - side] == 0)
        helpful = np.unique(items.owners[lacking[items.labels]])
        for item in helpful[np.argsort(cost[helpful], kind="stable")].tolist():
            if tries <= 0:
                return False
            tries -= 1
            move(item)
            shift = items.weights - items.weights[item]  # what side gains with the other item
            nearer = np.abs(off + (shift if side == TRAIN else -shift)) <= abs(off)
            nearer[item] = False
            back = np.where(nearer, costs(1 - side), np.inf)
            other = int(back.argmin())
            if cost[item] + back[other] < 0:
                move(other)
                return True
            move(item)
        return False

    while exchange(TRAIN) or exchange(VAL):
        pass
