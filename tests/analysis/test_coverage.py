"""Which boxes an anchor covers: the same answer as the whole grid and the trainer's own matching give."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.synthetic_data import black_images
from retinanet.analysis.coverage import Boxes, best_anchors, boxes_at_training_size, cover, share_text
from retinanet.config.model_settings import AnchorSettings, ModelSettings, PreprocessingSettings
from retinanet.config.settings import MatchingSettings
from retinanet.ops import boxes as geometry
from retinanet.ops.anchors import make_anchors
from retinanet.ops.iou_assigner import match

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=6),
    st.sampled_from([(64, 96), (160, 128), (800, 1216)]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from(["none", "torchvision"]),
    st.sampled_from([(3, (32.0, 64.0, 128.0, 256.0, 512.0)), (2, (7.3, 16.0)), (4, (20.0, 50.0))]),
)
def test_best_anchor_is_that_of_the_whole_grid(fractions, padded, offset, convention, levels):
    """Also for boxes at the border, where the nearest cell is the last one."""
    height, width = padded
    first, sizes = levels
    anchors = AnchorSettings(sizes=sizes, first_level=first, offset=offset, rounding=convention, strides="torchvision")
    corners = np.array([[a * width, b * height, 0, 0] for a, b, _, _ in fractions])
    corners[:, 2:] = corners[:, :2] + [[1 + c * width, 1 + d * height] for _, _, c, d in fractions]
    boxes = Boxes(
        corners.astype(np.float32),
        np.array([padded] * len(corners)),
        np.zeros(len(corners), np.int32),
        np.zeros(len(corners), np.int64),
    )
    best, level_of = best_anchors(boxes, anchors)
    grid = make_anchors(anchors, height, width, CPU)
    per_level = [geometry.iou(torch.from_numpy(boxes.corners), level).amax(dim=1) for level in grid]
    whole = torch.stack(per_level)
    torch.testing.assert_close(torch.from_numpy(best), whole.amax(dim=0), rtol=1e-4, atol=1e-5)
    own = whole[torch.from_numpy(level_of).long(), torch.arange(len(best))]
    torch.testing.assert_close(own, whole.amax(dim=0), rtol=1e-4, atol=1e-5)


def test_covered_boxes_are_those_that_the_trainer_gives_an_anchor(tmp_path):
    random = np.random.default_rng(0)
    images = []
    for _ in range(12):
        height, width = (int(v) for v in random.integers(60, 200, 2))
        x, y = random.uniform(0, width - 30), random.uniform(0, height - 30)
        w, h = random.uniform(3, 29, 2)
        images.append(((height, width), [(x, y, x + w, y + h, 0)]))
    data = black_images(tmp_path, images)
    model = ModelSettings(preprocessing=PreprocessingSettings(size=128, longer=200))
    model = replace(model, anchors=AnchorSettings(sizes=(16.0, 32.0, 64.0)))
    seen = boxes_at_training_size(data, model.preprocessing)
    covered = cover(data, model, MatchingSettings()).covered
    assert 0 < covered.sum() < len(covered), "both kinds are looked at"
    for i in range(len(data)):
        height, width = seen.padded[i].tolist()
        anchors = torch.cat(make_anchors(model.anchors, height, width, CPU))
        labels = match(
            anchors, [torch.from_numpy(seen.corners[i : i + 1])], [torch.zeros(1).long()], MatchingSettings()
        )
        assert bool((labels.labels >= 0).any()) == covered[i]


def test_what_is_told(tmp_path):
    """One box that an anchor equals, one that is too small for any, a crowd, an image without a box."""
    square, wide = (128, 128), (128, 256)
    scenes = [(square, [(32, 32, 64, 64, 0), (3, 3, 7, 7, 1)]), (square, [(2, 2, 5, 5, 1)]), (wide, [])]
    data = black_images(tmp_path, scenes)
    model = replace(ModelSettings(), preprocessing=PreprocessingSettings(resize="none"))
    found = cover(data, model, MatchingSettings())
    assert found.share == pytest.approx(1 / 3)
    assert found.per_class == [("a", 1, 1.0), ("b", 2, 0.0)]
    assert found.without == pytest.approx(1 / 2)
    assert {name: (n, share) for name, n, share in found.per_size if n} == {
        "below 8 px": (2, 0.0),
        "32 to 64 px": (1, 1.0),
    }
    assert sum(share for _, share in found.per_level) == pytest.approx(1)
    sizes = [
        9 * sum(-(-h // s) * -(-w // s) for s in (8, 16, 32, 64, 128)) for h, w in ((128, 128),) * 2 + ((128, 256),)
    ]
    assert found.anchors == round(sum(sizes) / 3)
    assert found.sampled == 3
    assert 0 < found.positives < 20
    assert found.ratio == pytest.approx((found.anchors - found.positives - found.ignored) / found.positives)
    json.dumps(found.plain())


def test_without_boxes(tmp_path):
    found = cover(black_images(tmp_path, [((64, 64), [])]), ModelSettings(), MatchingSettings())
    assert found.share == 1.0
    assert found.without == 0.0
    assert found.positives == 0
    assert found.plain()["background_per_positive"] is None


def test_all_is_said_of_all_alone():
    assert [share_text(share) for share in (1.0, 0.99999, 0.5, 1e-6, 0.0)] == [
        "100.0%",
        "99.9%",
        "50.0%",
        "0.1%",
        "0.0%",
    ]
    assert share_text(0.999, 0) == "99%"
