"""The survey's figures against those counted by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.synthetic_data import Sample, png, write
from retinanet.analysis.survey import Histogram, Percentiles, survey
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.data import open_data
from retinanet.data.annotations import resized_sizes
from retinanet.ops.resize import resized_size

LAYOUTS = ("yolo", "coco", "voc")


@pytest.fixture
def three(tmp_path):
    """Three images of two sizes: two boxes of one class and one of another, and one image without."""

    def opened(layout):
        images = [
            Sample("a.png", png(0, 100, 200), [[0, 10, 20, 30, 60], [0, 1, 1, 101, 51]], (100, 200)),
            Sample("b.png", png(1, 100, 200), [], (100, 200)),
            Sample("c.png", png(2, 50, 50), [[1, 5, 5, 25, 15]], (50, 50)),
        ]
        return open_data(
            write(tmp_path, layout, {"train": images}, ("cell", "star", "tail")[: 2 + (layout != "voc")]), "train"
        )

    return opened


@pytest.mark.parametrize("layout", LAYOUTS)
def test_figures(three, layout):
    found = survey(three(layout), PreprocessingSettings(size=200, longer=400))
    assert (found.split, found.images, found.boxes, found.crowds, found.empties) == ("train", 3, 3, 0, 1)
    by_name = {figures.name: (figures.boxes, figures.images) for figures in found.classes}
    assert by_name["cell"] == (2, 1)
    assert by_name["star"] == (1, 1)
    assert by_name.get("tail", (0, 0)) == (0, 0)
    assert found.imbalance == 2
    assert (found.objects_mean, found.objects_median, found.objects_max) == (1, 1, 2)
    assert found.objects.counts[:4] == (1, 1, 1, 0)
    assert found.stored.size.p50 == pytest.approx(np.sqrt(20 * 40))
    assert found.stored.shorter.p50 == pytest.approx(20)
    # The first images are doubled, the last becomes four times as large.
    assert found.trained.shorter.p50 == pytest.approx(40)
    assert found.trained.size.p50 == pytest.approx(np.sqrt(40 * 80))
    star = next(figures for figures in found.classes if figures.name == "star")
    assert star.size == pytest.approx(np.sqrt(80 * 40))
    assert found.ratios.p50 == pytest.approx(0.5)
    assert found.ratio_histogram.counts[found.ratio_histogram.edges.index(2.0)] == 1
    assert found.image_sizes == ((100, 200, 2), (50, 50, 1))
    assert (found.image_median, found.image_smallest, found.image_largest) == ((100, 200), (50, 50), (100, 200))
    assert (found.distinct_sizes, found.trained_median) == (2, (200, 400))
    assert found.covered.p50 == pytest.approx(20 * 10 / 2500)
    assert (found.stored.small, found.stored.medium, found.stored.large) == pytest.approx((2 / 3, 1 / 3, 0))


def test_crowds_are_counted_apart(real):
    data = open_data(real("tiny_coco"), "train")
    found = survey(data, PreprocessingSettings())
    assert found.crowds == int(data.annotations.crowds.sum()) > 0
    assert found.boxes + found.crowds == data.num_boxes
    assert [figures.boxes for figures in found.classes] == data.counts()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_is_json(three, layout):
    found = survey(three(layout), PreprocessingSettings()).plain()
    assert json.loads(json.dumps(found)) == found
    assert found["stored"]["size"].keys() == {"p1", "p5", "p25", "p50", "p75", "p95", "p99"}
    assert sum(found["trained"]["histogram"]["counts"]) == 3


def test_a_split_without_boxes(tmp_path):
    images = [Sample("a.png", png(0), []), Sample("b.png", png(1), [])]
    found = survey(open_data(write(tmp_path, "coco", {"train": images}), "train"), PreprocessingSettings())
    assert (found.boxes, found.empties, found.imbalance) == (0, 2, 0)
    assert found.stored.size == Percentiles()
    assert json.dumps(found.plain())


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=30),
    st.sampled_from(["shorter", "square", "none"]),
    st.sampled_from(["nearest", "down"]),
)
def test_resized_sizes_are_those_of_preprocessing(sizes, resize, rounding):
    settings = PreprocessingSettings(resize=resize, rounding=rounding)
    expected = [resized_size(height, width, settings) for height, width in sizes]
    assert resized_sizes(np.array(sizes, np.int32), settings).tolist() == [list(size) for size in expected]


@given(st.lists(st.floats(0.01, 1e6), max_size=50))
def test_histograms_count_everything_once(values):
    edges = [1.0, 2.0, 4.0, 8.0]
    counts = Histogram.of(np.array(values), edges).counts
    assert counts == (
        sum(value < 2 for value in values),
        sum(2 <= value < 4 for value in values),
        sum(value >= 4 for value in values),
    )
