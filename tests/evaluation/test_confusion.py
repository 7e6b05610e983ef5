"""Confusion at a threshold and the worst images: by hand, and by what must add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.synthetic_data import scene, scenes
from retinanet.evaluation.confusion import confusion_matrix, image_results, worst
from retinanet.evaluation.pr_curves import curves

BOX, AWAY, EMPTY = (0, 0, 10, 10), (40, 40, 50, 50), (200, 200, 210, 210)
HALF = (0, 0, 10, 5)
CROWD, INSIDE = (100, 100, 200, 200, True), (110, 110, 120, 120)
NOTHING = 3
THRESHOLDS = st.integers(0, 16).map(lambda n: n / 16)
pytestmark = pytest.mark.filterwarnings("error")

# One image each: boxes, detections, and (truth, found) -> how often.
BY_HAND = {
    "right": ([(0, *BOX)], [(0, *BOX, 0.9)], {(0, 0): 1}),
    "taken for another class": ([(0, *BOX)], [(1, *BOX, 0.9)], {(0, 1): 1}),
    "not found": ([(2, *BOX)], None, {(2, NOTHING): 1}),
    "nothing there": ([], [(1, *BOX, 0.9)], {(NOTHING, 1): 1}),
    "too far off": ([(0, *BOX)], [(0, 0, 0, 10, 4.9, 0.9)], {(0, NOTHING): 1, (NOTHING, 0): 1}),
    "just near enough": ([(0, *BOX)], [(0, *HALF, 0.9)], {(0, 0): 1}),
    "at the threshold": ([(0, *BOX)], [(0, *BOX, 0.3)], {(0, NOTHING): 1}),
    "the surer one takes it, right or wrong": (
        [(0, *BOX)], [(1, *BOX, 0.9), (0, *BOX, 0.8)], {(0, 1): 1, (NOTHING, 0): 1}
    ),
    "the nearest, not that of the same class": (
        [(0, *BOX), (1, *HALF)], [(0, *HALF, 0.9)], {(1, 0): 1, (0, NOTHING): 1}
    ),
    "the next nearest if the nearest is taken": (
        [(0, *BOX), (1, *HALF)], [(1, *HALF, 0.9), (0, *HALF, 0.8)], {(1, 1): 1, (0, 0): 1}
    ),
    "inside a crowd": ([(0, *CROWD)], [(0, *INSIDE, 0.9)], {}),
    "inside a crowd of another class": ([(1, *CROWD)], [(0, *INSIDE, 0.9)], {(NOTHING, 0): 1}),
    "inside a crowd, on a box of its class": ([(0, *CROWD), (0, *INSIDE)], [(0, *INSIDE, 0.9)], {(0, 0): 1}),
    "inside a crowd, on a box of another class": (
        [(0, *CROWD), (1, *INSIDE)], [(0, *INSIDE, 0.9), (1, *INSIDE, 0.8)], {(1, 1): 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    truth, rows, expected = BY_HAND[case]
    result = confusion_matrix(*scene((truth, rows)), threshold=0.3)
    matrix = np.zeros((4, 4), np.int64)
    for cell, count in expected.items():
        matrix[cell] = count
    np.testing.assert_array_equal(result.matrix, matrix)
    assert result.names == ("a", "b", "c")
    assert result.matrix.dtype == np.int64


@settings(max_examples=100, deadline=None)
@given(scenes(), THRESHOLDS)
def test_rows_are_the_boxes_and_columns_the_detections(made, threshold):
    data, found = made
    matrix = confusion_matrix(data, found, threshold).matrix
    boxes = [data.labels(i)[~data.crowd(i)] for i in range(len(data))]
    expected = np.bincount(np.concatenate([*boxes, []]).astype(int), minlength=3)
    np.testing.assert_array_equal(matrix[:3].sum(axis=1), expected)
    kept = [one.above(threshold).labels.numpy() for one in found.values()]
    counts = np.bincount(np.concatenate([*kept, []]).astype(int), minlength=3)
    if any(data.crowd(i).any() for i in range(len(data))):
        assert (matrix[:, :3].sum(axis=0) <= counts).all()
    else:
        np.testing.assert_array_equal(matrix[:, :3].sum(axis=0), counts)
    assert matrix[3, 3] == 0
    assert matrix.min() >= 0


@settings(max_examples=100, deadline=None)
@given(scenes(classes=1), THRESHOLDS)
def test_one_class_is_confused_with_nothing_but_background(made, threshold):
    data, found = made
    judged = image_results(data, found, threshold)
    right, missed = (sum(int(getattr(one, name).sum()) for one in judged) for name in ("correct", "missed"))
    wrong = sum(len(one.correct) for one in judged) - right
    assert confusion_matrix(data, found, threshold).matrix.tolist() == [[right, missed], [wrong, 0]]


@settings(max_examples=100, deadline=None)
@given(scenes(), THRESHOLDS)
def test_judged_images_add_up_to_the_curves(made, threshold):
    data, found = made
    judged = image_results(data, found, threshold)
    assert [one.index for one in judged] == list(range(len(data)))
    right, kept = np.zeros((2, 3))
    for one in judged:
        assert one.correct.dtype == one.missed.dtype == bool
        assert one.missed.shape == data.labels(one.index).shape
        assert not (one.missed & data.crowd(one.index)).any()
        assert one.correct.sum() + one.missed.sum() == (~data.crowd(one.index)).sum()
        if one.index in found:
            assert (found[one.index].scores[one.kept] > threshold).all()
            labels = found[one.index].labels.numpy()[one.kept]
            np.add.at(kept, labels, 1)
            np.add.at(right, labels[one.correct], 1)
    for label, curve in enumerate(curves(data, found).per_class):
        above = int((curve.scores > threshold).sum())
        precision, recall = (curve.precision[above - 1], curve.recall[above - 1]) if above else (0, 0)
        assert right[label] == pytest.approx(precision * kept[label])
        assert right[label] / max(curve.boxes, 1) == pytest.approx(recall)


def test_the_threshold_is_compared_as_detections_compare_it():
    data, found = scene(([(0, *BOX)], [(0, *BOX, 0.3)]))  # 0.3 is a little more in float32 than in float64
    assert len(found[0].above(0.3)) == 0
    assert len(image_results(data, found, 0.3)[0].kept) == confusion_matrix(data, found, 0.3).matrix[0, 0] == 0
    assert len(image_results(data, found, 0.29)[0].kept) == confusion_matrix(data, found, 0.29).matrix[0, 0] == 1


def test_a_judged_image():
    truth = [(0, *BOX), (1, *AWAY), (0, *CROWD)]
    rows = [(0, *BOX, 0.9), (0, *INSIDE, 0.8), (0, *AWAY, 0.7), (2, *EMPTY, 0.5), (1, *AWAY, 0.2)]
    (one,) = image_results(*scene((truth, rows)), threshold=0.3)
    assert one.kept.tolist() == [0, 2, 3]
    assert one.correct.tolist() == [True, False, False]
    assert one.missed.tolist() == [False, True, False]
    assert one.severity == pytest.approx(1 + 0.7 + 0.5)
    assert one.mistakes == 3


def test_the_worst_first():
    box = [(0, *BOX)]
    data, found = scene(
        (box, [(0, *BOX, 0.9)]),  # no fault
        (box, [(0, *BOX, 0.9), (0, *EMPTY, 0.5)]),
        (box, [(0, *BOX, 0.9), (0, *EMPTY, 0.8)]),  # as wrong, but surer
        (box, None),  # missed
        (box, [(1, *BOX, 0.9)]),  # missed, and wrong
        ([], None),
        (box, [(0, *BOX, 0.9), (0, *EMPTY, 0.5), (0, *EMPTY, 0.5)]),  # as bad as a missed one, with more faults
        (box, [(0, *BOX, 0.9), *[(0, *EMPTY, 0.31)] * 3]),  # more faults than a missed box, and less bad
    )
    judged = image_results(data, found, 0.3)
    assert [one.index for one in worst(judged, 10)] == [4, 6, 3, 7, 2, 1]
    assert [one.index for one in worst(judged, 2)] == [4, 6]
    assert worst(judged, 0) == worst(judged[:1], 5) == worst([], 5) == []


def test_some_images_only_and_another_iou():
    data, found = scene(([(0, *BOX)], [(0, *HALF, 0.9)]), ([(1, *BOX)], None))
    assert confusion_matrix(data, found, 0.3, indices=iter([1, 1])).matrix.sum() == 1
    assert confusion_matrix(data, found, 0.3, iou=0.6).matrix[NOTHING, 0] == 1
    assert [one.index for one in image_results(data, found, 0.3, indices=iter([1, 1]))] == [1]
    assert image_results(data, found, 0.3, iou=0.6)[0].correct.tolist() == [False]


def test_an_empty_data_set():
    data, found = scene()
    assert confusion_matrix(data, found, 0.3).matrix.tolist() == np.zeros((4, 4)).tolist()
    assert image_results(data, found, 0.3) == []
