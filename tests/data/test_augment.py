"""What is drawn depends on (seed, epoch, image) alone; what is done to boxes is done to pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.config.model_settings import PreprocessingSettings
from retinanet.config.settings import AugmentationSettings
from retinanet.data.augment import Drawn, apply, draw
from retinanet.ops.iou_assigner import IGNORED

ALL = AugmentationSettings(flip=0.5, sizes=(48, 64), zoom=(0.5, 1.5), crop=1.0, crop_scale=(0.2, 0.9), colour=1.0)
PREPROCESSING = PreprocessingSettings(size=64, longer=107)
sides = st.integers(8, 90)


@st.composite
def labelled(draw, least=1):
    """An image size and boxes inside it, on whole pixels."""
    height, width = draw(sides), draw(sides)
    corner = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    boxes = []
    for x, y in draw(st.lists(corner, min_size=least, max_size=5)):
        boxes.append([x, y, draw(st.integers(x + 1, width)), draw(st.integers(y + 1, height))])
    return (height, width), np.array(boxes, np.float32).reshape(-1, 4)


def plain(size, **changes):
    return replace(Drawn((0, 0, size[1], size[0]), size), **changes)


def run(size, boxes, drawn, image=None, labels=None):
    image = torch.zeros(3, *size, dtype=torch.uint8) if image is None else image
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    return apply(image, torch.from_numpy(np.asarray(boxes, np.float32).reshape(-1, 4)), labels, drawn, True)


keys = st.integers(0, 10**6)


@given(keys, st.integers(0, 1000), keys, labelled(least=0))
def test_the_same_key_draws_the_same_and_others_differ(seed, epoch, image, given_image):
    size, boxes = given_image
    first = draw(seed, epoch, image, size, boxes, ALL, PREPROCESSING)
    np.random.default_rng(seed).random(), torch.rand(3)  # what else is drawn in a process has no say
    assert draw(seed, epoch, image, size, boxes, ALL, PREPROCESSING) == first
    for other in ((seed + 1, epoch, image), (seed, epoch + 1, image), (seed, epoch, image + 1)):
        assert draw(*other, size, boxes, ALL, PREPROCESSING).colour != first.colour


@given(keys, keys, labelled())
def test_a_crop_keeps_a_box_and_every_box_stays_inside(seed, source, given_image):
    size, boxes = given_image
    drawn = draw(seed, 0, source, size, boxes, ALL, PREPROCESSING)
    x1, y1, x2, y2 = drawn.crop
    assert 0 <= x1 < x2 <= size[1]
    assert 0 <= y1 < y2 <= size[0]
    for length, side in ((x2 - x1, size[1]), (y2 - y1, size[0])):
        assert 0.2 * side - 1 <= length <= 0.9 * side + 1
    image, kept, labels = run(size, boxes, drawn)
    assert image.shape == (3, *drawn.size)
    assert len(kept) == len(labels) >= 1
    assert kept.dtype == torch.float32
    assert (kept >= 0).all()
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert (kept[:, 2] <= drawn.size[1]).all()
    assert (kept[:, 3] <= drawn.size[0]).all()


@given(keys, labelled())
@settings(max_examples=60)
def test_boxes_stay_on_what_they_enclose(seed, given_image):
    """A painted box is found again where its own box says, whatever was drawn."""
    size, boxes = given_image
    x1, y1, x2, y2 = boxes[0].astype(int)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    augmentation = replace(ALL, colour=0.0, sizes=(200,), zoom=(1.0, 1.0))  # large: edges are sharp in its pixels
    drawn = draw(seed, 0, 0, size, boxes[:1], augmentation, replace(PREPROCESSING, longer=2000))
    image, kept, _ = run(size, boxes[:1], drawn, image)
    bright = (image[0] >= 128).nonzero()
    found = [*bright.amin(0).flip(0).tolist(), *(bright.amax(0).flip(0) + 1).tolist()]
    blur = max(drawn.size[1] / (drawn.crop[2] - drawn.crop[0]), drawn.size[0] / (drawn.crop[3] - drawn.crop[1])) / 2
    assert np.abs(np.array(found) - kept[0].numpy()).max() <= blur + 1


@given(labelled(least=0), st.integers(0, 255))
def test_flipping_twice_changes_nothing(given_image, seed):
    size, boxes = given_image
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    once = run(size, boxes, plain(size, flip=True), image)
    assert torch.equal(once[0], image.flip(-1))
    again = run(size, once[1].numpy(), plain(size, flip=True), once[0])
    assert torch.equal(again[0], image)
    assert torch.equal(again[1], torch.from_numpy(boxes))


def test_exact_boxes_of_crop_resize_and_flip():
    boxes = [[10, 20, 30, 40], [0, 0, 12, 12], [38, 10, 60, 50], [90, 90, 100, 100]]
    drawn = Drawn(crop=(10, 10, 50, 50), size=(80, 120))
    _, kept, labels = run((100, 100), boxes, drawn)
    # 3 times as wide, 2 times as high; the second box's centre and the fourth are outside
    assert kept.tolist() == [[0, 20, 60, 60], [84, 0, 120, 80]]
    assert labels.tolist() == [0, 2]
    _, kept, _ = run((100, 100), boxes, replace(drawn, flip=True))
    assert kept.tolist() == [[60, 20, 120, 60], [0, 0, 36, 80]]


def test_regions_to_ignore_stay_while_any_of_them_is_seen():
    boxes = [[0, 0, 12, 12], [0, 0, 10, 10], [20, 20, 30, 30]]
    _, kept, labels = run((50, 50), boxes, Drawn((10, 10, 50, 50), (40, 40)), labels=[IGNORED, IGNORED, 1])
    assert kept.tolist() == [[0, 0, 2, 2], [10, 10, 20, 20]]
    assert labels.tolist() == [IGNORED, 1]


def test_a_image_without_boxes_is_cropped_anywhere():
    none = np.zeros((0, 4), np.float32)
    crops = {draw(0, 0, i, (60, 80), none, ALL, PREPROCESSING).crop for i in range(300)}
    assert min(crop[0] for crop in crops) == 0
    assert max(crop[2] for crop in crops) == 80
    _, kept, labels = run((60, 80), none, draw(0, 0, 0, (60, 80), none, ALL, PREPROCESSING))
    assert (kept.shape, labels.shape) == ((0, 4), (0,))


def test_without_augmentation_nothing_but_the_resize_happens():
    off = AugmentationSettings(flip=0.0)
    drawn = draw(3, 2, 1, (60, 80), np.array([[1, 2, 3, 4]], np.float32), off, PREPROCESSING)
    assert drawn == Drawn((0, 0, 80, 60), (64, 85), False, None)


def test_frequencies_and_ranges():
    augmentation = replace(ALL, crop=0.25, flip=0.75, zoom=(0.5, 2.0))
    box = np.array([[10, 10, 20, 20]], np.float32)
    drawn = [draw(0, 0, i, (60, 80), box, augmentation, PREPROCESSING) for i in range(2000)]
    assert np.mean([d.flip for d in drawn]) == pytest.approx(0.75, abs=0.04)
    whole = [d for d in drawn if d.crop == (0, 0, 80, 60)]
    assert len(whole) / 2000 == pytest.approx(0.75, abs=0.04)
    heights = np.array([d.size[0] for d in whole])
    assert heights.min() in (24, 25)
    assert heights.max() in (127, 128)
    # half the logarithms of the zoom are below 0, for the size 48 as for 64
    assert np.mean(heights < 64) == pytest.approx(0.5 + (np.log(64 / 48) / np.log(4)) / 2, abs=0.05)
    for place, most in enumerate((0.5, 0.5, 0.5, 0.1)):
        values = np.array([d.colour[place] for d in drawn]) - (place < 3)
        assert np.abs(values).max() == pytest.approx(most, rel=0.02)
        assert values.mean() == pytest.approx(0, abs=0.05 * most)


def test_switching_one_augmentation_on_leaves_the_other_draws_alone():
    box = np.array([[10, 10, 20, 20]], np.float32)
    for i in range(50):
        full = draw(0, 0, i, (60, 80), box, ALL, PREPROCESSING)
        assert draw(0, 0, i, (60, 80), box, replace(ALL, zoom=(1.0, 1.0), crop=0.0), PREPROCESSING).flip == full.flip
        assert draw(0, 0, i, (60, 80), box, replace(ALL, colour=0.0, sizes=()), PREPROCESSING).crop == full.crop


def pixels(seed=0):
    return torch.randint(0, 256, (3, 20, 30), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def recoloured(image, *colour):
    return run((20, 30), [], plain((20, 30), colour=colour), image)[0]


def test_colour_against_pillow():
    from PIL import ImageEnhance

    image = pixels()
    source = Image.fromarray(image.permute(1, 2, 0).numpy())
    for kind, colour in (
        (ImageEnhance.Brightness, (0.6, 1, 1, 0)),
        (ImageEnhance.Contrast, (1, 1.4, 1, 0)),
        (ImageEnhance.Contrast, (1, 0.6, 1, 0)),
        (ImageEnhance.Color, (1, 1, 0.5, 0)),
        (ImageEnhance.Color, (1, 1, 1.5, 0)),
    ):
        factor = next(value for value in colour[:3] if value != 1)
        expected = np.asarray(kind(source).enhance(factor)).astype(int)
        actual = recoloured(image, *colour).permute(1, 2, 0).numpy()
        assert np.abs(actual - expected).max() <= 2  # Pillow rounds its grey image


def test_hue_turns_colours_and_leaves_grey():
    grey = pixels()[:1].expand(3, -1, -1)
    assert torch.equal(recoloured(grey, 1, 1, 1, 0.3), grey)
    assert torch.equal(recoloured(pixels(), 1, 1, 1, 0.0), pixels())
    assert torch.equal(recoloured(pixels(), 1, 1, 1, 1.0), pixels())
    red = torch.tensor([180, 60, 60], dtype=torch.uint8)[:, None, None].expand(3, 20, 30)
    third = recoloured(red, 1, 1, 1, 1 / 3)[:, 0, 0].tolist()
    assert max(third) - min(third) > 60
    assert third.index(max(third)) != 0
    weights = np.array([0.299, 0.587, 0.114])
    assert weights @ third == pytest.approx(weights @ [180, 60, 60], abs=2)


def test_colour_gives_the_same_bytes_with_any_number_of_threads():
    image = torch.randint(0, 256, (3, 400, 600), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    drawn = Drawn((3, 5, 570, 390), (320, 480), True, (1.2, 0.7, 1.3, 0.07))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(run((400, 600), [], drawn, image)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
