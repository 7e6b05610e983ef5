"""Checks of boxes: drawn twice, with two classes, copied from image to image, with unusual shapes and sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.doctor.finding import EXAMPLES, Finding, Severity, Split, counted, percent

SAME_OBJECT = 0.9  # IoU above which two boxes are one object: two people who draw one object reach 0.9 at best
SET = 3  # equal boxes that make two images suspicious: one or two may be equal by chance
FEW = 0.01  # share of boxes up to which slips are a note: so few do not harm training
LONG = 10.0  # ratio of the sides; the longest anchor has 2, and matches at IoU 0.5 up to about 4
MANY_LONG = 0.02  # share of long boxes above which they are a kind of object, not slips
WHOLE = 0.95  # share of the image's area
SIDE = 2.0  # pixels of the file: a thinner box is a slip of the mouse


def check(split: Split) -> Iterator[Finding]:
    if not len(split.boxes):
        return
    yield from _twice(split)
    yield from _same_sets(split)
    yield from _shapes(split)


def _twice(split: Split) -> Iterator[Finding]:
    first, second, overlap = split.overlaps
    same_class = split.labels[first] == split.labels[second]
    equal = (split.boxes[first] == split.boxes[second]).all(1)
    cases: tuple[tuple[str, NDArray[np.bool_], str, str], ...] = (
        (
            "boxes.repeated",
            same_class & equal,
            "equal to another of the same class to the last digit",
            "remove the repetitions: each object counts twice in training, and once as missed in evaluation",
        ),
        (
            "boxes.double",
            same_class & ~equal & (overlap > SAME_OBJECT),
            f"with an IoU above {SAME_OBJECT} with another of the same class, as if one object was drawn twice",
            "remove one of each pair: the detector gives one box for an object, and the other counts as missed",
        ),
        (
            "boxes.two-classes",
            ~same_class & (overlap > SAME_OBJECT),
            f"with an IoU above {SAME_OBJECT} with one of another class",
            "keep the right one of each pair, unless objects do have two classes",
        ),
    )
    for code, which, text, remedy in cases:
        a, b = first[which], second[which]
        if not len(a):
            continue
        n = len(np.unique(np.maximum(a, b)))
        names = tuple(
            f"{split.data.box_name(int(split.indices[i]))} and {split.data.box_name(int(split.indices[j]))}"
            for i, j in zip(*np.sort([a, b], axis=0)[:, :EXAMPLES])
        )
        share = f"{counted(n, 'box', 'boxes')} of {len(split.boxes)} ({percent(n, len(split.boxes))})"
        severity: Severity = "warning" if n > FEW * len(split.boxes) else "note"
        yield Finding(code, severity, split.name, n, f"{share} {text}", remedy, names)


def box_set_hashes(split: Split) -> NDArray[np.uint64]:
    """(N,) a hash of each image's boxes and classes, which does not depend on their order."""
    with np.errstate(over="ignore"):
        key = split.labels.astype(np.uint64) + np.uint64(1)
        for column in np.round(split.boxes * 10).astype(np.int64).astype(np.uint64).T:  # to a tenth of a pixel
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        total = np.zeros(len(split.data), np.uint64)
        np.add.at(total, split.owner, key)
    return total


def _same_sets(split: Split) -> Iterator[Finding]:
    key = box_set_hashes(split)
    candidates = np.flatnonzero(split.objects >= SET)
    _, inverse, times = np.unique(key[candidates], return_inverse=True, return_counts=True)
    shared = candidates[times[inverse] > 1]
    if not len(shared):
        return
    shared = shared[np.argsort(key[shared], kind="stable")]
    n_groups = int((times > 1).sum())
    yield Finding(
        "boxes.copied-set",
        "warning",
        split.name,
        len(shared),
        f"{counted(len(shared), 'image')} in {counted(n_groups, 'group')} have the same {SET} or more boxes, to a "
        "tenth of a pixel",
        "check that the boxes belong to these images: a mistake in copying or exporting can cause this, or copies "
        "of an image",
        split.image_examples(shared),
    )


def _shapes(split: Split) -> Iterator[Finding]:
    total = len(split.boxes)
    longer = split.sides.max(1)
    long = longer > LONG * split.shorter
    if n := int(long.sum()):
        many = n > MANY_LONG * total
        severity: Severity = "warning" if many else "note"
        most = float((longer / split.shorter).max())
        yield Finding(
            "boxes.long",
            severity,
            split.name,
            n,
            f"{counted(n, 'box', 'boxes')} ({percent(n, total)}) more than {LONG:g} times as long as wide, "
            f"the longest {most:.0f} times: no anchor of the ratios 1:2 to 2:1 fits",
            "check that these are not slips; for objects of such shapes add ratios, --model.anchors.ratios",
            split.box_examples(np.argsort(-longer / split.shorter, kind="stable")[: min(n, EXAMPLES)]),
        )
    thin = split.shorter < SIDE
    if n := int(thin.sum()):
        yield Finding(
            "boxes.thin",
            "warning" if n > FEW * total else "note",
            split.name,
            n,
            f"{counted(n, 'box', 'boxes')} ({percent(n, total)}) thinner than {SIDE:g} pixels in the file",
            "remove those that are slips of the mouse",
            split.box_examples(thin),
        )
    cover = (split.relative[:, 2:] - split.relative[:, :2]).prod(1)
    whole = cover > WHOLE
    if n := int(whole.sum()):
        images = len(np.unique(split.owner[whole]))
        if images > (split.objects > 0).sum() / 2:
            yield Finding(
                "boxes.classification",
                "error",
                split.name,
                n,
                f"in {images} of {len(split.data)} images a box covers more than {percent(WHOLE)} of the image: "
                "this looks like data for classification",
                "draw boxes around the objects; a detector that is trained on whole images predicts the whole image",
                split.box_examples(whole),
            )
        else:
            yield Finding(
                "boxes.whole-image",
                "note",
                split.name,
                n,
                f"{counted(n, 'box covers', 'boxes cover')} more than {percent(WHOLE)} of the image",
                "nothing, where the object fills the image",
                split.box_examples(whole),
            )
