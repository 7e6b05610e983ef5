"""A share of the only split, held out for validation: the same images whenever the data set is opened again.

Classes have their share of both sides, and near-duplicates stay on one side (:mod:`retinanet.analysis.splitting`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.analysis.near_duplicates import inspect_images
from retinanet.analysis.splitting import duplicate_groups, one_sided, split
from retinanet.common.errors import RequestError
from retinanet.common.printable import listed
from retinanet.data.dataset import DetectionData, open_data
from retinanet.data.faults import Report
from retinanet.data.formats.split_folders import plain_name
from retinanet.data.layouts import find_layout
from retinanet.data.validate import Progress

SHARE = 0.2  # of the images, where the user gives no share
COMPARED = 20_000  # images; comparing more for near-duplicates would take minutes
FAR = 0.25  # of the wanted share; if the held-out one differs by more, a note says why
CLASSES = 5  # in a message


@dataclass(frozen=True)
class HoldOut:
    """Which images of a split are held out; the same values give the same images."""

    split: str
    share: float
    """Of the images, above 0 and below 1."""
    seed: int
    images: int
    """Number of images of the whole split: with more or fewer, others would be held out."""
    digest: str = ""
    """Of the names of the held-out images: the labels and the content of images have a part in the choice."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def share_of(val: str) -> float | None:
    """The share that a name of a validation split such as "0.2" stands for; None where it is a name."""
    try:
        return float(val) if "." in val else None
    except ValueError:
        return None


def wanted_share(root: str | Path, val: str) -> float | None:
    """The share of the training split to hold out as ``val``; None where ``val`` is a split of its own.

    A data set with one split has no other images to validate on, so a share of them is held out.
    """
    if (share := share_of(val)) is not None:
        return share
    layout = find_layout(root)
    alone = layout.any_split or len(layout.counts) == 1
    has_val = not layout.any_split and "val" in map(plain_name, layout.counts)
    return SHARE if alone and not has_val and plain_name(val) == "val" else None


def open_held_out(
    root: str | Path,
    name: str,
    share: float,
    seed: int,
    *,
    strict: bool = False,
    class_names: Sequence[str] | None = None,
    on_progress: Progress | None = None,
    on_compare: Progress | None = None,
) -> tuple[DetectionData, DetectionData]:
    """Open one split as two: a training set, and a validation set of ``share`` of its images.

    Args:
        name: of the split on disk.
        on_progress, on_compare: called with (done, all images) while images are checked and compared.

    Returns:
        The training set and the validation set. Notes in the reports of both say how they were divided.

    Raises:
        RequestError: the data set cannot be used, or cannot be divided.
    """
    data = open_data(root, name, strict=strict, class_names=class_names, on_progress=on_progress)
    if not 0 < share < 1:
        raise RequestError(f"the share of images to validate on is {share:g}: give one above 0 and below 1")
    groups, notes = None, [f"seed {seed}"]
    if len(data) > COMPARED:
        notes.append(f"near-duplicates are not searched among more than {COMPARED} images")
    elif len(data) > 1:
        groups = duplicate_groups(inspect_images(data, on_progress=on_compare))
        sizes = np.unique(groups, return_counts=True)[1]
        if len(sizes) == 1:
            groups = None
            notes.append("all images are near-duplicates, as frames of one video, so AP says little about new images")
        elif (sizes > 1).any():
            notes.append(f"{sizes[sizes > 1].sum()} near-duplicates kept together in {(sizes > 1).sum()} groups")
    train, val = split(data, 1 - share, seed, groups)
    share_held = len(val) / len(data)
    if groups is not None and abs(share_held - share) > FAR * share:
        notes.append("near-duplicates that stay together allow no nearer share")
    if alone := one_sided(data, train, val):
        notes.append(f"all images with {listed(alone, CLASSES)} are on one side")
    text = f"{len(val)} of {len(data)} images are held out for validation ({share_held:.0%}, classes balanced, "
    data.report.notes.append(text + "; ".join(notes) + ")")
    held = data.subset(val, "held out", Report(notes=[f"{len(val)} of {len(data)} images of split {data.split}"]))
    held.held_out = HoldOut(data.split, share, seed, len(data), _digest(held)).plain()
    return data.subset(train, data.split, data.report), held


def _digest(held: DetectionData) -> str:
    names = "\n".join(held.path(i).name for i in range(len(held)))
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def open_again(
    root: str | Path,
    about: Mapping[str, Any],
    class_names: Sequence[str],
    on_progress: Progress | None = None,
    *,
    strict: bool = False,
) -> DetectionData:
    """The images that a run held out for validation.

    Args:
        about: ``held_out`` of the run's validation set, which its checkpoints contain.
        strict: refuse a data set with any fault.

    Raises:
        RequestError: the data set has changed, so others would be held out.
    """
    before = HoldOut(**about)
    _, held = open_held_out(
        root,
        before.split,
        before.share,
        before.seed,
        strict=strict,
        class_names=class_names,
        on_progress=on_progress,
        on_compare=on_progress,
    )
    now = HoldOut(**(held.held_out or {}))
    if now == before or (not before.digest and now.images == before.images):
        return held
    changed = f"has {now.images} images, and had {before.images} in training"
    if now.images == before.images:
        changed = "has other images or labels than in training"
    raise RequestError(
        f"{root} {changed}: which images were held out for validation can no longer be told; name a split with "
        "--split, or validate on images of their own"
    )
