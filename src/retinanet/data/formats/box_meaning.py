"""Decides how the numbers of boxes are meant, where tools differ: corners or sides, pixels or fractions."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from retinanet.data import image_io
from retinanet.data.faults import Report
from retinanet.data.formats.listing import Listing

SURE = 0.05  # share of boxes that leave their image: a few do by mistake
TOLERANCE = 1.01  # image sides
FRACTIONS = 1.5  # boxes whose numbers are all below are fractions of the image's sides
OPENED = 200  # images whose size is read, where the files do not give it


def settle(listing: Listing, written: array[float], file: str, report: Report) -> None:
    """Turn the boxes of a whole split into corners.

    Args:
        listing: has the boxes, but not their numbers; :attr:`Listing.meaning` is what is expected.
        written: four numbers of each box.
        file: as messages name it.
    """
    numbers = np.frombuffer(written, np.float64).reshape(-1, 4)
    if not len(numbers):
        return
    known = numbers[np.isfinite(numbers).all(1)]  # a box that is not four numbers is reported when it is checked
    if len(known) and (np.abs(known) <= FRACTIONS).all() and (known != np.round(known)).any():
        listing.fractions = True
        report.notes.append(f"boxes of {file} are read as fractions of the image's sides: all are about 0 to 1")
    if listing.meaning == "corner and sides":
        limits = np.ones((len(numbers), 2)) if listing.fractions else _limits(listing)
        if are_corners(numbers, limits):
            listing.meaning = "corners"
            report.notes.append(f"boxes of {file} are read as x1, y1, x2, y2: as x, y, w, h they leave the images")
    first, second = numbers[:, :2], numbers[:, 2:]
    corners = {
        "corners": (first, second),
        "corner and sides": (first, first + second),
        "centre and sides": (first - second / 2, first + second / 2),
    }[listing.meaning]
    listing.boxes = array("d", np.concatenate(corners, 1).tobytes())


def are_corners(numbers: NDArray[np.float64], limits: NDArray[np.float64]) -> bool:
    """Whether boxes can only be corners: as x y w h several leave their image, as x1 y1 x2 y2 all fit.

    Args:
        numbers: (n, 4) the boxes as written.
        limits: (n, 2) width and height of their images; 0 where unknown.
    """
    known = np.isfinite(numbers).all(1) & (limits > 0).all(1)
    numbers, limits = numbers[known], limits[known] * TOLERANCE
    if not len(numbers):
        return False
    first, second = numbers[:, :2], numbers[:, 2:]
    leaving = (first + second > limits).any(1).mean()
    return bool(leaving >= SURE and ((first < second) & (second <= limits)).all())


def _limits(listing: Listing) -> NDArray[np.float64]:
    """(n, 2) width and height of the image of each box, as annotated, else as some of the files say; else 0."""
    sizes = np.frombuffer(listing.sizes, np.int32).reshape(-1, 2).astype(np.float64)
    images = np.frombuffer(listing.images, np.int32)
    unknown = [i for i in np.unique(images).tolist() if not sizes[i].all()]
    for i in unknown[:: max(1, len(unknown) // OPENED)]:
        try:
            height, width, swapped = image_io.header(listing.paths[i])
        except image_io.ImageError:  # reported when it is opened
            continue
        sizes[i] = (width, height) if swapped else (height, width)
    return sizes[images][:, ::-1]
