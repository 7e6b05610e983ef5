"""Tiles cover the image; every object is found once, wherever the edges of tiles cut it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.colour_finder import ColourFinder, draw
from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError
from retinanet.config.model_settings import PostprocessingSettings
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.inference.tile_merging import merge
from retinanet.inference.tiling import predict_sliced, shared_pixels, starts, tiles
from retinanet.model import RetinaNet

BY_CLASS = PostprocessingSettings()

# ------------------------------------------------------------------------------------------------------------ tiles


@given(st.integers(1, 3000), st.integers(1, 900), st.floats(0, 0.9))
def test_tiles_of_a_side(length, slices, overlap):
    shared = shared_pixels(slices, overlap)
    places = starts(length, slices, shared)
    ends = [min(place + slices, length) for place in places]
    assert places[0] == 0
    assert ends[-1] == length, "the last one ends with the side"
    assert shared == slices - 1 or shared >= overlap * slices
    assert all(ends[i] - places[i] == min(slices, length) for i in range(len(places))), (
        "no tile is smaller, none padded"
    )
    assert all(ends[i] - places[i + 1] >= shared for i in range(len(places) - 1))
    assert places == sorted(set(places))
    # n tiles that share as much reach no further than n * slices - (n - 1) * shared: with one less a gap would be left.
    fewer = len(places) - 1
    assert fewer == 0 or fewer * slices - (fewer - 1) * shared < length


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 90), st.floats(0, 0.8))
@settings(max_examples=20, deadline=None)
def test_every_pixel_is_in_a_tile(height, width, slices, overlap):
    seen = np.zeros((height, width), int)
    for x1, y1, x2, y2 in tiles(height, width, slices, overlap):
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        seen[y1:y2, x1:x2] += 1
    assert seen.min() >= 1


def test_small_images_are_one_tile():
    assert tiles(640, 640, 640) == [(0, 0, 640, 640)]
    assert tiles(10, 20, 640) == [(0, 0, 20, 10)]
    assert tiles(100, 641, 640) == [(0, 0, 640, 100), (1, 0, 641, 100)]


@pytest.mark.parametrize(
    ("slices", "overlap", "message"),
    [
        (0, 0.2, "slices must be at least 1, not 0"),
        (1.5, 0.2, "slices must be a whole number of at least 1, not 1.5"),
        ("640", 0.2, "slices must be a whole number of at least 1, not '640'"),
        (640, "0.2", "the overlap of tiles must be a number, not '0.2'"),
        (640, True, "the overlap of tiles must be a number, not True"),
        (640, 1, r"the overlap of tiles must be in \[0, 0.9\], not 1"),
        (640, -0.1, r"the overlap of tiles must be in \[0, 0.9\], not -0.1"),
        (640, math.nan, r"the overlap of tiles must be in \[0, 0.9\], not nan"),
    ],
)
def test_settings_out_of_range(slices, overlap, message):
    with pytest.raises(RequestError, match=message):
        predict_sliced(ColourFinder(), draw((50, 50), []), slices, overlap)


# ---------------------------------------------------------------------------------------------------------- objects


def found(rectangles, shape=(240, 300), slices=100, overlap=0.3, **options):
    """What is found of rectangles in an image, as rectangles again."""
    result = predict_sliced(ColourFinder(), draw(shape, rectangles), slices, overlap, **options)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    return sorted(zip(result.labels.tolist(), (tuple(box) for box in result.boxes.int().tolist())))


@st.composite
def rectangles(draw_from, most=200):
    """Rectangles of three colours in an image of 300 x 240 with a pixel or more between them."""
    taken = np.zeros((242, 302), bool)
    result = []
    for _ in range(draw_from(st.integers(1, 8))):
        width, height = draw_from(st.integers(1, most)), draw_from(st.integers(1, most))
        x, y = draw_from(st.integers(0, 300 - width)), draw_from(st.integers(0, 240 - height))
        if not taken[y : y + height + 2, x : x + width + 2].any():
            taken[y + 1 : y + height + 1, x + 1 : x + width + 1] = True
            result.append((draw_from(st.integers(0, 2)), (x, y, x + width, y + height)))
    return sorted(result)


@given(rectangles(most=30))
@settings(max_examples=20, deadline=None)
def test_objects_up_to_the_overlap_are_found_once_and_exactly(truth):
    assert found(truth, whole=False) == truth
    assert found(truth, whole=True) == truth


@given(rectangles())
@settings(max_examples=20, deadline=None)
def test_objects_of_any_size_are_found_once_and_exactly(truth):
    """Larger than the overlap, and than tiles: put together from pieces, or taken from the whole image."""
    assert found(truth, whole=False) == truth
    assert found(truth, whole=True) == truth


def test_an_object_is_found_once_wherever_it_lies():
    """One object moved pixel by pixel over edges and corners of tiles."""
    for side in (7, 30, 31):
        for place in range(60, 106):
            truth = [(1, (place, place - 20, place + side, place - 20 + side))]
            assert found(truth, whole=False) == truth, (side, place)


def test_suppression_alone_would_fail():
    """The pieces are there, and surer than the whole: what the other tests rest on."""
    truth = [(0, (60, 10, 90, 40))]
    image = draw((240, 300), truth)
    piece = ColourFinder().predict(image[:, 70:170])
    whole = ColourFinder().predict(image[:, :100])
    assert piece.boxes.tolist() == [[0, 10, 20, 40]]
    assert piece.scores > whole.scores
    assert found(truth) == truth


class Unsteady(ColourFinder):
    """Boxes that are off by up to a pixel and a half, otherwise in every tile."""

    def _detect(self, image, threshold, limit):
        result = super()._detect(image, threshold, limit)
        random = np.random.default_rng(int(image[:, ::7, ::7].sum()) % 1000)
        noise = torch.from_numpy(random.uniform(-1.5, 1.5, result.boxes.shape)).float()
        height, width = image.shape[1:]
        boxes = (result.boxes + noise).clamp(torch.zeros(4), torch.tensor([width, height, width, height]).float())
        return Detections(boxes, result.scores, result.labels, result.class_names)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=12, unique=True), st.integers(0, 9)
)
@settings(max_examples=20, deadline=None)
def test_boxes_that_are_a_little_off(cells, shift):
    """Objects of 16 to 24 pixels, 40 apart; each is found once, where it is."""
    truth = torch.tensor([[40 * i + shift, 40 * j + shift, 40 * i + 25, 40 * j + 25] for i, j in cells])
    image = draw((320, 400), [(0, tuple(box)) for box in truth.tolist()])
    result = predict_sliced(Unsteady(), image, 128, 0.3)
    nearest = (result.boxes[:, None] - truth).abs().amax(dim=2)  # (found, truth)
    assert len(result) == len(truth)
    assert nearest.amin(dim=0).max() <= 1.5


def test_neighbouring_objects_of_a_class_stay_two():
    """In a row over an edge, one above the other, and one whose piece lies beside the other."""
    truth = sorted([(0, (10, 10, 84, 30)), (0, (86, 10, 160, 30)), (0, (20, 40, 140, 60)), (0, (20, 62, 140, 82))])
    assert found(truth, whole=False) == truth
    assert found(truth, whole=True) == truth


def test_a_piece_that_no_other_view_confirms_is_kept():
    """What only one tile finds of an object larger than the overlap is better than nothing."""
    boxes = torch.tensor([[40.0, 10, 100, 50]])  # cut by the right edge of the first tile, over all of the overlap
    views = torch.tensor([[0, 0, 100, 100], [70, 0, 170, 100]])
    merged = merge(
        boxes, torch.tensor([0.5]), torch.tensor([0]), torch.tensor([0]), views, 30, PostprocessingSettings(), False
    )
    assert merged[0].tolist() == boxes.tolist()


def test_pieces_of_two_classes_are_not_joined():
    boxes = torch.tensor([[40.0, 10, 100, 50], [70, 10, 150, 50]])
    views = torch.tensor([[0, 0, 100, 100], [70, 0, 170, 100]])
    scores, view = torch.tensor([0.5, 0.7]), torch.tensor([0, 1])
    joined = merge(boxes, scores, torch.tensor([0, 0]), view, views, 30, BY_CLASS, False)
    assert joined[0].tolist() == [[40, 10, 150, 50]]
    torch.testing.assert_close(joined[1], torch.tensor([0.7]))
    assert len(merge(boxes, scores, torch.tensor([0, 1]), view, views, 30, BY_CLASS, False)[0]) == 2


def test_pieces_of_two_classes_are_joined_where_all_classes_compete():
    views = torch.tensor([[0, 0, 100, 100], [70, 0, 170, 100]])
    boxes = torch.tensor([[20.0, 20, 100, 60], [70, 20, 150, 60], [20, 70, 60, 90], [21, 70, 61, 90]])
    scores, labels, view = torch.tensor([0.6, 0.8, 0.5, 0.4]), torch.tensor([0, 1, 3, 2]), torch.tensor([0, 1, 0, 0])
    settings = PostprocessingSettings(nms="agnostic")
    found = merge(boxes, scores, labels, view, views, 30, settings, False)
    assert found[0].tolist() == [[20, 20, 150, 60], [20, 70, 60, 90]]
    assert (found[1].tolist(), found[2].tolist()) == (pytest.approx([0.8, 0.5]), [1, 3])
    assert len(merge(boxes, scores, labels, view, views, 30, BY_CLASS, False)[0]) == 4


def test_a_whole_box_keeps_its_label_beside_a_piece_of_another_class():
    views = torch.tensor([[0, 0, 100, 100], [70, 0, 170, 100]])
    boxes = torch.tensor(
        [[60.0, 20, 96, 60], [70, 20, 99, 60]]
    )  # whole in the first view, cut by the second one's edge
    scores, labels, view = torch.tensor([0.6, 0.8]), torch.tensor([0, 1]), torch.tensor([0, 1])
    found = merge(boxes, scores, labels, view, views, 30, PostprocessingSettings(nms="agnostic"), False)
    assert found[0].tolist() == [[60, 20, 96, 60]]
    assert (found[1].tolist(), found[2].tolist()) == (pytest.approx([0.6]), [0])


def test_without_overlap_nothing_is_lost():
    truth = [(2, (30, 30, 60, 60))]
    assert found(truth, overlap=0, whole=False) == truth
    assert found([(2, (90, 30, 110, 60))], overlap=0, whole=True) == [(2, (90, 30, 110, 60))]


def test_nothing_to_find():
    assert found([]) == []


# ----------------------------------------------------------------------------------------------------------- limits


def test_the_most_detections_are_of_the_image():
    truth = [(0, (20 * i, 20 * j, 20 * i + 9, 20 * j + 9)) for i in range(15) for j in range(12)]
    assert len(found(truth)) == 180
    assert len(found(truth, max_detections=50)) == 50
    assert found(truth, threshold=0.99) == []


def test_memory_for_a_large_image():
    """8000 x 8000 pixels, 192 MB: tiles are views of it, looked at a batch at a time."""
    image = torch.zeros((3, 8000, 8000), dtype=torch.uint8)
    truth = [(70 * k, 75 * k, 70 * k + 40, 75 * k + 50) for k in range(1, 100)]
    for x1, y1, x2, y2 in truth:
        image[0, y1:y2, x1:x2] = 255
    start, size = image.data_ptr(), image.numel()

    class Watched(ColourFinder):
        def predict(self, images, **options):
            assert all(start <= piece.data_ptr() < start + size for piece in images), "no copy of a tile is kept"
            assert len(images) <= 4
            return super().predict(images, **options)

    detector = Watched()
    result = predict_sliced(detector, image, 1000, 0.1, whole=False, batch_size=4)
    assert sorted(tuple(box) for box in result.boxes.int().tolist()) == sorted(truth)
    assert sum(detector.calls) == 81


# --------------------------------------------------------------------------------------------------- a real network


@pytest.fixture(scope="module")
def detector():
    """Random weights with scores about a half: something is found everywhere."""
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, 2, load_weights=False)
    nn.init.normal_(model.class_subnet.output.weight, std=0.3)
    nn.init.zeros_(model.class_subnet.output.bias)
    return Detector(model, ("red", "green"))


def test_one_tile_is_what_predict_says(detector):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    plain = detector.predict(image, max_detections=20)
    sliced = predict_sliced(detector, image, 120, max_detections=20)
    assert len(plain) == 20
    torch.testing.assert_close(sliced.boxes, plain.boxes, rtol=0, atol=0)
    torch.testing.assert_close(sliced.scores, plain.scores, rtol=0, atol=0)
    assert sliced.labels.tolist() == plain.labels.tolist()


def test_tiles_of_a_real_network(detector, tmp_path):
    """Boxes in the pixels of the image, from a file as from an array, no two of a class nearly the same."""
    from PIL import Image
    from torchvision.ops import box_iou

    image = np.random.default_rng(1).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    result = predict_sliced(detector, tmp_path / "a.png", 64, 0.25, threshold=0.5)
    same = predict_sliced(detector, image, 64, 0.25, threshold=0.5, batch_size=1)
    torch.testing.assert_close(result.boxes, same.boxes, rtol=0, atol=1e-3)
    assert len(result) > 20
    assert result.scores.min() > 0.5
    assert (result.boxes.amax(dim=0) <= torch.tensor([210, 150, 210, 150])).all()
    assert result.boxes[:, 2].max() > 200
    for label in range(2):
        overlaps = box_iou(*[result.boxes[result.labels == label]] * 2).fill_diagonal_(0)
        assert overlaps.max() <= detector.settings.postprocessing.nms_iou + 1e-6


def test_progress_over_tiles():
    seen = []
    predict_sliced(ColourFinder(), draw((100, 100), []), 40, 0.2, batch_size=4, on_progress=lambda *at: seen.append(at))
    count = len(tiles(100, 100, 40, 0.2)) + 1
    assert [total for _, total in seen] == [count] * -(-count // 4)
    assert [done for done, _ in seen] == [min(4 * (i + 1), count) for i in range(len(seen))]
