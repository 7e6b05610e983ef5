"""Inside the images: copies and near copies, channels in the wrong order, nothing to see."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.doctor.box_checks import sets
from retinanet.analysis.doctor.finding import EXAMPLES, Finding, Split, counted, percent
from retinanet.analysis.near_duplicates import PARTNERS, Looks, Pairs, groups, near

SCENE = 0.5  # share of a split with as many partners as are kept: one scene seen again and again, not single copies
COLOURED = 10  # images with colours from which on their order is judged
MIRRORED = 0.25  # of the difference left when red and blue change places
EFFECT = 1.0  # differences between splits, in standard deviations of images, that are looked at
SURE_EFFECT = 3.0  # from here on no choice of subjects explains it
GAP = (
    4.5  # distance of two clusters in their standard deviations; a normal distribution cut at 0 has 2.7, a flat one 3.5
)
CLUSTER = 0.05  # least share of images that may be a cluster
MIXED = 0.05  # share of grey images, and of coloured ones, from which on a split is mixed
GREY_APART = 0.3  # difference of the shares of grey images between splits


def check(split: Split, seen: Looks) -> Iterator[Finding]:
    if len(seen) < seen.total and len(seen) + len(seen.failed) < seen.total:
        looked = len(seen) + len(seen.failed)
        text = f"looked inside {looked} of {seen.total} images, evenly spread: figures on looks are of those"
        yield Finding("looks.sample", "note", split.name, looked, text, "raise the limit to look at all")
    if seen.failed:
        yield Finding(
            "looks.undecodable",
            "error",
            split.name,
            len(seen.failed),
            f"{counted(len(seen.failed), 'image')} cannot be decoded, and would end a training run",
            "replace or remove these files",
            tuple(f"{split.data.image_name(i)}: {why}" for i, why in seen.failed[:EXAMPLES]),
        )
    if seen.disguised:
        yield Finding(
            "looks.other-format",
            "note",
            split.name,
            len(seen.disguised),
            f"{counted(len(seen.disguised), 'image is', 'images are')} of another format than the name says",
            "nothing here; other programs may refuse them",
            tuple(f"{split.data.image_name(i)}: {kind}" for i, kind in seen.disguised[:EXAMPLES]),
        )
    blank = seen.indices[seen.blank]
    if len(blank):
        boxed = int((split.objects[blank] > 0).sum())
        yield Finding(
            "looks.blank",
            "warning",
            split.name,
            len(blank),
            f"{counted(len(blank), 'image is', 'images are')} of one colour all over, {boxed} of them with boxes",
            "replace or remove them",
            split.image_examples(blank),
        )
    grey = int(seen.grey.sum())
    if len(seen) and grey == len(seen):
        text = "all images are grey"
        yield Finding("looks.grey", "note", split.name, grey, text, "nothing; grey becomes three equal channels")
    elif grey > MIXED * len(seen):
        text = f"{grey} of {len(seen)} images are grey, the others have colours"
        remedy = "nothing, where images to come are mixed likewise"
        examples = split.image_examples(seen.indices[seen.grey])
        yield Finding("looks.grey", "note", split.name, grey, text, remedy, examples)
    yield from _swapped_within(split, seen)
    yield from _copies(split, near(seen))


def check_together(splits: Sequence[Split], seen: Mapping[str, Looks]) -> Iterator[Finding]:
    looked = [split for split in splits if split.name in seen]
    for one, other in itertools.combinations(looked, 2):
        yield from _leak(one, other, seen)
    for other in looked[1:]:
        yield from _swapped(looked[0], other, seen)


def _copies(split: Split, pairs: Pairs) -> Iterator[Finding]:
    same = groups(pairs.first[pairs.exact], pairs.second[pairs.exact])
    if same:
        extra = sum(len(group) - 1 for group in same)
        yield Finding(
            "looks.copies",
            "warning",
            split.name,
            extra,
            f"{counted(extra, 'image is a copy', 'images are copies')} of another, byte by byte",
            "keep one of each, with all its boxes",
            tuple(_named(split, group) for group in same[:EXAMPLES]),
        )
        key = sets(split)
        apart = [group for group in same if len(set(key[group].tolist())) > 1]
        if apart:
            yield Finding(
                "looks.copies-disagree",
                "error",
                split.name,
                len(apart),
                f"{counted(len(apart), 'image is', 'images are')} there several times with different boxes",
                "keep one copy with all its boxes: in each, the objects of the others count as background",
                tuple(_named(split, group) for group in apart[:EXAMPLES]),
            )
    alike = groups(pairs.first[~pairs.exact], pairs.second[~pairs.exact])
    if alike:
        n = sum(map(len, alike))
        yield Finding(
            "looks.alike",
            "warning" if split.role in ("train", "trainval") and n > _tenth(split) else "note",
            split.name,
            n,
            f"{counted(n, 'image')} in {counted(len(alike), 'group')} look nearly the same",
            "thin them out where they are frames of a video; keep them together when splits are drawn",
            tuple(_named(split, group) for group in alike[:EXAMPLES]),
        )


def _tenth(split: Split) -> float:
    """Of the images: so many lookalikes within a split do no harm."""
    return 0.1 * len(split.data)


def _named(split: Split, group: Sequence[int]) -> str:
    names = [split.data.image_name(i) for i in group[:4]]
    return " = ".join(names) + (f" and {len(group) - 4} more" if len(group) > 4 else "")


def _leak(one: Split, other: Split, seen: Mapping[str, Looks]) -> Iterator[Finding]:
    pairs = near(seen[other.name], seen[one.name])
    learnt = one.role not in ("val", "test")
    listed_twice = set(one.names) & set(other.names)  # told by the splits' lists already
    for exact in (True, False):
        which = pairs.exact == exact
        if exact and listed_twice:
            fresh = [other.names[i] not in listed_twice for i in pairs.first.tolist()]
            which &= np.array(fresh, np.bool_)
        if not exact:
            which &= ~np.isin(pairs.first, pairs.first[pairs.exact])
        rows = np.flatnonzero(which)
        if not len(rows):
            continue
        images, partners = np.unique(pairs.first[rows], return_counts=True)
        best = rows[np.lexsort((-pairs.likeness[rows], pairs.first[rows]))]
        best = best[np.concatenate([[True], np.diff(pairs.first[best]) > 0])]
        names = tuple(
            f"{other.data.image_name(int(pairs.first[i]))} = {one.data.image_name(int(pairs.second[i]))}"
            + ("" if exact else f" (likeness {pairs.likeness[i]:.2f})")
            for i in best[:EXAMPLES]
        )
        n, share = len(images), percent(len(images), len(seen[other.name]))
        scene = not exact and (partners >= PARTNERS).sum() > SCENE * len(seen[other.name])
        if scene:
            text = f"{n} images ({share}) look like many of {one.name}: frames of one video, or a camera that stands"
            remedy = "put whole videos into one split; where a fixed camera sees other objects each time, nothing"
        else:
            verb = "are copies of one" if exact else "look nearly the same as one"
            verb = verb if n > 1 else verb.replace("are copies", "is a copy").replace("look", "looks")
            harm = f"{other.name} measures what was learnt by heart" if learnt else "the two measure the same"
            text = f"{counted(n, 'image')} ({share}) {verb} in {one.name}: {harm}"
            remedy = f"remove them from {one.name} or {other.name}"
        code = "splits.leak" if exact else "splits.near-leak"
        yield Finding(code, "error" if learnt and not scene else "warning", other.name, n, text, remedy, names)


def _tint(seen: Looks) -> NDArray[np.float64]:
    """(n,) red minus blue of the images that have colours: what changes its sign when the two are swapped."""
    means = seen.means[~seen.grey].astype(np.float64)
    return means[:, 0] - means[:, 2]


def _swapped(one: Split, other: Split, seen: Mapping[str, Looks]) -> Iterator[Finding]:
    ours, theirs = _tint(seen[one.name]), _tint(seen[other.name])
    shares = [float(seen[split.name].grey.mean()) if len(seen[split.name]) else 0.0 for split in (one, other)]
    if abs(shares[0] - shares[1]) > GREY_APART:
        yield Finding(
            "splits.grey-skew",
            "warning",
            other.name,
            int(seen[other.name].grey.sum()),
            f"{percent(shares[1])} of the images are grey, in {one.name} {percent(shares[0])}",
            "mix both in all splits, or make all of them grey",
        )
    if min(len(ours), len(theirs)) < COLOURED:
        return
    a, b = ours.mean(), theirs.mean()
    spread = max(1.0, float(np.sqrt((ours.var() + theirs.var()) / 2)))
    error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    effect = abs(a - b) / spread
    if effect < EFFECT or abs(a - b) < 6 * error or abs(a + b) > MIRRORED * abs(a - b):
        return
    yield Finding(
        "looks.channels",
        "error" if effect > SURE_EFFECT else "warning",
        other.name,
        len(theirs),
        f"red minus blue is {b:+.0f} on average and {a:+.0f} in {one.name}: the channels of one of the two seem to be "
        "swapped (BGR saved as RGB)",
        "look at images of both; save the wrong ones anew, in OpenCV with cv2.cvtColor(image, cv2.COLOR_BGR2RGB)",
    )


def _swapped_within(split: Split, seen: Looks) -> Iterator[Finding]:
    tint = _tint(seen)
    if len(tint) < 2 * COLOURED:
        return
    high, low = tint[tint > 0], tint[tint <= 0]
    fewer = min(len(high), len(low))
    if fewer < max(5, CLUSTER * len(tint)):
        return
    within = np.sqrt((high.var() * len(high) + low.var() * len(low)) / len(tint))
    apart = high.mean() - low.mean()
    if apart < GAP * max(within, 1.0) or abs(high.mean() + low.mean()) > MIRRORED * apart:
        return
    coloured = seen.indices[~seen.grey]
    rare = coloured[tint <= 0] if len(low) <= len(high) else coloured[tint > 0]
    yield Finding(
        "looks.channels",
        "warning",
        split.name,
        len(rare),
        f"{len(rare)} of {len(tint)} images have red and blue the other way round than the rest (red minus blue "
        f"{low.mean():+.0f} and {high.mean():+.0f}): their channels seem to be swapped",
        "look at them; save the wrong ones anew with red first",
        split.image_examples(rare),
    )
