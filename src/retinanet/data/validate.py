"""Checks a listing against its images. Harmless faults are repaired, what cannot be used is left out."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.common.errors import RequestError
from retinanet.data import image_io
from retinanet.data.annotations import Annotations, packed_paths
from retinanet.data.faults import RENAMED, Action, Report
from retinanet.data.formats.listing import Listing, Meaning, shown
from retinanet.data.formats.path_matching import Locator

ROUNDING = 0.02
"""Pixels. A box may stick out of its image by this much because its coordinates were written with few digits. It is
clipped, which is not called a fault."""
FLOAT_NOISE = 1e-9  # pixels: x + width in float64 may pass the edge by this much, which is not worth a note
CHUNK = 32  # images that a thread inspects in one go: handing over single images takes as long again
USUAL = 0.98  # where this share of the boxes lies in the images, their numbers certainly mean what the layout says
FRACTIONS = 1.5  # pixels: the boxes of a real data set do not all end before this
PIXELS = 2.0  # image sides: rounding errors and sloppy boxes stay below
Progress = Callable[[int, int], None]
Header = tuple[int, int, bool]  # height and width as stored, and whether EXIF swaps them


def check(listing: Listing, root: Path, report: Report, on_progress: Progress | None = None) -> Annotations:
    """The images and boxes of a listing that can be used; everything else is added to ``report``."""
    _locate(listing, root, report)
    sizes, exif, turned = _check_images(listing, root, report, on_progress)
    if background := sum(int(sizes[i, 0]) > 0 for i in listing.unlabelled):
        report.notes.append(f"{background} images without {listing.sheet} are background")
    report.facts.turned = np.flatnonzero(turned[sizes[:, 0] > 0]).tolist()
    return _check_boxes(listing, sizes, exif, report)


def _locate(listing: Listing, root: Path, report: Report) -> None:
    """Correct the paths of images whose names are spelled differently on disk, unless that is another image's name."""
    claimed: set[str] = set()
    missing = []
    for i, path in enumerate(listing.paths):
        if os.path.lexists(path):  # a broken link counts as missing, not as renamed
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
    """Read the header of every image.

    Returns:
        (N, 2) height and width as decoded, 0 for images to leave out; (N,) whether EXIF is to be followed; (N,) whether
        it swaps height and width.
    """
    total = len(listing.paths)
    declared = np.frombuffer(listing.sizes, np.int32).reshape(-1, 2).tolist()
    sizes = np.zeros((total, 2), np.int32)
    exif = np.ones(total, np.bool_)
    swapped = np.zeros(total, np.bool_)
    notes: dict[str, list[str]] = {}
    for i, header in enumerate(_headers(listing.paths, notes)):
        if on_progress and (i + 1 == total or i % 256 == 255):
            on_progress(i + 1, total)
        path, name = listing.paths[i], shown(listing.paths[i], root)
        if isinstance(header, image_io.ImageError):
            if os.path.exists(path):
                report.add("unreadable image", "left out", f"{name}: {header.reason}")
            else:
                dead = ": a link in a circle or to a file that is not there" * os.path.islink(path)
                report.add("missing image", "left out", name + dead)
            continue
        stored, turned = header[:2], header[2]
        upright = stored[::-1] if turned else stored
        annotated = tuple(declared[i])
        if min(annotated) > 0 and annotated != upright:
            text = f"{name}: annotated {annotated[1]} x {annotated[0]}, the file is {upright[1]} x {upright[0]}"
            if annotated != stored:
                report.add("size that disagrees with the file", "left out", text)
                continue
            report.add("size before EXIF rotation, read unrotated", "repaired", text)
            upright, exif[i] = stored, False
        sizes[i], swapped[i] = upright, turned and exif[i]
    for note, paths in sorted(notes.items()):
        report.notes.append(f"{len(paths)} images: {note}, such as {shown(min(paths), root)}")
    return sizes, exif, swapped


def _headers(paths: list[str], notes: dict[str, list[str]]) -> Iterator[Header | image_io.ImageError]:
    """The header of each image, or the reason why it cannot be read, in order; read by threads.

    Args:
        notes: gets for each remark of the reader the paths that it is about.
    """

    def read_header(path: str) -> Header | image_io.ImageError:
        remarks: list[str] = []
        try:
            header = image_io.header(path, remarks)
        except image_io.ImageError as error:
            return error
        for remark in remarks:
            notes.setdefault(remark, []).append(path)
        return header

    def read_chunk(start: int) -> list[Header | image_io.ImageError]:
        return [read_header(path) for path in paths[start : start + CHUNK]]

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        yield from itertools.chain.from_iterable(pool.map(read_chunk, range(0, len(paths), CHUNK)))


