"""Checks of the pixels: copies and near-duplicates, swapped channels, blank images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.doctor.box_checks import box_set_hashes
from retinanet.analysis.doctor.finding import EXAMPLES, Finding, Split, counted, percent
from retinanet.analysis.near_duplicates import PARTNERS, ImageFigures, Pairs, connected_groups, similar_pairs

SCENE = 0.5  # share of a split's images with PARTNERS partners, above which one scene is seen again and again
COLOURED = 10  # images with colours that are needed to judge the order of the channels
MIRRORED = 0.25  # share of the difference that may remain when red and blue are swapped
EFFECT = 1.0  # difference between splits, in standard deviations of images, that is suspicious
SURE_EFFECT = 3.0  # above this, the choice of subjects does not explain the difference
GAP = 4.5  # distance of two clusters in standard deviations; a normal distribution cut at 0 has 2.7, a uniform one 3.5
CLUSTER = 0.05  # smallest share of the images that may be a cluster
MIXED = 0.05  # share of grey images above which a split is mixed
GREY_DIFFERENCE = 0.3  # between the shares of grey images in two splits
HARMLESS = 0.1  # share of near-duplicates within a split that does no harm


def check(split: Split, figures: ImageFigures) -> Iterator[Finding]:
    inspected = len(figures) + len(figures.failed)
    if inspected < figures.total:
        text = f"the pixels of {inspected} of {figures.total} images were inspected, evenly spread"
        yield Finding("images.sample", "note", split.name, inspected, text, "raise the limit to inspect all")
    if figures.failed:
        yield Finding(
            "images.undecodable",
            "error",
            split.name,
            len(figures.failed),
            f"{counted(len(figures.failed), 'image')} cannot be decoded, and would end a training run",
            "replace or remove these files",
            tuple(f"{split.data.image_name(i)}: {why}" for i, why in figures.failed[:EXAMPLES]),
        )
    if figures.other_format:
        yield Finding(
            "images.other-format",
            "note",
            split.name,
            len(figures.other_format),
            f"{counted(len(figures.other_format), 'image is', 'images are')} of another format than the suffix says",
            "nothing here; other programs may refuse them",
            tuple(f"{split.data.image_name(i)}: {kind}" for i, kind in figures.other_format[:EXAMPLES]),
        )
    blank = figures.indices[figures.blank]
    if len(blank):
        boxed = int((split.objects[blank] > 0).sum())
        yield Finding(
            "images.blank",
            "warning",
            split.name,
            len(blank),
            f"{counted(len(blank), 'image has', 'images have')} one colour everywhere, {boxed} of them with boxes",
            "replace or remove them",
            split.image_examples(blank),
        )
    grey = int(figures.grey.sum())
    if len(figures) and grey == len(figures):
        text = "all images are grey"
        yield Finding("images.grey", "note", split.name, grey, text, "nothing; grey becomes three equal channels")
    elif grey > MIXED * len(figures):
        text = f"{grey} of {len(figures)} images are grey, the others have colours"
        remedy = "nothing, where images to come are mixed likewise"
        examples = split.image_examples(figures.indices[figures.grey])
        yield Finding("images.grey", "note", split.name, grey, text, remedy, examples)
    yield from _swapped_within(split, figures)
    yield from _copies(split, similar_pairs(figures))


def check_together(splits: Sequence[Split], figures: Mapping[str, ImageFigures]) -> Iterator[Finding]:
    inspected = [split for split in splits if split.name in figures]
    for first, second in itertools.combinations(inspected, 2):
        yield from _leak(first, second, figures)
    for second in inspected[1:]:
        yield from _swapped(inspected[0], second, figures)


def _copies(split: Split, pairs: Pairs) -> Iterator[Finding]:
    same = connected_groups(pairs.first[pairs.exact], pairs.second[pairs.exact])
    if same:
        extra = sum(len(group) - 1 for group in same)
        yield Finding(
            "images.copies",
            "warning",
            split.name,
            extra,
            f"{counted(extra, 'image is a copy', 'images are copies')} of another, byte by byte",
            "keep one of each, with all its boxes",
            tuple(_named(split, group) for group in same[:EXAMPLES]),
        )
        hashes = box_set_hashes(split)
        apart = [group for group in same if len(set(hashes[group].tolist())) > 1]
        if apart:
            yield Finding(
                "images.copies-disagree",
                "error",
                split.name,
                len(apart),
                f"{counted(len(apart), 'image is', 'images are')} there more than once with different boxes",
                "keep one copy with all its boxes: in each, the objects of the others count as background",
                tuple(_named(split, group) for group in apart[:EXAMPLES]),
            )
    similar = connected_groups(pairs.first[~pairs.exact], pairs.second[~pairs.exact])
    if similar:
        n = sum(map(len, similar))
        yield Finding(
            "images.near-duplicates",
            "warning" if split.role in ("train", "trainval") and n > HARMLESS * len(split.data) else "note",
            split.name,
            n,
            f"{counted(n, 'image')} in {counted(len(similar), 'group')} are near-duplicates",
            "remove some where they are frames of a video; keep each group in one split",
            tuple(_named(split, group) for group in similar[:EXAMPLES]),
        )


def _named(split: Split, group: Sequence[int]) -> str:
    names = [split.data.image_name(i) for i in group[:4]]
    return " = ".join(names) + (f" and {len(group) - 4} more" if len(group) > 4 else "")


def _leak(first: Split, second: Split, figures: Mapping[str, ImageFigures]) -> Iterator[Finding]:
    """Images of the second split that are in the first split too."""
    pairs = similar_pairs(figures[second.name], figures[first.name])
    trained = first.role not in ("val", "test")
    listed_twice = set(first.names) & set(second.names)  # these are reported by split_checks
    for exact in (True, False):
        which = pairs.exact == exact
        if exact and listed_twice:
            which &= np.array([second.names[i] not in listed_twice for i in pairs.first.tolist()], np.bool_)
        if not exact:
            which &= ~np.isin(pairs.first, pairs.first[pairs.exact])
        rows = np.flatnonzero(which)
        if not len(rows):
            continue
        images, partners = np.unique(pairs.first[rows], return_counts=True)
        best = rows[np.lexsort((-pairs.similarity[rows], pairs.first[rows]))]
        best = best[np.concatenate([[True], np.diff(pairs.first[best]) > 0])]  # the most similar pair of each image
        names = tuple(
            f"{second.data.image_name(int(pairs.first[i]))} = {first.data.image_name(int(pairs.second[i]))}"
            + ("" if exact else f" (similarity {pairs.similarity[i]:.2f})")
            for i in best[:EXAMPLES]
        )
        n, share = len(images), percent(len(images), len(figures[second.name]))
        scene = not exact and (partners >= PARTNERS).sum() > SCENE * len(figures[second.name])
        if scene:
            text = f"{n} images ({share}) look like many of {first.name}: frames of one video, or a fixed camera"
            remedy = "put whole videos into one split; where a fixed camera sees other objects each time, nothing"
        else:
            one, many = ("is a copy of", "are copies of") if exact else ("looks nearly like", "look nearly like")
            verb = one if n == 1 else many
            harm = f"{second.name} does not test what is new" if trained else "the two test the same"
            text = f"{counted(n, 'image')} ({share}) {verb} one in {first.name}: {harm}"
            remedy = f"remove them from {first.name} or {second.name}"
        code = "splits.leak" if exact else "splits.near-leak"
        yield Finding(code, "error" if trained and not scene else "warning", second.name, n, text, remedy, names)


def _tint(figures: ImageFigures) -> NDArray[np.float64]:
    """(n,) red minus blue of the images that have colours: its sign changes when the two are swapped."""
    means = figures.means[~figures.grey].astype(np.float64)
    return means[:, 0] - means[:, 2]


def _swapped(first: Split, second: Split, figures: Mapping[str, ImageFigures]) -> Iterator[Finding]:
    """Grey images or swapped channels in one of two splits."""
    tints = [_tint(figures[split.name]) for split in (first, second)]
    grey = [float(figures[split.name].grey.mean()) if len(figures[split.name]) else 0.0 for split in (first, second)]
    if abs(grey[0] - grey[1]) > GREY_DIFFERENCE:
        yield Finding(
            "splits.grey-skew",
            "warning",
            second.name,
            int(figures[second.name].grey.sum()),
            f"{percent(grey[1])} of the images are grey, in {first.name} {percent(grey[0])}",
            "mix both in all splits, or make all of them grey",
        )
    if min(map(len, tints)) < COLOURED:
        return
    a, b = (tint.mean() for tint in tints)
    spread = max(1.0, float(np.sqrt(sum(tint.var() for tint in tints) / 2)))
    error = np.sqrt(sum(tint.var() / len(tint) for tint in tints))
    effect = abs(a - b) / spread
    if effect < EFFECT or abs(a - b) < 6 * error or abs(a + b) > MIRRORED * abs(a - b):
        return
    yield Finding(
        "images.channels",
        "error" if effect > SURE_EFFECT else "warning",
        second.name,
        len(tints[1]),
        f"red minus blue is {b:+.0f} on average and {a:+.0f} in {first.name}: the channels of one of the two seem to "
        "be swapped (BGR saved as RGB)",
        "look at images of both; save the wrong ones again, in OpenCV with cv2.cvtColor(image, cv2.COLOR_BGR2RGB)",
    )


def _swapped_within(split: Split, figures: ImageFigures) -> Iterator[Finding]:
    """Swapped channels in some images of a split."""
    tint = _tint(figures)
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
    coloured = figures.indices[~figures.grey]
    rare = coloured[tint <= 0] if len(low) <= len(high) else coloured[tint > 0]
    yield Finding(
        "images.channels",
        "warning",
        split.name,
        len(rare),
        f"{len(rare)} of {len(tint)} images have red and blue the other way round than the rest (red minus blue "
        f"{low.mean():+.0f} and {high.mean():+.0f}): their channels seem to be swapped",
        "look at them; save the wrong ones again with red first",
        split.image_examples(rare),
    )
