"""Checks of the detector's settings: images that are shrunk too far, objects that NMS or the limit removes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from retinanet.analysis.doctor.finding import Finding, Split, counted, percent
from retinanet.config.model_settings import ModelSettings

LOST = 0.5  # cells of the finest level: smaller boxes lie between its positions
MANY_SHRUNK = 0.05  # share of boxes below the stride above which a larger image size is worth its cost
SOME_LOST = 0.01  # share of boxes that are too small above which it is a warning
KEPT = 0.95  # share of boxes that the suggested size brings above the stride
TILES = 2048  # pixels above which tiles are cheaper than training on whole images
CROWDED = 0.05  # share of boxes that overlap too much above which it is a warning; COCO has 2 %
UNUSUAL = 3.0  # times the number of objects in 99 of 100 images
MANY = 50  # objects: images with fewer are never unusual
HUGE = 50e6  # pixels: decoding one takes 150 MB and half a second, in each loader process
SMALL = 32  # pixels: an image smaller than one cell of P5
LONG = 10.0  # ratio of an image's sides: the limit on the longer side makes a strip of it


def check(split: Split, settings: ModelSettings, splits: Sequence[Split]) -> Iterator[Finding]:
    """Check one split.

    Args:
        splits: all splits of the data set, because a model has one size and one threshold for all of them.
    """
    yield from _images(split)
    if len(split.boxes):
        yield from _shrunk(split, settings, splits)
        yield from _limits(split, settings, splits)


def _shrunk(split: Split, settings: ModelSettings, splits: Sequence[Split]) -> Iterator[Finding]:
    preprocessing, total = settings.preprocessing, len(split.boxes)
    level = settings.anchors.first_level
    stride = float(2**level)  # pixels of the network's input between two cells of the finest level
    lost_side = LOST * stride
    side = split.trained_shorter
    below = (side < stride).sum()
    shrunk = (side < stride) & (split.shorter >= stride)
    fifth = min(float(np.percentile(each.trained_shorter, 100 * (1 - KEPT))) for each in splits if len(each.boxes))
    lost = side < lost_side
    if preprocessing.resize == "none":
        remedy = "cut the images into tiles and enlarge them, or set --model.preprocessing.resize shorter"
    else:
        wanted = math.ceil(preprocessing.size * stride / fifth / 32) * 32
        change = f"--model.preprocessing.size {wanted}"
        if preprocessing.resize == "shorter":
            change += f" --model.preprocessing.longer {math.ceil(preprocessing.longer * wanted / preprocessing.size)}"
        remedy = f"{change} brings {percent(KEPT)} of the boxes above {stride:g} pixels"
        if wanted <= preprocessing.size:
            remedy = "check these boxes: there are only a few"
        elif wanted > TILES:
            remedy += "; cut the images into tiles instead, that size is costly"
    n = int(shrunk.sum())
    if n > MANY_SHRUNK * total:
        yield Finding(
            "training.shrunk",
            "warning",
            split.name,
            n,
            f"{counted(n, 'box', 'boxes')} ({percent(n, total)}) are {stride:g} pixels or more in the file and less at "
            f"the training size ({_size(settings)}), below the stride of P{level}",
            remedy,
            split.box_examples(np.flatnonzero(shrunk)[np.argsort(side[shrunk], kind="stable")]),
        )
    elif below > MANY_SHRUNK * total:
        yield Finding(
            "training.small",
            "warning",
            split.name,
            int(below),
            f"{counted(int(below), 'box', 'boxes')} ({percent(below, total)}) are below {stride:g} pixels, the stride "
            f"of P{level}, at the training size ({_size(settings)}), and in the file too for the most part",
            remedy,
            split.box_examples(np.argsort(side, kind="stable")),
        )
    if n := int(lost.sum()):
        yield Finding(
            "training.tiny",
            "warning" if n > SOME_LOST * total else "note",
            split.name,
            n,
            f"{counted(n, 'box', 'boxes')} ({percent(n, total)}) below {lost_side:g} pixels at the training size "
            f"({_size(settings)}): they can hardly be detected",
            remedy,
            split.box_examples(np.argsort(side, kind="stable")[: min(n, 20)]),
        )


def _size(settings: ModelSettings) -> str:
    preprocessing = settings.preprocessing
    if preprocessing.resize == "none":
        return "that of the file"
    if preprocessing.resize == "square":
        return f"longer side {preprocessing.size}"
    return f"shorter side {preprocessing.size}, longer at most {preprocessing.longer}"


def _limits(split: Split, settings: ModelSettings, splits: Sequence[Split]) -> Iterator[Finding]:
    post, total = settings.postprocessing, len(split.boxes)
    crowded = split.objects > post.max_detections
    if n := int(crowded.sum()):
        most = int(split.objects.max())
        enough = math.ceil(max(int(each.objects.max()) for each in splits if len(each.data)) * 1.5 / 100) * 100
        over = int((split.objects[crowded] - post.max_detections).sum())
        yield Finding(
            "training.max-detections",
            "warning",
            split.name,
            n,
            f"{counted(n, 'image has', 'images have')} more than {post.max_detections} objects, at most {most}: "
            f"{over} ({percent(over, total)}) cannot be detected",
            f"--model.postprocessing.max-detections {enough}, so that some wrong detections fit too",
            split.image_examples(np.flatnonzero(crowded)[np.argsort(-split.objects[crowded], kind="stable")]),
        )
    usual = max(MANY, UNUSUAL * float(np.percentile(split.objects, 99)))
    full = split.objects > usual
    if (n := int(full.sum())) and len(split.data) >= 20:
        yield Finding(
            "training.full-image",
            "note",
            split.name,
            n,
            f"{counted(n, 'image')} with far more objects than the others, up to {split.objects.max()}",
            "check that these are right",
            split.image_examples(full),
        )
    first, second, overlap = split.overlaps
    # box_checks reports boxes that are drawn twice. These are objects that stand close.
    close = (split.labels[first] == split.labels[second]) & (overlap > post.nms_iou) & (overlap <= 0.9)
    involved = np.unique(np.concatenate([first[close], second[close]]))
    if n := len(involved):
        yield Finding(
            "training.nms",
            "warning" if n > CROWDED * total else "note",
            split.name,
            n,
            f"{counted(n, 'box', 'boxes')} ({percent(n, total)}) overlap another of their class by an IoU above "
            f"{post.nms_iou:g}: of each such group NMS keeps one",
            f"--model.postprocessing.nms-iou {_nms(splits, post.nms_iou):g}, where these are objects that stand close",
            split.box_examples(involved[np.argsort(-_highest(involved, first, second, overlap, close), kind="stable")]),
        )


def _highest(
    involved: np.ndarray, first: np.ndarray, second: np.ndarray, overlap: np.ndarray, close: np.ndarray
) -> np.ndarray:
    """The largest IoU of each involved box."""
    best = np.zeros(len(involved), np.float32)
    for side in (first[close], second[close]):
        np.maximum.at(best, np.searchsorted(involved, side), overlap[close])
    return best


def _nms(splits: Sequence[Split], now: float) -> float:
    """The lowest threshold, in steps of 0.05, that keeps nine in ten of the pairs; at most 0.8."""
    close = []
    for split in splits:
        first, second, overlap = split.overlaps
        close.append(overlap[(split.labels[first] == split.labels[second]) & (overlap > now) & (overlap <= 0.9)])
    return min(0.8, max(now + 0.05, math.ceil(float(np.percentile(np.concatenate(close), 90)) * 20) / 20))


def _images(split: Split) -> Iterator[Finding]:
    sizes = split.data.annotations.sizes
    pixels = sizes.astype(np.int64).prod(1)
    cases = (
        (
            "images.huge",
            pixels > HUGE,
            f"larger than {HUGE / 1e6:.0f} million pixels",
            "reduce them once, or cut them into tiles: decoding them is slow, and most of their pixels are not used",
        ),
        (
            "images.small",
            sizes.min(1) < SMALL,
            f"less than {SMALL} pixels wide or high",
            "remove those that are thumbnails",
        ),
        (
            "images.long",
            sizes.max(1) > LONG * sizes.min(1),
            f"more than {LONG:g} times as long as wide: they become strips",
            "cut them into tiles",
        ),
    )
    for code, which, text, remedy in cases:
        if n := int(which.sum()):
            h, w = sizes[which][pixels[which].argmax() if code == "images.huge" else pixels[which].argmin()]
            full = f"{counted(n, 'image is', 'images are')} {text}, such as {w} x {h}"
            yield Finding(code, "warning", split.name, n, full, remedy, split.image_examples(which))
