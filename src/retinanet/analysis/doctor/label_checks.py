"""Checks of classes and numbers: names that clash, labels off by one, boxes with another meaning than is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.doctor.finding import Finding, Split, counted, listed, percent
from retinanet.common.printable import printable

BACKGROUND = frozenset({"background", "__background__", "_background_", "bg", "_"})
ENOUGH = 20  # boxes: a pattern that so many share is not chance
MISREAD = 0.98  # share of boxes inside their images below which another meaning is tried
REREAD = 0.995  # share that the other meaning must reach: sloppy boxes do not fit it by chance
MOST = 0.9  # share of boxes that look like fractions, or like pixels
SHORT = 0.8  # of both sides: boxes of a real data set reach further, as some object nearly always touches an edge
IMAGES = 20  # that are needed to apply SHORT
BEYOND = 1.1  # of a side: one in 200 sloppy boxes does not reach so far
SHIFT_BOXES = 50  # in both splits, that are needed to compare their labels
SHIFTED = 0.3  # difference of the class shares (0 same, 1 nothing in common) that needs an explanation
EXPLAINED = 0.4  # share of the difference that may remain when all labels are moved by one
WORDS: dict[str, str] = {"corners": "x1 y1 x2 y2", "corner and sides": "x1 y1 w h", "centre and sides": "cx cy w h"}


def check(split: Split) -> Iterator[Finding]:
    yield from _off_by_one(split)
    misread = list(_misread(split))
    yield from misread or _other_size(split)
    facts = split.data.report.facts
    if facts.polygons:
        share = percent(facts.polygons, facts.boxes)
        yield Finding(
            "labels.polygons",
            "note",
            split.name,
            facts.polygons,
            f"{counted(facts.polygons, 'line')} with an outline instead of a box ({share}): its extent is taken",
            "nothing, where these are labels for segmentation",
        )


def check_together(splits: Sequence[Split]) -> Iterator[Finding]:
    if not splits:
        return
    yield from _same_names(splits[0])
    yield from _unclear_names(splits)
    yield from _first_unused(splits)
    for split in splits[1:]:
        yield from _shifted(splits[0], split)
        yield from _other_classes(splits[0], split)


def _off_by_one(split: Split) -> Iterator[Finding]:
    facts = split.data.report.facts
    ids = {ident for ident, n in (facts.used + facts.unknown).items() if n}
    if not facts.unknown or not facts.classes:
        return
    first, last = min(facts.classes), max(facts.classes)
    for step, unused, word in ((-1, first, "high"), (1, last, "low")):
        if not all(ident + step in facts.classes for ident in ids) or facts.used[unused]:
            continue
        lost = sum(facts.unknown.values())
        yield Finding(
            "labels.off-by-one",
            "error",
            split.name,
            sum(facts.used.values()) + lost,
            f"class numbers go from {min(ids)} to {max(ids)}, the list of classes from {first} to {last}, and "
            f"{facts.classes[unused]} never occurs: all numbers are one too {word}; {counted(lost, 'box', 'boxes')} "
            "left out, the others with a wrong name",
            f"{'subtract 1 from' if step < 0 else 'add 1 to'} every class number in the annotations, or number the "
            f"list of classes from {first - step}",
        )


def _misread(split: Split) -> Iterator[Finding]:
    facts, kind = split.data.report.facts, split.data.kind
    if facts.boxes < ENOUGH or not facts.fitting:
        return
    assumed, *others = facts.fitting
    if facts.fractional >= MOST * facts.boxes:
        yield Finding(
            "labels.fractions",
            "error",
            split.name,
            facts.fractional,
            f"{percent(facts.fractional, facts.boxes)} of the boxes lie within the first pixel: they seem to be in "
            f"fractions of the image, and {kind} counts pixels",
            "multiply x and w by the image's width, y and h by its height",
        )
    elif facts.pixels >= (1 - MOST) * facts.boxes and facts.reach[0] > 2:
        yield Finding(
            "labels.pixels",
            "error",
            split.name,
            facts.pixels,
            f"{percent(facts.pixels, facts.boxes)} of the boxes have numbers far above 1: they seem to be in pixels, "
            f"and {kind} has fractions of the image's sides",
            "divide x and w by the image's width, y and h by its height",
        )
    elif others and facts.fitting[assumed] < MISREAD * facts.boxes:
        best = max(others, key=lambda meaning: facts.fitting[meaning])
        if facts.fitting[best] >= REREAD * facts.boxes:
            yield Finding(
                "labels.misread",
                "error",
                split.name,
                facts.boxes,
                f"read as {WORDS[assumed]}, as {kind} writes boxes, {percent(facts.fitting[assumed], facts.boxes)} lie "
                f"in their images; read as {WORDS[best]}, {percent(facts.fitting[best], facts.boxes)}",
                f"convert the boxes from {WORDS[best]} to {WORDS[assumed]}",
            )


def _other_size(split: Split) -> Iterator[Finding]:
    """Coordinates of images that were smaller or larger than those in the files."""
    facts = split.data.report.facts
    if facts.boxes < ENOUGH or len(split.data) < IMAGES:
        return
    remedy = "scale the boxes to the size of the images in the files, or use the images that were annotated"
    right, down = facts.reach
    if right > BEYOND and down > BEYOND:
        yield Finding(
            "labels.larger-size",
            "error",
            split.name,
            facts.boxes,
            f"boxes reach {right:.2f} times the width and {down:.2f} times the height of their images: they seem to "
            "be coordinates of larger images",
            remedy,
        )
    if right < SHORT and down < SHORT and len(split.boxes):
        left, top = np.quantile(split.relative[:, :2], 0.005, axis=0)
        if left < (1 - right) / 2 and top < (1 - down) / 2:  # else the objects may just be in the middle
            yield Finding(
                "labels.smaller-size",
                "error",
                split.name,
                facts.boxes,
                f"in all {len(split.data)} images boxes end at {right:.2f} of the width, {down:.2f} of the height, "
                f"and begin at {left:.2f} and {top:.2f}: they seem to be coordinates of smaller images",
                remedy,
            )


def _same_names(first: Split) -> Iterator[Finding]:
    """Classes that have the same name, or nearly so."""
    names = first.data.class_names
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault("".join(name.casefold().replace("_", " ").replace("-", " ").split()), []).append(name)
    alike = [same for same in folded.values() if len(same) > 1]
    if alike:
        yield Finding(
            "classes.nearly-same",
            "warning",
            "",
            len(alike),
            "classes that differ in case or blanks only: " + listed([" and ".join(same) for same in alike]),
            "give each class one spelling: now each is trained as background of the other",
        )
    written = list(first.data.report.facts.classes.values())
    doubled = sorted(name for name, times in Counter(map(str.strip, written)).items() if times > 1)
    if doubled:
        yield Finding(
            "classes.doubled",
            "warning",
            "",
            len(doubled),
            f"several numbers have the same class name, and are read as one class: {listed(doubled)}",
            "nothing, where they are one class; else give each its own name",
        )
    blank = [name for name in written if name != name.strip()]
    if blank:
        yield Finding(
            "classes.blanks",
            "note",
            "",
            len(blank),
            f"class names begin or end with blanks, which are cut off: {listed([repr(name) for name in blank])}",
            "remove the blanks from the list of classes",
        )


def _unclear_names(splits: Sequence[Split]) -> Iterator[Finding]:
    """Names that do not say what the class is."""
    names = splits[0].data.class_names
    numbers = [name for name in names if name.isascii() and name.replace(".", "", 1).isdigit()]
    if numbers and len(numbers) == len(names):
        # Digits are a sensible set of classes. Other classes should have names instead of 0, 1, 2, …
        digits = len(names) <= 10 and set(names) <= set("0123456789")
        yield Finding(
            "classes.numbers",
            "note" if digits else "warning",
            "",
            len(numbers),
            f"all classes are named by numbers: {listed(numbers)}",
            "nothing, where the objects are numbers; else write the names into the list of classes",
        )
    unprintable = [name for name in names if printable(name, len(name) + 8) != name]
    if unprintable:
        yield Finding(
            "classes.unprintable",
            "warning",
            "",
            len(unprintable),
            f"class names hold control characters or marks of direction, shown as escapes: {listed(unprintable)}",
            "rename these classes: such a name can look like another one",
        )
    empty = sum(not name for name in names)
    if empty:
        yield Finding("classes.empty", "warning", "", empty, "a class has an empty name", "give it a name")
    parents = sorted({parent for split in splits for parent in split.data.report.facts.parents})
    if parents:
        yield Finding(
            "classes.parent",
            "note",
            "",
            len(parents),
            f"category 0, {listed(parents)}, is only the supercategory of the others, without boxes: it is not a class",
            "nothing",
        )


def _first_unused(splits: Sequence[Split]) -> Iterator[Finding]:
    names = splits[0].data.class_names
    counts = sum((split.counts for split in splits), np.zeros(len(names), np.int64))
    if len(names) < 2 or counts[0] or not counts.any():
        return
    if names[0].lower() in BACKGROUND:
        yield Finding(
            "classes.background",
            "warning",
            "",
            1,
            f"the first class, {names[0]}, is background and has no boxes: this detector needs no class for it",
            "remove it from the list of classes, and subtract 1 from the others' numbers where boxes name them so",
        )
    elif len(names) > 2 and counts[1:].all():
        yield Finding(
            "labels.first-unused",
            "warning",
            "",
            1,
            f"the first class, {names[0]}, never occurs in any split while all {len(names) - 1} others do: "
            "class numbers may start at 1 where the list starts at 0",
            f"check a few boxes with their names; if {names[0]} is only a supercategory, remove it from the list",
        )


def _shifted(first: Split, other: Split) -> Iterator[Finding]:
    """A split whose labels are one too high or too low, compared with the first split."""
    if min(len(first.boxes), len(other.boxes)) < SHIFT_BOXES or len(first.counts) < 3:
        return
    share, other_share = first.counts / first.counts.sum(), other.counts / other.counts.sum()
    plain = _distance(share, other_share)
    if plain < SHIFTED:
        return
    sizes, other_sizes = _class_sizes(first), _class_sizes(other)
    for step, word in ((1, "high"), (-1, "low")):
        moved = _distance(share, _move(other_share, step, 0.0))
        now, then = _size_gap(sizes, other_sizes), _size_gap(sizes, _move(other_sizes, step, np.nan))
        if moved > EXPLAINED * plain or then > now:
            continue
        sized = np.isfinite(now) and then < now / 2
        yield Finding(
            "labels.shifted",
            "error" if sized else "warning",
            other.name,
            len(other.boxes),
            f"the classes of {other.name} have the shares of {first.name}'s when every label is moved by one: "
            f"{percent(plain)} of the boxes differ now, {percent(moved)} then"
            + (f"; their sizes fit as well (factor {2**now:.2f} apart now, {2**then:.2f} then)" if sized else ""),
            f"check a few boxes of {other.name} with their names: its class numbers seem one too {word}",
        )


def _distance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Total variation distance; shares that are missing in q count too."""
    return float(np.abs(p - q).sum() + abs(p.sum() - q.sum())) / 2


