"""Checks of splits: which exist, how balanced their classes are, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.doctor.finding import EXAMPLES, Finding, Split, counted, listed, percent
from retinanet.data.formats.split_folders import plain_name

FEW_IMAGES = 20  # on fewer images, each image changes AP by whole points
SMALL_SHARE = 0.05  # of all images; only for splits below ENOUGH images
ENOUGH = 500  # images: AP on these is accurate to about a point
RARE = 10  # boxes of a class: too few to train it
RATIO = 20.0  # boxes of the most frequent class for each of the rarest
SKEW = 0.10  # difference of a class's share of the boxes
CERTAIN = 4.0  # standard errors, so that small splits do not differ by chance
SIZE_FACTOR = 1.5  # between the median box sizes of two splits, at the training size
IMAGE_FACTOR = 2.0  # between their median image sizes
EMPTY = 0.5  # share of images without a box


def check(splits: Sequence[Split]) -> Iterator[Finding]:
    if not splits:
        return
    yield from _roles(splits)
    yield from _classes_anywhere(splits)
    for split in splits:
        yield from _filled(split)
    train = splits[0]
    yield from _balance(train)
    for split in splits[1:]:
        yield from _small(split, splits)
        yield from _coverage(train, split)
        yield from _skew(train, split)
    yield from _same_files(splits)


def _roles(splits: Sequence[Split]) -> Iterator[Finding]:
    """Missing training or validation sets."""
    if any(split.data.held_out for split in splits):
        return  # one list of images was divided, whatever it is called
    roles = {split.role for split in splits}
    if not roles & {"train", "trainval"} and len(splits) > 1:
        text = f"there is no split to train on; there are {listed([split.name for split in splits])}"
        yield Finding("splits.no-train", "error", "", 0, text, "name one: --data.train NAME")
    if len(splits) == 1:
        text = f"there is one split, {splits[0].name}: training holds out a fifth of it to validate on"
        yield Finding("splits.no-val", "note", "", 0, text, "give --val 0.1 for another share, or a split of its own")
    elif not roles - {"train", "trainval"}:
        text = f"there is none to evaluate on among {listed([split.name for split in splits])}"
        remedy = "set apart a tenth to a fifth of the images as val, whole scenes or videos at a time"
        yield Finding("splits.no-val", "warning", "", 0, text, remedy)
    elif "val" not in roles and "test" in roles:
        name = next(split.name for split in splits if split.role == "test")
        text = f"there is no val, and {name} to evaluate on"
        yield Finding("splits.no-val", "note", "", 0, text, f"--data.val {name} evaluates on it during training")


def _classes_anywhere(splits: Sequence[Split]) -> Iterator[Finding]:
    names = splits[0].data.class_names
    total = sum((split.counts for split in splits), np.zeros(len(names), np.int64))
    unused = [name for name, n in zip(names, total) if not n]
    if unused and total.any():
        yield Finding(
            "splits.unused-class",
            "note" if len(splits) > 1 else "warning",
            "",
            len(unused),
            f"{counted(len(unused), 'class occurs', 'classes occur')} in no split, of {len(names)}: {listed(unused)}",
            "remove them from the list of classes, unless data for them will follow",
        )


def _filled(split: Split) -> Iterator[Finding]:
    empty = int((split.objects == 0).sum())
    if not len(split.boxes):
        text = f"none of its {counted(len(split.data), 'image')} has a box"
        yield Finding("splits.no-boxes", "error", split.name, len(split.data), text, "annotate it, or leave it out")
    elif empty > EMPTY * len(split.data):
        yield Finding(
            "splits.empty-images",
            "warning",
            split.name,
            empty,
            f"{empty} of {len(split.data)} images ({percent(empty, len(split.data))}) have no box",
            "check that no annotations are missing; images without objects help up to about a half",
            split.image_examples(split.objects == 0),
        )
    elif empty:
        yield Finding(
            "splits.background",
            "note",
            split.name,
            empty,
            f"{counted(empty, 'image has', 'images have')} no box ({percent(empty, len(split.data))}): background",
            "nothing, where they show none of the classes",
            split.image_examples(split.objects == 0),
        )


def _balance(train: Split) -> Iterator[Finding]:
    names, counts = train.data.class_names, train.counts
    if not counts.any():
        return
    order = np.argsort(counts, kind="stable")
    rare = [f"{names[k]} ({counts[k]})" for k in order if 0 < counts[k] < RARE]
    if rare:
        yield Finding(
            "splits.rare-class",
            "warning",
            train.name,
            len(rare),
            f"{counted(len(rare), 'class has', 'classes have')} fewer than {RARE} boxes: {listed(rare)}",
            "label more of them, merge them with similar classes, or expect a low AP",
        )
    present = [k for k in order if counts[k]]
    ratio = counts[present[-1]] / counts[present[0]]
    if ratio > RATIO:
        yield Finding(
            "splits.imbalance",
            "warning",
            train.name,
            len(present),
            f"{names[present[-1]]} has {counts[present[-1]]} boxes and {names[present[0]]} {counts[present[0]]}, "
            f"{ratio:.0f} to 1: focal loss weighs background against objects and does not help rare classes",
            "repeat their images, --data.repeat-threshold 0.1, or weigh classes, --loss.class-weights",
        )


def _small(split: Split, splits: Sequence[Split]) -> Iterator[Finding]:
    n, total = len(split.data), sum(len(other.data) for other in splits)
    if n >= FEW_IMAGES and (n >= SMALL_SHARE * total or n >= ENOUGH):
        return
    yield Finding(
        "splits.small",
        "warning",
        split.name,
        n,
        f"it has {counted(n, 'image')} ({percent(n, total)} of all) and {counted(len(split.boxes), 'box', 'boxes')}: "
        "AP on so few images depends on chance by several points",
        "set apart a tenth to a fifth of the images, and some hundred boxes of each class",
    )


def _coverage(train: Split, other: Split) -> Iterator[Finding]:
    names = train.data.class_names
    if not train.counts.any() or not other.counts.any():
        return
    only = [names[k] for k in np.flatnonzero((train.counts == 0) & (other.counts > 0))]
    if only:
        yield Finding(
            "splits.only-here",
            "warning",
            other.name,
            len(only),
            f"{counted(len(only), 'class occurs', 'classes occur')} here and not in {train.name}: {listed(only)}; "
            "each counts with AP 0",
            f"move images of them to {train.name}, or remove them from the list of classes",
        )
    absent = [names[k] for k in np.flatnonzero((train.counts > 0) & (other.counts == 0))]
    if absent:
        yield Finding(
            "splits.not-here",
            "warning",
            other.name,
            len(absent),
            f"{counted(len(absent), 'class does', 'classes do')} not occur here but in {train.name}, and cannot be "
            f"evaluated: {listed(absent)}",
            f"move images of them from {train.name}",
        )


def _skew(train: Split, other: Split) -> Iterator[Finding]:
    if not len(train.boxes) or not len(other.boxes):
        return
    share, other_share = (split.counts / split.counts.sum() for split in (train, other))
    skewed = []
    for k in np.flatnonzero(np.abs(share - other_share) > SKEW):
        error = np.hypot(_share_error(train, int(k)), _share_error(other, int(k)))
        if abs(share[k] - other_share[k]) > CERTAIN * error:
            shares = f"{percent(other_share[k])}, in {train.name} {percent(share[k])}"
            skewed.append(f"{train.data.class_names[k]} ({shares})")
    if skewed:
        yield Finding(
            "splits.class-skew",
            "warning",
            other.name,
            len(skewed),
            f"classes have other shares of the boxes than in {train.name}: {listed(skewed)}",
            "split all images again, unless they are meant to differ",
        )
    logs = [np.log2(np.sqrt(split.sides.prod(1)) * split.scale[split.owner]) for split in (train, other)]
    factor = float(2 ** (np.median(logs[1]) - np.median(logs[0])))
    error = np.hypot(_mean_error(train, logs[0]), _mean_error(other, logs[1]))
    if max(factor, 1 / factor) > SIZE_FACTOR and abs(logs[1].mean() - logs[0].mean()) > CERTAIN * error:
        yield Finding(
            "splits.size-skew",
            "warning",
            other.name,
            len(other.boxes),
            f"boxes are {factor:.2g} times as large as in {train.name}, median to median at the training size",
            "split all images again, or train with --data.augmentation.zoom over the range of both",
        )
    areas = [np.sqrt(split.data.annotations.sizes.astype(np.float64).prod(1)) for split in (train, other)]
    factor = float(np.median(areas[1]) / np.median(areas[0]))
    if max(factor, 1 / factor) > IMAGE_FACTOR and min(map(len, areas)) >= 10:
        yield Finding(
            "splits.image-skew",
            "warning",
            other.name,
            len(other.data),
            f"images are {factor:.2g} times as large as in {train.name}, median to median "
            f"({np.median(areas[1]):.0f} and {np.median(areas[0]):.0f} pixels, the root of their areas)",
            "use images of one source in both: resizing hides the size, not the sharpness",
        )


def _share_error(split: Split, label: int) -> float:
    """Standard error of a class's share of the boxes, from the variance between images."""
    of_class = np.bincount(split.owner, split.labels == label, minlength=len(split.data))
    total = split.objects.sum()
    rest = of_class - of_class.sum() / total * split.objects
    return float(np.sqrt((rest**2).sum()) / total)


def _mean_error(split: Split, values: NDArray[np.float32]) -> float:
    """Standard error of the mean of a value of the boxes, from the variance between images."""
    sums = np.bincount(split.owner, values, minlength=len(split.data))
    rest = sums - values.mean() * split.objects
    return float(np.sqrt((rest**2).sum()) / len(values))


def _same_files(splits: Sequence[Split]) -> Iterator[Finding]:
    """Files that are in the lists of two splits."""
    for i, split in enumerate(splits):
        known = set(split.names)
        for other in splits[i + 1 :]:
            shared = [index for index, name in enumerate(other.names) if name in known]
            if not shared:
                continue
            union = plain_name(split.name) == "trainval" or plain_name(other.name) == "trainval"
            text = f"{counted(len(shared), 'image is', 'images are')} listed in {split.name} too"
            yield Finding(
                "splits.leak",
                "note" if union and plain_name(split.name) != "test" and plain_name(other.name) != "test" else "error",
                other.name,
                len(shared),
                f"{text} ({percent(len(shared), len(other.data))}): {other.name} does not test what is new",
                f"list each image in one split; train on {split.name} and evaluate on another than {other.name}",
                other.image_examples(np.array(shared[:EXAMPLES])),
            )
