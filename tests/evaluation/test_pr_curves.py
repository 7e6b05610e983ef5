"""Precision, recall and F1 by threshold: by hand, against counting anew at each threshold, and against COCO's AP."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.plain_matching import matched_by_hand
from helpers.synthetic_data import scene, scenes
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.pr_curves import curves

BOX, AWAY, THIRD = (0, 0, 10, 10), (40, 40, 50, 50), (80, 0, 90, 10)
EMPTY = (200, 200, 210, 210)
pytestmark = pytest.mark.filterwarnings("error")


def counted(data, found, threshold):
    """(classes, 3): right detections, right and wrong ones, and boxes, of the detections above a threshold."""
    rows = matched_by_hand(data, {i: one.above(threshold) for i, one in found.items()}, 0.5)
    counts = np.zeros((len(data.class_names), 3))
    for _, label, _, right, ignored in rows:
        counts[label] += (right, not ignored, 0)
    for label, *_, crowd in itertools.chain(*data.truth):
        counts[label, 2] += not crowd
    return counts


def mean_f1(data, found, threshold):
    f1 = [2 * right / (judged + boxes) for right, judged, boxes in counted(data, found, threshold) if boxes]
    return np.mean(f1) if f1 else 0.0


def test_by_hand():
    truth = [(0, *BOX), (0, *AWAY)]
    result = curves(*scene((truth, [(0, *BOX, 0.9), (0, *EMPTY, 0.6), (0, *AWAY, 0.4)]), names=("a",)))
    (curve,) = result.per_class
    assert (curve.name, curve.boxes) == ("a", 2)
    assert curve.scores == pytest.approx([0.9, 0.6, 0.4])
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall == pytest.approx([1 / 2, 1 / 2, 1])
    assert curve.f1 == pytest.approx([2 / 3, 1 / 2, 4 / 5])
    assert (curve.threshold, curve.best_f1) == pytest.approx((0.2, 0.8))
    assert (result.threshold, result.best_f1) == pytest.approx((0.2, 0.8))
    assert curve.ap50 == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert result.thresholds[[0, 1, -1]] == pytest.approx([0, 0.001, 1])
    at = {0.0: (4 / 5, 2 / 3, 1), 0.5: (1 / 2, 1 / 2, 1 / 2), 0.6: (2 / 3, 1, 1 / 2), 0.95: (0, 1, 0)}
    for threshold, expected in at.items():
        place = round(threshold * 1000)
        assert (result.f1[place], result.precision[place], result.recall[place]) == pytest.approx(expected)


def test_the_threshold_lies_between_detections_and_in_the_widest_of_equal_stretches():
    truth = [(0, *BOX), (0, *AWAY)]
    rows = [(0, *BOX, 0.9), (0, *AWAY, 0.7), (0, *EMPTY, 0.2)]
    assert curves(*scene((truth, rows))).threshold == pytest.approx(0.45)
    # F1 2 / 3 above 0.85, and again, with one more right and two more wrong, from 0.5 down to 0.1.
    rows = [(0, *BOX, 0.9), *[(0, *EMPTY, score) for score in (0.85, 0.8)], (0, *AWAY, 0.5), (0, *EMPTY, 0.1)]
    result = curves(*scene((truth, rows)))
    assert (result.threshold, result.best_f1) == pytest.approx((0.3, 2 / 3))
    assert result.per_class[0].threshold == pytest.approx(0.3)


def test_the_threshold_is_no_score_even_between_equal_stretches():
    """At 0.5 class b gains what class a loses: the mean F1 is the same from 0.75 down to 0.25."""
    rows = [(0, *BOX, 0.75), (0, *EMPTY, 0.5), (1, *BOX, 0.75), (1, *AWAY, 0.5), (1, *EMPTY, 0.25)]
    result = curves(*scene(([(0, *BOX), (1, *BOX), (1, *AWAY)], rows)))
    assert result.f1[[300, 600]] == pytest.approx([5 / 6, 5 / 6])
    assert (result.threshold, result.best_f1) == pytest.approx((0.625, 5 / 6))


def test_the_mean_threshold_weighs_classes_with_boxes_alike_and_no_others():
    truth = [(0, *BOX), (1, *AWAY)]
    rows = [(0, *BOX, 0.9), (0, *EMPTY, 0.8), (1, *AWAY, 0.4), (1, *EMPTY, 0.3), (2, *EMPTY, 1.0), (2, *THIRD, 0.01)]
    result = curves(*scene((truth, rows)))
    # Above 0.3 and up to 0.4: class a has F1 2 / 3 and class b 1. The mean is best there, a alone is best above 0.8.
    assert (result.threshold, result.best_f1) == pytest.approx((0.35, 5 / 6))
    assert [curve.threshold for curve in result.per_class] == pytest.approx([0.85, 0.35, 0.3])
    assert [curve.ap50 for curve in result.per_class] == [1, 1, None]
    assert result.precision[500] == pytest.approx(1 / 2), "the class of which nothing is kept is left out"
    assert result.recall[500] == pytest.approx(1 / 2)


def test_detections_in_crowds_count_neither_way():
    crowd, inside = (0, 100, 100, 200, 200, True), (0, 110, 110, 130, 130)
    clean = scene(([(0, *BOX)], [(0, *BOX, 0.5)]))
    crowded = scene(([(0, *BOX), crowd], [(0, *BOX, 0.5), (0, *inside[1:], 0.9), (0, *inside[1:], 0.1)]))
    first, second = (curves(*one).per_class[0] for one in (clean, crowded))
    assert (first.boxes, second.boxes) == (1, 1)
    for name in ("scores", "precision", "recall"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.ap50, first.threshold) == (second.ap50, second.threshold) == (1, 0.25)


@settings(max_examples=120, deadline=None)
@given(scenes(), st.integers(0, 1000))
def test_every_point_is_what_counting_anew_gives(made, place):
    data, found = made
    result = curves(data, found)
    for label, curve in enumerate(result.per_class):
        assert (np.diff(curve.scores) < 0).all()
        for i, score in enumerate(curve.scores):
            right, judged, boxes = counted(data, found, score - 1e-6)[label]
            assert curve.precision[i] == pytest.approx(right / judged)
            assert curve.recall[i] == pytest.approx(right / max(boxes, 1))
            assert curve.boxes == boxes
    rows = counted(data, found, float(result.thresholds[place]))
    rows = rows[rows[:, 2] > 0]
    assert result.f1[place] == pytest.approx(mean_f1(data, found, float(result.thresholds[place])))
    assert result.recall[place] == pytest.approx((rows[:, 0] / rows[:, 2]).mean() if len(rows) else 0)
    kept = rows[rows[:, 1] > 0]
    empty = 1 if len(rows) else 0
    assert result.precision[place] == pytest.approx((kept[:, 0] / kept[:, 1]).mean() if len(kept) else empty)


@settings(max_examples=120, deadline=None)
@given(scenes())
def test_no_threshold_is_better(made):
    data, found = made
    result = curves(data, found)
    scores = {0.0} | {score for one in found.values() for score in one.scores.tolist()}
    every = {score: mean_f1(data, found, score) for score in scores}  # keeps those above, up to the next score
    assert result.best_f1 == pytest.approx(max(every.values()))
    assert mean_f1(data, found, result.threshold) == pytest.approx(result.best_f1)
    assert result.f1.max() <= result.best_f1 + 1e-9
    if result.best_f1:
        seen = {score for curve in result.per_class if curve.boxes for score in curve.scores.tolist()}
        assert result.threshold not in seen
    else:
        assert result.threshold == 0.3
    for curve in result.per_class:
        assert curve.best_f1 == pytest.approx(curve.f1.max(initial=0))


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_ap50_is_cocos(made):
    data, found = made
    for curve, expected in zip(curves(data, found).per_class, coco_metrics.evaluate(data, found).per_class):
        assert (curve.name, curve.boxes) == (expected.name, expected.boxes)
        assert curve.ap50 == (None if expected.ap50 is None else pytest.approx(expected.ap50, abs=1e-9))


def test_cocos_limit_holds_for_ap_alone():
    boxes = [(0, 20 * i, 0, 20 * i + 10, 10) for i in range(150)]
    data, found = scene((boxes, [(*box, 1 - i / 200) for i, box in enumerate(boxes)]))
    curve = curves(data, found).per_class[0]
    assert (curve.recall[-1], curve.precision[-1]) == (1, 1)
    assert curve.ap50 == pytest.approx(coco_metrics.evaluate(data, found).per_class[0].ap50, abs=1e-9)
    assert curve.ap50 == pytest.approx(67 / 101)


@pytest.mark.parametrize("rows", [None, [], [(0, *EMPTY, 0.7)], [(1, *BOX, 0.7)]])
def test_nothing_right(rows):
    result = curves(*scene(([(0, *BOX)], rows)))
    assert (result.threshold, result.best_f1, result.f1.max(), result.recall.max()) == (0.3, 0, 0, 0)
    curve = result.per_class[0]
    assert (curve.threshold, curve.best_f1, curve.ap50) == (0.3, 0, 0)


@pytest.mark.parametrize("images", [[], [([], [(0, *BOX, 0.7)])], [([], None)], [([(0, *BOX, True)], None)]])
def test_no_truth(images):
    result = curves(*scene(*images))
    assert (result.threshold, result.best_f1) == (0.3, 0)
    assert [curve.ap50 for curve in result.per_class] == [None] * 3
    for means in (result.f1, result.precision, result.recall):
        np.testing.assert_array_equal(means, np.zeros(1001))


def test_some_images_only_and_another_iou():
    half = (0, 0, 0, 10, 5)
    data, found = scene(([(0, *BOX)], [(*half, 0.9)]), ([(0, *BOX)], [(0, *BOX, 0.8)]))
    assert curves(data, found).per_class[0].ap50 == 1
    assert curves(data, found, indices=[1]).per_class[0].scores == pytest.approx([0.8])
    assert curves(data, found, iou=0.75).per_class[0].recall == pytest.approx([0, 0.5])
    assert curves(data, found, iou=0.75, indices=iter([0, 0])).per_class[0].ap50 == 0
