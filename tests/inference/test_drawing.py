"""What is drawn, by its pixels: frames on their boxes, labels inside the image, one colour a class."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from retinanet.inference.drawing import DARK, PALETTE, PAPER, Row, colour, draw_boxes, sheet

GREY = (90, 90, 90)  # in no palette


def grey(width=320, height=240):
    return Image.new("RGB", (width, height), GREY)


def where(image, rgb):
    """(H, W) bool: the pixels of a colour."""
    return (np.asarray(image) == rgb).all(axis=-1)


@pytest.fixture
def labels(monkeypatch):
    """The labels drawn: their text, their area, and the area of the letters, each left, top, right, bottom."""
    seen, areas = [], []
    rectangle, text = ImageDraw.ImageDraw.rectangle, ImageDraw.ImageDraw.text

    def note_rectangle(self, area, fill=None, **options):
        if fill is not None:
            areas.append((area[0], area[1], area[2] + 1, area[3] + 1))
        rectangle(self, area, fill=fill, **options)

    def note_text(self, place, words, font, anchor, **options):
        seen.append((words, areas[-1], self.textbbox(place, words, font=font, anchor=anchor)))
        text(self, place, words, font=font, anchor=anchor, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", note_rectangle)
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note_text)
    return seen


# --------------------------------------------------------------------------------------------------------- frames


def test_a_frame_lies_on_its_box_with_a_dark_edge_on_both_sides():
    pixels = np.asarray(draw_boxes(grey(), [[100, 120, 200.0, 180.5]], ["cat"], line=3))
    row, column = pixels[150], pixels[:, 190]  # through the middle, and beside the label
    for place in (slice(100, 103), slice(197, 200)):  # pixel 199 is the last before x = 200
        assert (row[place] == PALETTE[0]).all()
    for place in (slice(120, 123), slice(178, 181)):  # a pixel that the box reaches into counts
        assert (column[place] == PALETTE[0]).all()
    assert (row[[99, 103, 196, 200]] == DARK).all()
    assert (column[[119, 123, 177, 181]] == DARK).all()
    assert (row[[98, 104, 150, 195, 201]] == GREY).all()
    assert (column[[118, 124, 150, 176, 182]] == GREY).all()


@pytest.mark.parametrize(
    ("box", "frame"),
    [
        ((-50, -60, 30, 60), (0, 0, 30, 60)),
        ((260, 180, 900, 900), (260, 180, 320, 240)),
        ((0, 0, 320, 240), (0, 0, 320, 240)),
        ((-1e9, -1e9, 1e9, 1e9), (0, 0, 320, 240)),
        ((160, 120, 163, 123), (160, 120, 163, 123)),
        ((-50, -40, -10, -20), (0, 0, 1, 1)),  # outside: shown at the edge
        ((400, 300, 450, 330), (319, 239, 320, 240)),
        ((100, 300, 140, 330), (100, 239, 140, 240)),
        ((90, 60, 50, 100), (90, 60, 91, 100)),  # right before left
    ],
)
def test_the_part_of_a_box_in_the_image_is_framed(labels, box, frame):
    image = draw_boxes(grey(), [box], ["cat"], line=1)
    assert image.size == (320, 240)
    x1, y1, x2, y2 = frame
    expected = np.zeros((240, 320), bool)
    expected[y1:y2, x1:x2] = True
    expected[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = False
    ((_, (left, top, right, bottom), _),) = labels
    free = np.ones((240, 320), bool)
    free[top:bottom, left:right] = False  # where no label lies
    assert (where(image, PALETTE[0])[free] == expected[free]).all()
    touched = ~where(image, GREY) & free
    near = np.zeros((240, 320), bool)
    near[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
    assert (near | ~touched).all()


@pytest.mark.parametrize(("line", "reach"), [(1, 2), (None, 3), (9, 12)])
@pytest.mark.parametrize("box", [(160, 120, 161, 121), (160, 120, 160, 120), (160.2, 120.2, 160.7, 120.7)])
def test_a_box_of_a_pixel_leaves_a_mark_no_larger_than_its_line(labels, box, line, reach):
    image = draw_boxes(grey(), [box], ["cat"], line=line)
    assert where(image, PALETTE[0])[120, 160]
    free = ~where(image, GREY)
    ((_, (left, top, right, bottom), _),) = labels
    free[top:bottom, left:right] = False
    y, x = np.nonzero(free)
    assert max(abs(x - 160).max(), abs(y - 120).max()) <= reach


def test_lines_grow_with_the_image():
    def thickness(size):
        image = draw_boxes(grey(size, size), [[size // 4, size // 4, size // 2, size // 2]], ["cat"])
        return int(where(image, PALETTE[0])[size * 3 // 8, : size * 3 // 8].sum())

    assert [thickness(size) for size in (100, 640, 1600, 3200)] == [2, 2, 5, 10]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3), (12, 9), (7, 2000)])
@pytest.mark.parametrize("name", ["", "cat", "a very long name of a class"])
def test_images_smaller_than_a_label(size, name):
    source = grey(*size)
    image = draw_boxes(source, [[0, 0, *size], [-5, -5, 90, 90], [0, 0, 1, 1]], [name] * 3, [0.9, 0.5, 0.1])
    assert (image.size, image.mode) == (size, "RGB")
    assert not where(image, GREY).all()
    assert where(source, GREY).all()


def test_the_surest_is_on_top_and_nothing_found_changes_nothing():
    boxes, names = [[50, 60, 250, 200]] * 3, ["cat", "dog", "owl"]
    for scores in ([0.2, 0.9, 0.5], np.array([0.2, 0.9, 0.5]), torch.tensor([0.2, 0.9, 0.5])):
        image = draw_boxes(grey(), boxes, names, scores, class_names=names)
        assert image.getpixel((249, 130)) == PALETTE[1]
    for nothing in ((torch.zeros((0, 4)), [], torch.zeros(0)), ([], [])):
        assert draw_boxes(grey(), *nothing).tobytes() == grey().tobytes()


# --------------------------------------------------------------------------------------------------------- labels


CORNERS = list(itertools.product((-40, 0, 130, 262, 300, 400), (-40, 0, 95, 190, 220, 300)))


@pytest.mark.parametrize("name", ["cat", "two wörds, ż and more"])
def test_a_label_is_whole_wherever_its_box_lies(labels, name):
    for x, y in CORNERS:
        labels.clear()
        image = draw_boxes(grey(), [[x, y, x + 60, y + 50]], [name], [0.876])
        ((words, (left, top, right, bottom), letters),) = labels
        assert words == f"{name} 0.88"
        assert 0 <= left < letters[0]
        assert letters[2] < right <= 320
        assert 0 <= top <= letters[1]
        assert letters[3] <= bottom <= 240
        ends = [(left, top), (right - 1, top), (left, bottom - 1), (right - 1, bottom - 1)]
        assert [image.getpixel(end) for end in ends] == [DARK] * 4
        assert image.getpixel((left + 2, top + 2)) == PALETTE[0]
        # beside the part of the box that is in the image
        assert min(max(x, 0), 319) - 4 <= right
        assert left <= min(max(x + 60, 0), 319) + 4
        assert min(max(y, 0), 239) - 4 <= bottom
        assert top <= min(max(y + 50, 0), 239) + 4


def test_a_label_longer_than_the_image_keeps_its_beginning(labels):
    image = draw_boxes(grey(100, 80), [[30, 40, 60, 70]], ["cat" * 40])
    ((_, (left, _, right, _), letters),) = labels
    assert (left, right) == (0, 100)
    assert 0 < letters[0] < 10
    assert image.size == (100, 80)


def test_labels_do_not_hide_each_other_while_there_is_room(labels):
    draw_boxes(grey(), [[100, 80, 220, 180]] * 6, list("abcdef"), np.linspace(0.9, 0.4, 6))
    assert [words[0] for words, _, _ in labels] == list("abcdef")
    assert_readable([area for _, area, _ in labels])


def assert_readable(areas):
    """No two share more than an eighth of a label."""
    for a, b in itertools.combinations(areas, 2):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert max(0, width) * max(0, height) < (b[2] - b[0]) * (b[3] - b[1]) / 8


def test_in_a_crowd_the_surest_have_their_labels(labels):
    count = 60
    scores = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, count))
    draw_boxes(grey(), [[100, 80, 220, 180]] * count, [f"{score:.4f}" for score in scores], scores)
    shown = [float(words.split()[0]) for words, _, _ in labels]
    assert 3 <= len(shown) < count
    assert_readable([area for _, area, _ in labels])
    assert shown == pytest.approx(sorted(scores, reverse=True)[: len(shown)], abs=1e-4)


@pytest.mark.parametrize("pair", ["éè", "łŁ", "жщ", "βδ"])
def test_letters_beyond_english_are_not_all_one_box(pair):
    one, other = (draw_boxes(grey(), [[50, 60, 250, 200]], [letter]) for letter in pair)
    assert one.tobytes() != other.tobytes()


@pytest.mark.parametrize("name", ["two\nlines", "two\r\n lines", "\ttwo lines "])
def test_line_breaks_become_spaces(labels, name):
    draw_boxes(grey(), [[50, 60, 250, 200]], [name])
    sheet([Row(grey(), ([], []), ([], [], None), name)])
    assert labels[0][0] == labels[-1][0] == "two lines"


@pytest.mark.parametrize("name", ["日本語", "file\udcff.jpg", "\x00", "x" * 300])
def test_names_that_the_font_has_not(name):
    image = draw_boxes(grey(), [[50, 60, 250, 200]], [name])
    assert where(image, PALETTE[0]).any()
    sheet([Row(grey(), ([[0, 0, 5, 5]], [name]), ([], [], None), name)])


def test_letters_stand_out_from_every_colour(labels):
    for index in range(200):
        names = [str(i) for i in range(200)]
        image = draw_boxes(grey(), [[50, 60, 250, 200]], [names[index]], class_names=names)
        left, top, right, bottom = labels[-1][1]
        inside = np.asarray(image.convert("L"))[top + 1 : bottom - 1, left + 1 : right - 1].astype(int)
        assert inside.max() - inside.min() > 70


# -------------------------------------------------------------------------------------------------------- colours


def test_a_class_has_one_colour_in_every_image():
    names = [f"class {i}" for i in range(1500)]
    for label in (0, 11, 12, 1499):
        for company in ([], ["class 3", "class 700"]):
            boxes = [[20, 60, 120, 200], [150, 60, 200, 200], [230, 60, 300, 200]][: 1 + len(company)]
            image = draw_boxes(grey(), boxes, [names[label], *company], class_names=names)
            assert image.getpixel((20, 150)) == colour(label)
    # without the list of classes, the order of the alphabet
    image = draw_boxes(grey(), [[20, 60, 120, 200], [150, 60, 200, 200]], ["dog", "cat"])
    assert (image.getpixel((20, 150)), image.getpixel((150, 150))) == (PALETTE[1], PALETTE[0])
    # a class that is not in the list has the colour after them
    image = draw_boxes(grey(), [[20, 60, 120, 200]], ["cow"], class_names=["cat", "dog"])
    assert image.getpixel((20, 150)) == PALETTE[2]


def test_colours_of_many_classes():
    colours = [colour(i) for i in range(2000)]
    assert all(0 <= value <= 255 and isinstance(value, int) for rgb in colours for value in rgb)
    assert len(set(colours[:200])) == 200
    difference = [max(abs(a - b) for a, b in zip(x, y)) for x, y in itertools.pairwise(colours)]
    assert min(difference) > 50  # neighbours
    assert all(sum(rgb) - 3 * min(rgb) > 60 for rgb in colours)  # no greys


# --------------------------------------------------------------------------------------------------------- sheets


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
    (title,) = headings.keys() - {"truth", "12", "found", "0"}
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