def _move(values: NDArray[np.float64], step: int, fill: float) -> NDArray[np.float64]:
    """values[k + step], or ``fill`` where that does not exist."""
    moved = np.full_like(values, fill)
    if step > 0:
        moved[:-step] = values[step:]
    else:
        moved[-step:] = values[:step]
    return moved


def _class_sizes(split: Split) -> NDArray[np.float64]:
    """(K,) mean of log2 of the box size, NaN for classes of fewer than 5 boxes."""
    logs = np.log2(split.sides.prod(1).astype(np.float64)) / 2
    sums = np.bincount(split.labels, logs, minlength=len(split.counts))
    return np.where(split.counts >= 5, sums / np.maximum(split.counts, 1), np.nan)


def _size_gap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean difference of the classes' sizes in octaves; infinite where fewer than two can be compared."""
    gaps = np.abs(a - b)
    return float(np.nanmean(gaps)) if np.isfinite(gaps).sum() >= 2 else float("inf")


def _other_classes(first: Split, other: Split) -> Iterator[Finding]:
    """Classes of the first split that are not in the list of another."""
    written = {name.strip() for name in other.data.report.facts.classes.values()}
    missing = [name for name in first.data.class_names if name not in written]
    if written and missing:
        yield Finding(
            "classes.missing",
            "warning",
            other.name,
            len(missing),
            f"its list of classes lacks {counted(len(missing), 'class', 'classes')} of {first.name}: {listed(missing)}",
            "give all splits the same list of classes",
        )
