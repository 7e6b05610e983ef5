"""A listing held against its images: what is harmless is repaired, what is not is left out, all of it is reported."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.common.errors import RequestError
from retinanet.data import image_io
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import Listing, Meaning, shown
from retinanet.data.formats.path_matching import Locator

Array = NDArray[np.generic]
ROUNDING = 0.02
"""Boxes that stick out of their image by no more than this many pixels do so because coordinates were written with
few digits; they are clipped without being called a fault."""
TOGETHER = 32  # images that a thread looks at one after the other: handing over single ones takes as long again
USUAL = 0.98  # where so many boxes lie in their images, nobody asks whether their numbers mean something else
FRACTIONS = 1.5  # pixels: all boxes of a real data set do not end here
PIXELS = 2.0  # sides of the image: rounding and sloppy boxes stay below
Progress = Callable[[int, int], None]


@dataclass
class Checked:
    """Flat arrays of N sound images and the M sound boxes in them, the boxes in the order of the images."""

    paths: list[str]
    ids: NDArray[np.int64]  # (N,)
    sizes: NDArray[np.int32]  # (N, 2) height, width of the decoded image
    exif: NDArray[np.bool_]  # (N,) whether EXIF may turn the image
    offsets: NDArray[np.int64]  # (N + 1,) where each image's boxes start
    boxes: NDArray[np.float32]  # (M, 4)
    labels: NDArray[np.int32]  # (M,)
    crowds: NDArray[np.bool_]  # (M,)
    areas: NDArray[np.float64]  # (M,)
    places: NDArray[np.int32]  # (N,) each image's place in the listing
    references: NDArray[np.int64]  # (M,) by which the listing names each box


def check(listing: Listing, root: Path, report: Report, on_progress: Progress | None = None) -> Checked:
    _locate(listing, root, report)
    sizes, exif, turned = _check_images(listing, root, report, on_progress)
    if background := sum(int(sizes[i, 0]) > 0 for i in listing.unlabelled):
        report.notes.append(f"{background} images without {listing.sheet} are background")
    report.facts.turned = np.flatnonzero(turned[sizes[:, 0] > 0]).tolist()
    return _check_boxes(listing, sizes, exif, report)


def _locate(listing: Listing, root: Path, report: Report) -> None:
    """Find images that are on disk under another spelling of their name, where it is the name of no other."""
    claimed: set[str] = set()
    missing = []
    for i, path in enumerate(listing.paths):
        if os.path.lexists(path):  # a broken link is missing, not called otherwise
            claimed.add(path)
        else:
            missing.append(i)
    if not missing:
        return
    locator = Locator()
    located = {i: str(there) for i in missing if (there := locator.find_path(listing.paths[i]))}
    times = Counter(located.values())
    for i, path in located.items():
        if path not in claimed and times[path] == 1:
            report.add(RENAMED, "repaired", f"{shown(listing.paths[i], root)} is {shown(path, root)}")
            listing.paths[i] = path


def _check_images(
    listing: Listing, root: Path, report: Report, on_progress: Progress | None
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Sizes (N, 2) as decoded, 0 for images to leave out; whether EXIF is to be followed (N,); whether it turns."""
    total = len(listing.paths)
    declared = np.frombuffer(listing.sizes, np.int32).reshape(-1, 2)
    sizes = np.zeros((total, 2), np.int32)
    exif = np.ones(total, np.bool_)
    quarter = np.zeros(total, np.bool_)

    notes: dict[str, list[str]] = {}

    def look(path: str) -> tuple[int, int, bool] | image_io.ImageError:
        try:
            seen: list[str] = []
            size = image_io.header(path, seen)
            for note in seen:
                notes.setdefault(note, []).append(path)
            return size
        except image_io.ImageError as error:
            return error

    def look_at_some(start: int) -> list[tuple[int, int, bool] | image_io.ImageError]:
        return [look(path) for path in listing.paths[start : start + TOGETHER]]

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        parts = pool.map(look_at_some, range(0, total, TOGETHER))
        for i, found in enumerate(itertools.chain.from_iterable(parts)):
            if on_progress and (i + 1 == total or i % 256 == 255):
                on_progress(i + 1, total)
            if isinstance(found, image_io.ImageError):
                name = shown(listing.paths[i], root)
                if os.path.exists(listing.paths[i]):
                    report.add("unreadable image", "left out", f"{name}: {found.reason}")
                else:
                    dead = ": a link in a circle or to a file that is not there" * os.path.islink(listing.paths[i])
                    report.add("missing image", "left out", name + dead)
                continue
            stored, turned = found[:2], found[2]
            upright = stored[::-1] if turned else stored
            annotated = (int(declared[i, 0]), int(declared[i, 1]))
            if annotated[0] > 0 and annotated[1] > 0 and annotated != upright:
                name = shown(listing.paths[i], root)
                text = f"{name}: annotated {annotated[1]} x {annotated[0]}, the file is {upright[1]} x {upright[0]}"
                if annotated != stored:
                    report.add("size that disagrees with the file", "left out", text)
                    continue
                report.add("size before EXIF rotation, read unrotated", "repaired", text)
                upright, exif[i] = stored, False
            sizes[i], quarter[i] = upright, turned and exif[i]
    for note, paths in sorted(notes.items()):
        report.notes.append(f"{len(paths)} images: {note}, such as {shown(min(paths), root)}")
    return sizes, exif, quarter