def _check_boxes(listing: Listing, sizes: NDArray[np.int32], exif: NDArray[np.bool_], report: Report) -> Annotations:
    usable = sizes[:, 0] > 0
    image = np.frombuffer(listing.images, np.int32)
    order = np.flatnonzero(usable[image])
    order = order[np.argsort(image[order], kind="stable")]
    image = image[order]
    references = np.frombuffer(listing.references, np.int64)[order]
    boxes = np.frombuffer(listing.boxes, np.float64).reshape(-1, 4)[order]
    limits = sizes[image][:, [1, 0, 1, 0]].astype(np.float64)  # (M, 4): width, height, width, height
    with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not finite are reported below
        _note_facts(listing, boxes, limits, report)
    if listing.fractions:
        boxes *= limits

    def example(i: int) -> str:
        where = listing.box_name(int(image[i]), int(references[i]))
        x1, y1, x2, y2 = (f"{value:.10g}" for value in boxes[i])
        return f"{where}: {x1} {y1} {x2} {y2} in {limits[i, 0]:.0f} x {limits[i, 1]:.0f} pixels"

    def add(kind: str, action: Action, which: NDArray[np.bool_]) -> None:
        for i in np.flatnonzero(which).tolist():
            report.add(kind, action, partial(example, i))

    keep = np.ones(len(boxes), np.bool_)
    clipped = np.clip(boxes, 0, limits)
    visible = clipped[:, 2:] - clipped[:, :2]
    final = clipped.astype(np.float32)
    for kind, bad in (
        ("box with a coordinate that is not a finite number", ~np.isfinite(boxes).all(axis=1)),
        ("box of no area", (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)),
        ("box outside the image", (visible <= 0).any(axis=1)),
        ("box of no area", (final[:, 2:] <= final[:, :2]).any(axis=1)),  # thinner than float32 can tell
    ):
        add(kind, "left out", keep & bad)
        keep &= ~bad
    excess = np.abs(boxes - clipped).max(1, initial=0)
    rounded = keep & (excess > FLOAT_NOISE) & (excess <= ROUNDING)
    if rounded.any():
        report.notes.append(f"{rounded.sum()} boxes up to {ROUNDING} pixels outside the image, by rounding, clipped")
    add("box partly outside the image, clipped", "repaired", keep & (excess > ROUNDING))

    listed = np.flatnonzero(usable)
    counts = np.bincount(image[keep], minlength=len(sizes))[listed]
    areas = np.frombuffer(listing.areas, np.float64)[order]
    path_bytes, path_offsets = packed_paths([listing.paths[i] for i in listed])
    return Annotations(
        path_bytes=path_bytes,
        path_offsets=path_offsets,
        ids=np.array(listing.ids, np.int64)[listed],
        sizes=sizes[listed],
        exif=exif[listed],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=final[keep],
        labels=np.frombuffer(listing.labels, np.int32)[order][keep],
        crowds=np.frombuffer(listing.crowds, np.int8)[order][keep].astype(np.bool_),
        areas=np.where(np.isfinite(areas) & (areas > 0), areas, np.prod(visible, 1))[keep],
        listed=listed.astype(np.int32),
        references=references[keep],
    )


def _note_facts(listing: Listing, boxes: NDArray[np.float64], limits: NDArray[np.float64], report: Report) -> None:
    """Add to ``report.facts`` what the boxes (M, 4), as corners, tell about how the files write them.

    Args:
        boxes: as fractions of the image's sides where the layout has fractions, else in pixels.
    """
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
    finite = np.isfinite(boxes).all(1)
    if finite.any():
        right, down = np.quantile(boxes[finite, 2:] / unit[finite, :2], 0.995, axis=0)
        facts.reach = (float(right), float(down))
    if facts.fitting[listing.meaning] >= USUAL * len(boxes):
        return
    low, high = boxes[:, :2], boxes[:, 2:]
    written = {
        "corners": (low, high),
        "corner and sides": (low, high - low),
        "centre and sides": ((low + high) / 2, high - low),
    }
    first, second = written[listing.meaning]
    readings: dict[Meaning, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
        "corners": (first, second),
        "corner and sides": (first, first + second),
        "centre and sides": (first - second / 2, first + second / 2),
    }
    for meaning, corners in readings.items():
        facts.fitting[meaning] = _fitting(np.concatenate(corners, 1), unit)


def _fitting(boxes: NDArray[np.float64], unit: NDArray[np.float64]) -> int:
    """How many boxes have an area and lie in their image, with a tolerance of a hundredth of its sides."""
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, :2] >= -0.01 * unit[:, :2]) & (boxes[:, 2:] <= 1.01 * unit[:, :2])
        return int((inside & (boxes[:, 2:] > boxes[:, :2])).all(1).sum())


def require_images(annotations: Annotations, listing: Listing, where: str, report: Report) -> None:
    """
    Raises:
        RequestError: no image is left in the split.
    """
    if not len(annotations.ids):
        if not (reason := report.reason()):
            raise RequestError(f"{where} lists no images")
        of = f" of {len(listing.paths)}" if listing.paths else ""
        raise RequestError(f"{where} has no usable image{of}: {reason}")
