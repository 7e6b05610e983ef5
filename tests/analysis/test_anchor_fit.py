"""Anchors and image sizes for the data."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.synthetic_data import black_images
from retinanet.analysis.anchor_fit import fit_anchors, fit_size, lost_boxes
from retinanet.analysis.coverage import cover
from retinanet.config.model_settings import AnchorSettings, ModelSettings, PreprocessingSettings
from retinanet.config.settings import MatchingSettings

AS_IT_IS = replace(ModelSettings(), preprocessing=PreprocessingSettings(resize="none"))


def scattered(root, sides, shapes=(0.7, 1.4), size=(640, 640), images=6, count=30, seed=0):
    """Boxes of random place, side and shape (height over width)."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(images):
        boxes = []
        for _ in range(count):
            side = np.exp(random.uniform(*np.log(sides)))
            shape = np.exp(random.uniform(*np.log(shapes)))
            w, h = side / shape**0.5, side * shape**0.5
            x, y = random.uniform(0, size[1] - w), random.uniform(0, size[0] - h)
            boxes.append((x, y, x + w, y + h, int(random.integers(2))))
        rows.append((size, boxes))
    return black_images(root, rows)


def test_small_objects_get_p2_and_few_levels(tmp_path):
    """Six to twelve pixels: the paper's anchors cover nearly none, P2 with small anchors most of them."""
    data = scattered(tmp_path, (6, 12))
    before = cover(data, AS_IT_IS, MatchingSettings())
    found = fit_anchors(data, AS_IT_IS, MatchingSettings())
    after = cover(data, replace(AS_IT_IS, anchors=found.settings), MatchingSettings())
    assert before.share == found.before < 0.01
    assert after.share == found.after > 0.8
    assert found.settings.first_level == 2
    assert len(found.settings.sizes) <= 3
    assert found.settings.per_position == 9, "the weights of other anchors fit"
    assert {choice.setting for choice in found.choices(AS_IT_IS.anchors)} == {
        "model.anchors.sizes", "model.anchors.ratios", "model.anchors.first_level"
    }  # fmt: skip


def test_large_objects_need_no_coarse_level_below_them(tmp_path):
    data = scattered(tmp_path, (40, 60))
    found = fit_anchors(data, AS_IT_IS, MatchingSettings())
    assert found.settings.first_level == 3
    assert found.after > 0.99
    assert found.settings.levels[-1] < 7


def test_shapes(tmp_path):
    """Objects seven times as high as wide: ratios about 7, where the paper's reach 2."""
    data = scattered(tmp_path, (40, 200), shapes=(6.5, 8.5))
    found = fit_anchors(data, AS_IT_IS, MatchingSettings())
    assert found.before < 0.7 < 0.95 < found.after
    assert 5 < np.median(found.settings.ratios) < 9


@pytest.mark.parametrize("sides", [(6, 12), (20, 400), (150, 300)])
def test_never_worse_and_always_the_same(tmp_path, sides):
    data = scattered(tmp_path, sides, shapes=(0.4, 2.5))
    found = fit_anchors(data, AS_IT_IS, MatchingSettings())
    assert found.after >= found.before
    assert fit_anchors(data, AS_IT_IS, MatchingSettings()) == found


def test_no_boxes_leave_the_anchors(tmp_path):
    data = black_images(tmp_path, [((64, 64), [])])
    assert fit_anchors(data, AS_IT_IS, MatchingSettings()).settings == AnchorSettings()
    assert lost_boxes(data, AS_IT_IS, MatchingSettings()) == (1.0, None)
    assert fit_size(data, AS_IT_IS.preprocessing, 24)[0] == 64


@pytest.mark.slow
def test_lost_boxes_are_told_with_what_would_save_them(tmp_path):
    data = scattered(tmp_path, (6, 12))
    model = replace(ModelSettings(), preprocessing=PreprocessingSettings(size=640, longer=1066))
    share, line = lost_boxes(data, model, MatchingSettings())
    assert share < 0.01
    assert line is not None
    for part in ("the anchors cover 0.0% of the boxes", "; 180 cannot be trained on", "median 9", "a ", "b ",
                 "--anchors auto would cover", "--model.preprocessing.size 1280"):  # fmt: skip
        assert part in line
    fitted = replace(model, anchors=fit_anchors(data, model, MatchingSettings()).settings)
    assert lost_boxes(data, fitted, MatchingSettings())[0] > 0.8


@pytest.mark.parametrize("low_quality", [False, True])
def test_boxes_below_a_pixel_are_told_whatever_the_anchors_cover(tmp_path, low_quality):
    data = black_images(tmp_path, [((64, 64), [(10, 10, 30, 30, 1)] * 40 + [(5, 5, 5.16, 5.16, 1)])])
    model = replace(ModelSettings(), preprocessing=PreprocessingSettings(resize="none"))
    sizes = replace(AnchorSettings(), sizes=(20.0, 0.16), ratios=(1.0,))
    for anchors in (sizes, replace(sizes, sizes=(20.0, 40.0))):
        _, line = lost_boxes(data, replace(model, anchors=anchors), MatchingSettings(low_quality=low_quality))
        assert line is not None
        assert "1 cannot be trained on: 0.16 px" in line


@pytest.mark.parametrize(
    ("sides", "size", "wanted"),
    [
        ((40, 45), (480, 640), 288),  # 43 px shall be 24, and 480 x 640 becomes 288 x 384 without padding
        ((6, 12), (640, 640), 640),  # never enlarged
        ((300, 400), (1200, 1600), 224),  # never below
        ((30, 40), (3000, 4000), 800),  # nor above 800
        ((20, 40), (100, 100), 100),
        ((0.2, 0.5), (1, 1), 1),
    ],
)
def test_image_size(tmp_path, sides, size, wanted):
    data = scattered(tmp_path, sides, size=size, images=2, count=10)
    found, longer, why = fit_size(data, PreprocessingSettings(), 24.0)
    assert found == pytest.approx(wanted, abs=1)
    assert longer >= found * 4 / 3
    assert "px" in why