def _check_boxes(listing: Listing, sizes: NDArray[np.int32], exif: NDArray[np.bool_], report: Report) -> Checked:
    sound = sizes[:, 0] > 0
    owner = np.frombuffer(listing.images, np.int32)
    order = np.flatnonzero(sound[owner])
    order = order[np.argsort(owner[order], kind="stable")]
    owner = owner[order]
    boxes = np.frombuffer(listing.boxes, np.float64).reshape(-1, 4)[order]
    areas = np.frombuffer(listing.areas, np.float64)[order]
    limits = sizes[owner][:, [1, 0, 1, 0]].astype(np.float64)  # (M, 4): width, height, width, height
    with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite; it is reported below
        _note_facts(listing, boxes, limits, report)
    if listing.fractions:
        boxes *= limits

    keep = np.ones(len(boxes), np.bool_)

    def fault(kind: str, bad: NDArray[np.bool_] | np.bool_) -> None:
        bad = keep & bad
        keep[bad] = False
        _name(listing, order, owner, boxes, limits, report, kind, bad, "left out")

    clipped = np.clip(boxes, 0, limits)
    visible = clipped[:, 2:] - clipped[:, :2]
    final = clipped.astype(np.float32)
    fault("box with a coordinate that is not a finite number", ~np.isfinite(boxes).all(axis=1))
    fault("box of no area", (boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
    fault("box outside the image", (visible <= 0).any(axis=1))
    fault("box of no area", (final[:, 2:] <= final[:, :2]).any(axis=1))  # thinner than float32 can tell
    excess = np.abs(boxes - clipped).max(1, initial=0)
    rounded = keep & (excess > 0) & (excess <= ROUNDING)
    if rounded.any():
        report.notes.append(f"{rounded.sum()} boxes up to {ROUNDING} pixels outside the image, by rounding, clipped")
    partly = keep & (excess > ROUNDING)
    _name(listing, order, owner, boxes, limits, report, "box partly outside the image, clipped", partly, "repaired")

    places = np.flatnonzero(sound)
    counts = np.bincount(owner[keep], minlength=len(sizes))[places]
    plain = np.prod(visible, 1)
    return Checked(
        paths=[listing.paths[i] for i in places],
        ids=np.array(listing.ids, np.int64)[places],
        sizes=sizes[places],
        exif=exif[places],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=final[keep],
        labels=np.frombuffer(listing.labels, np.int32)[order][keep],
        crowds=np.frombuffer(listing.crowds, np.int8)[order][keep].astype(np.bool_),
        areas=np.where(np.isfinite(areas) & (areas > 0), areas, plain)[keep],
        places=places.astype(np.int32),
        references=np.frombuffer(listing.references, np.int64)[order][keep],
    )


def _note_facts(listing: Listing, boxes: NDArray[np.float64], limits: NDArray[np.float64], report: Report) -> None:
    """What the boxes (M, 4) say as they are written, in units of the image's sides where the layout has those."""
    facts = report.facts
    facts.boxes = len(boxes)
    if not len(boxes):
        return
    unit = limits / (limits if listing.fractions else 1)
    facts.fitting = {listing.meaning: _fitting(boxes, unit)}
    if listing.fractions:
        facts.pixels = int((np.abs(boxes) > PIXELS).any(1).sum())
    else:
        facts.fractional = int(((boxes[:, 2:] <= FRACTIONS) & (limits[:, :2] >= 16)).all(1).sum())
    finite = boxes[:, 2:][np.isfinite(boxes).all(1)] / unit[np.isfinite(boxes).all(1), :2]
    if len(finite):
        right, down = np.quantile(finite, 0.995, axis=0)
        facts.reach = (float(right), float(down))
    if facts.fitting[listing.meaning] >= USUAL * len(boxes):
        return
    low, high = boxes[:, :2], boxes[:, 2:]
    numbers = {
        "corners": (low, high),
        "corner and sides": (low, high - low),
        "centre and sides": ((low + high) / 2, high - low),
    }
    first, second = numbers[listing.meaning]
    readings: dict[Meaning, tuple[Array, Array]] = {
        "corners": (first, second),
        "corner and sides": (first, first + second),
        "centre and sides": (first - second / 2, first + second / 2),
    }
    for meaning, corners in readings.items():
        facts.fitting[meaning] = _fitting(np.concatenate(corners, 1), unit)


def _fitting(boxes: NDArray[np.float64], unit: NDArray[np.float64]) -> int:
    """How many boxes have an area and lie in their image, give or take a hundredth of its side."""
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, :2] >= -0.01 * unit[:, :2]) & (boxes[:, 2:] <= 1.01 * unit[:, :2])
        return int((inside & (boxes[:, 2:] > boxes[:, :2])).all(1).sum())


def _name(
    listing: Listing,
    order: NDArray[np.intp],
    owner: NDArray[np.int32],
    boxes: NDArray[np.float64],
    limits: NDArray[np.float64],
    report: Report,
    kind: str,
    bad: NDArray[np.bool_],
    action: str,
) -> None:
    for i in np.flatnonzero(bad):

        def example(i: int = int(i)) -> str:
            where = listing.box_name(int(owner[i]), listing.references[order[i]])
            x1, y1, x2, y2 = (f"{value:.10g}" for value in boxes[i])
            return f"{where}: {x1} {y1} {x2} {y2} in {limits[i, 0]:.0f} x {limits[i, 1]:.0f} pixels"

        report.add(kind, "repaired" if action == "repaired" else "left out", example)


def require_some(checked: Checked, listing: Listing, where: str, report: Report) -> None:
    """Refuse a split in which no image is left."""
    if not checked.paths:
        if not (reason := report.reason()):
            raise RequestError(f"{where} lists no images")
        of = f" of {len(listing.paths)}" if listing.paths else ""
        raise RequestError(f"{where} has no usable image{of}: {reason}")
