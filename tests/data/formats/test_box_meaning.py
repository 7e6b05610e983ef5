"""Corners against corner and sides, pixels against fractions."""

from array import array

import numpy as np
import pytest

from retinanet.data.faults import Report
from retinanet.data.formats.box_meaning import are_corners, settle
from retinanet.data.formats.listing import Listing


def random_boxes(count, low=1, high=60):
    """(n, 4) corners in images of 100 x 80."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(low, high, (count, 2))
    first = rng.uniform(0, 1, (count, 2)) * (np.array([100, 80]) - sides)
    return np.concatenate([first, first + sides], 1)


LIMITS = np.tile([100.0, 80.0], (50, 1))


def test_corners_are_told_from_sides():
    corners = random_boxes(50)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    assert are_corners(corners, LIMITS)
    assert not are_corners(sides, LIMITS)


def test_a_sloppy_box_does_not_turn_sides_into_corners():
    corners = random_boxes(50)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    sides[:10, 2] = 200  # far over the edge
    assert not are_corners(sides, LIMITS)


@pytest.mark.parametrize("limits", [np.zeros((50, 2)), LIMITS[:0]])
def test_without_sizes_nothing_is_changed(limits):
    assert not are_corners(random_boxes(len(limits)), limits)


@pytest.mark.parametrize("meaning", ["corners", "corner and sides", "centre and sides"])
@pytest.mark.parametrize("scale", [1, 0.01])
def test_all_meanings_become_corners(meaning, scale):
    corners = random_boxes(50) * scale
    first, second = corners[:, :2], corners[:, 2:]
    written = {
        "corners": corners,
        "corner and sides": np.concatenate([first, second - first], 1),
        "centre and sides": np.concatenate([(first + second) / 2, second - first], 1),
    }[meaning]
    listing, report = Listing(["a"], [0], lambda *_: ""), Report()
    listing.meaning = meaning
    image = listing.add_image("a.png", 1, (80, 100))
    for _ in corners:
        listing.add_box(image, (0, 0, 0, 0), 0, 0)
    settle(listing, array("d", written.ravel()), "a.csv", report)
    assert np.allclose(np.array(listing.boxes).reshape(-1, 4), corners)
    assert listing.fractions == (scale < 1)
    assert len(report.notes) == (scale < 1)


def test_a_broken_box_does_not_turn_fractions_into_pixels():
    numbers = [[0.1, 0.2, 0.5, 0.6], [float("nan"), 0, 1, 1], [0.5, 0.5, 1.0, 1.0]]
    listing = Listing(["a"], [0], lambda *_: "")
    image = listing.add_image("a.png", 1, (80, 100))
    for _ in numbers:
        listing.add_box(image, (0, 0, 0, 0), 0, 0)
    settle(listing, array("d", np.ravel(numbers)), "a.parquet", Report())
    assert listing.fractions
