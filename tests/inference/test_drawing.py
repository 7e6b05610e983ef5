"""What is drawn, by its pixels: frames on their boxes, labels inside the image, one colour a class."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from retinanet.inference import fonts
from retinanet.inference.class_colours import PALETTE, colour, luminance, text_colour
from retinanet.inference.drawing import Mark, draw_boxes, font_size, line_width, paint

GREY = (90, 90, 90)  # in no palette
DEJAVU = fonts.load_font(12)


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


def test_a_frame_is_one_solid_line_on_its_box():
    pixels = np.asarray(draw_boxes(grey(), [[100, 120, 200.0, 180.5]], ["cat"], line=3))
    row, column = pixels[150], pixels[:, 190]  # through the middle, and beside the label
    for place in (slice(100, 103), slice(197, 200)):  # pixel 199 is the last before x = 200
        assert (row[place] == PALETTE[0]).all()
    for place in (slice(120, 123), slice(178, 181)):  # a pixel that the box reaches into counts
        assert (column[place] == PALETTE[0]).all()
    assert (row[[98, 99, 103, 150, 196, 200, 201]] == GREY).all()
    assert (column[[118, 119, 123, 150, 177, 181, 182]] == GREY).all()


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
    assert (where(image, GREY)[free] != expected[free]).all()


@pytest.mark.parametrize("line", [1, None, 9])
@pytest.mark.parametrize("box", [(160, 120, 161, 121), (160, 120, 160, 120), (160.2, 120.2, 160.7, 120.7)])
def test_a_line_does_not_leave_the_smallest_box(labels, box, line):
    image = draw_boxes(grey(), [box], ["cat"], line=line)
    assert where(image, PALETTE[0])[120, 160]
    free = ~where(image, GREY)
    ((_, (left, top, right, bottom), _),) = labels
    free[top:bottom, left:right] = False
    assert set(zip(*np.nonzero(free))) == {(120, 160)}


def test_lines_grow_with_the_image_but_stay_thin():
    def thickness(size):
        image = draw_boxes(grey(size, size), [[size // 4, size // 4, size // 2, size // 2]], ["cat"])
        return int(where(image, PALETTE[0])[size * 3 // 8, : size * 3 // 8].sum())

    assert [thickness(size) for size in (64, 300, 640, 1600, 3200)] == [1, 1, 2, 4, 7]
    assert [line_width((size, size)) for size in (1, 640, 8000)] == [1, 2, 14]


def test_letters_grow_with_the_image_and_shrink_in_a_crowd():
    assert [font_size((size, size)) for size in (1, 64, 300, 640, 8000)] == [9, 9, 9, 16, 103]
    assert [font_size((1600, 1600), count) for count in (0, 20, 40, 500)] == [31, 31, 22, 22]


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
        assert [image.getpixel(end) for end in ends] == [PALETTE[0]] * 4  # solid, up to its edge
        # beside the part of the box that is in the image
        assert min(max(x, 0), 319) - 4 <= right
        assert left <= min(max(x + 60, 0), 319) + 4
        assert min(max(y, 0), 239) - 4 <= bottom
        assert top <= min(max(y + 50, 0), 239) + 4


def test_a_name_longer_than_the_image_keeps_its_beginning_and_its_score(labels):
    image = draw_boxes(grey(100, 80), [[30, 40, 60, 70]], ["cat" * 40], [0.5])
    ((words, (left, _, right, _), letters),) = labels
    assert 0 <= left < letters[0] < letters[2] < right <= 100
    assert words.startswith("cat")
    assert words.endswith("… 0.50")
    assert image.size == (100, 80)


def test_no_line_crosses_a_label(labels):
    """The label of the first box lies where lines of the others run."""
    boxes = [[100, 80, 220, 180], *([105 + 7 * i, 20, 110 + 7 * i, 200] for i in range(6))]
    image = draw_boxes(grey(), boxes, ["first", *["x"] * 6], [0.9, *[0.1] * 6], class_names=["first", "x"])
    ((left, top, right, bottom),) = [area for words, area, _ in labels if words.startswith("first")]
    assert not where(image, PALETTE[1])[top:bottom, left:right].any()


def test_labels_do_not_hide_each_other_while_there_is_room(labels):
    draw_boxes(grey(), [[100, 80, 220, 180]] * 6, list("abcdef"), np.linspace(0.9, 0.4, 6))
    assert [words[0] for words, _, _ in labels] == list("abcdef")
    assert_readable([area for _, area, _ in labels])


def assert_readable(areas):
    """No two share more than a few pixels of their margins."""
    for a, b in itertools.combinations(areas, 2):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert max(0, width) * max(0, height) < (b[2] - b[0]) * (b[3] - b[1]) / 32


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
    assert labels[0][0] == "two lines"


@pytest.mark.parametrize("name", ["日本語", "file\udcff.jpg", "\x00", "x" * 300, "\u202e"])
def test_odd_names_are_drawn(name):
    image = draw_boxes(grey(), [[50, 60, 250, 200]], [name])
    assert where(image, PALETTE[0]).any()


def test_a_name_that_no_font_has_is_replaced_by_its_number(labels, monkeypatch):
    monkeypatch.setattr(fonts, "OF_SYSTEM", ())
    names = ["cat", "\U0001f700\U0001f701", "Кошка"]  # alchemical symbols
    draw_boxes(grey(), [[50, 60, 250, 200]] * 3, names, [0.9, 0.8, 0.7], class_names=names)
    assert [words for words, _, _ in labels] == ["cat 0.90", "class 1 0.80", "Кошка 0.70"]


def test_a_font_of_the_system_writes_what_the_usual_one_has_not(monkeypatch):
    usual = ImageFont.load_default(12)  # it has no letter beyond English ones
    monkeypatch.setattr(fonts, "load_font", lambda size, bold=False: usual)
    monkeypatch.setattr(fonts, "_system_font", lambda name, size: DEJAVU if name == "FreeSans.ttf" else None)
    assert fonts.font_with("cat", 12) is usual
    assert fonts.font_with("Кошка cat", 12) is DEJAVU
    assert fonts.font_with("Кошка \U0001f700", 12) is None


def test_letters_stand_out_from_every_colour():
    for rgb in map(colour, range(500)):
        light, dark = sorted((luminance(rgb), luminance(text_colour(rgb))))[::-1]
        assert (light + 0.05) / (dark + 0.05) > 3  # WCAG's limit for large and bold letters
    assert luminance((255, 255, 255)) == pytest.approx(1)
    assert luminance((119, 119, 119)) == pytest.approx(0.184, abs=1e-3)


def test_marks_without_text_have_no_label(labels):
    image = grey()
    paint(image, [Mark((50, 60, 90, 80), PALETTE[2]), Mark((50, 60, 90, 80), PALETTE[3], "b", 9)], 12)
    assert [words for words, _, _ in labels] == ["b"]
    assert image.getpixel((50, 70)) == PALETTE[2]  # the first is on top
    assert image.getpixel((55, 70)) == PALETTE[3]


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
