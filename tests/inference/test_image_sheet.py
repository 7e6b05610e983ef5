"""Sheets of images: what stands where, by its pixels."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from retinanet.inference.class_colours import PALETTE
from retinanet.inference.image_sheet import PAPER, Row, sheet

GREY = (90, 90, 90)  # in no palette


def grey(width=320, height=240):
    return Image.new("RGB", (width, height), GREY)


def where(image, rgb):
    """(H, W) bool: the pixels of a colour."""
    return (np.asarray(image) == rgb).all(axis=-1)


@pytest.mark.parametrize("name", ["two\nlines", "日本語", "file\udcff.jpg", "\x00", "x" * 300])
def test_odd_names_are_written(name):
    sheet([Row(grey(), ([[0, 0, 5, 5]], [name]), ([], [], None), name)])


def row(width=40, height=30, rgb=(200, 60, 60), title=""):
    image = np.full((height, width, 3), rgb, np.uint8)
    return Row(image, ([], []), ([], [], None), title)


def panels(page, rgb):
    """left, top, right, bottom of the pixels of an image, one area a panel."""
    mask = where(page, rgb)
    halves = (mask[:, : page.width // 2], mask[:, page.width // 2 :])
    boxes = [Image.fromarray(half).getbbox() for half in halves]
    shift = page.width // 2
    left, right = boxes
    return left, (right[0] + shift, right[1], right[2] + shift, right[3])


@pytest.mark.parametrize(
    ("size", "panel"),
    [
        ((40, 30), (560, 420)),
        ((1120, 560), (560, 280)),
        ((40, 40), (560, 560)),
        ((30, 40), (420, 560)),
        ((3000, 1), (560, 1)),  # very wide
        ((1, 3000), (1, 560)),  # very tall
        ((1, 1), (560, 560)),
    ],
)
def test_a_image_is_scaled_into_its_panels(size, panel):
    """Both panels are the same, and centred where the image is tall."""
    page = sheet([row(*size)])
    left, right = panels(page, (200, 60, 60))
    for x1, y1, x2, y2 in (left, right):
        assert (x2 - x1, y2 - y1) == panel
        assert page.getpixel((x1, y2)) == PAPER
    assert left[0] == 28 + (560 - panel[0]) // 2
    assert right[0] - left[0] == 560 + 14
    assert left[1] == right[1]
    assert page.size == (2 * 560 + 14 + 2 * 28, left[3] + 28)


@pytest.mark.parametrize("width", [100, 280])
def test_the_width_of_a_panel(width):
    left, right = panels(sheet([row()], width=width), (200, 60, 60))
    assert left[2] - left[0] == right[2] - right[0] == width


def test_rows_follow_each_other_up_to_the_limit():
    def images():
        for number in itertools.count():
            assert number < 3, "an image beyond the limit is read"
            yield row(rgb=(200, 10 * number, 60))

    page = sheet(images(), limit=3)
    places = [panels(page, (200, 10 * number, 60))[0] for number in range(3)]
    assert [bottom - top for _, top, _, bottom in places] == [420] * 3
    assert places[0][3] < places[1][1]
    assert places[1][3] < places[2][1]
    assert places[1][1] - places[0][1] == places[2][1] - places[1][1]
    one = sheet([row()])
    assert page.height == one.height + places[2][1] - places[0][1]
    assert sheet([row()] * 20).height == sheet([row()] * 8).height


def test_truth_is_left_and_found_is_right_in_the_pixels_of_the_image():
    names = ["cat", "dog"]
    truth, found = ([[4, 10, 20, 25]], ["cat"]), (torch.tensor([[10.0, 10, 30, 25]] * 2), ["dog"] * 2, [0.9, 0.4])
    page = sheet([Row(np.full((30, 40, 3), 90, np.uint8), truth, found)], class_names=names)
    scale = 14  # 560 / 40
    for panel, rgb, other, box in zip(panels(page, GREY), PALETTE, PALETTE[1::-1], ((4, 25, 20), (10, 25, 30))):
        image = np.asarray(page.crop(panel))
        assert image.shape == (420, 560, 3)
        below = where(image, rgb)[350 - 2]
        assert np.flatnonzero(below)[[0, -1]].tolist() == [box[0] * scale, box[2] * scale - 1]
        assert not where(image, other).any()


def test_headings(monkeypatch):
    """What is on a panel and how much of it, and the file's name, of a long one the end that fits."""
    seen = []
    text = ImageDraw.ImageDraw.text

    def note(self, place, words, font, anchor, **options):
        seen.append((words, self.textbbox(place, words, font=font, anchor=anchor)))
        text(self, place, words, font=font, anchor=anchor, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    long = "folder/" * 40 + "image.jpg"
    one = Row(grey(), ([[0, 0, 9, 9]] * 12, ["a"] * 12), ([], [], None), long)
    sheet([one])
    headings = {words: box for words, box in seen if words != "a"}
    (title,) = headings.keys() - {"ground truth", "12", "detections", "0"}
    assert len(headings) == 5
    assert title[0] == "…"
    assert long.endswith(title[1:])
    assert len(title) > 30
    assert headings["12"][2] < headings[title][0]
    assert headings[title][2] <= 28 + 560
    seen.clear()
    sheet([row(title="short.jpg"), row()])
    assert [words for words, _ in seen].count("short.jpg") == 1
    assert len(seen) == 9


@pytest.mark.parametrize(("rows", "limit"), [([], 8), ([row()], 0)])
def test_a_sheet_of_nothing(rows, limit):
    with pytest.raises(ValueError, match=r"^a sheet needs at least one image$"):
        sheet(rows, limit=limit)
