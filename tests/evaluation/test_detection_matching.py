"""One image at one IoU; interval.match, which is held against COCO's own code, is the judge."""

import numpy as np
import pytest
from hypothesis import given, settings

from helpers.synthetic_data import scene, scenes
from retinanet.evaluation.bootstrap import THRESHOLDS, match
from retinanet.evaluation.detection_matching import pair

BOX = (0, 0, 10, 10)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_right_and_ignored_are_those_of_all_ious_at_once(made):
    data, found = made
    for index in range(len(data)):
        per_class = match(data, found, [index])
        for t, iou in enumerate(THRESHOLDS):
            pairs = pair(data, found, index, float(iou))
            for label, expected in enumerate(per_class):
                mine = pairs.labels == label
                np.testing.assert_array_equal(pairs.right[mine], expected.hits[t])
                np.testing.assert_array_equal(pairs.ignored[mine], expected.ignored[t])
                np.testing.assert_array_equal(pairs.ranks[mine], np.arange(mine.sum()))


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_a_box_is_found_once_by_a_detection_of_its_class_that_is_near(made):
    data, found = made
    for index in range(len(data)):
        pairs = pair(data, found, index, 0.5)
        boxes = pairs.boxes[pairs.right]
        assert len(set(boxes.tolist())) == len(boxes)
        assert not pairs.crowd[boxes].any()
        assert (pairs.truths[boxes] == pairs.labels[pairs.right]).all()
        assert (pairs.overlap[np.flatnonzero(pairs.right), boxes] >= 0.5).all()
        assert (np.diff(pairs.scores) <= 0).all()
        if index in found:
            np.testing.assert_array_equal(found[index].scores.numpy()[pairs.places], pairs.scores)


def test_the_surest_first_whatever_the_order():
    data, found = scene(([(0, *BOX)], [(0, *BOX, 0.9), (0, *BOX, 0.3)]))
    for column in (found[0].boxes, found[0].scores, found[0].labels):
        column.copy_(column.flip(0))
    pairs = pair(data, found, 0, 0.5)
    assert pairs.places.tolist() == [1, 0]
    assert pairs.boxes.tolist() == [0, -1]


def test_of_boxes_as_near_the_last_is_taken():
    truth = [(0, 0, 0, 10, 8), (0, 0, 2, 10, 10)]
    made = scene((truth, [(0, 0, 0, 10, 10, 0.9), (0, 0, 0, 10, 4, 0.8)]))
    assert pair(*made, 0, 0.5).boxes.tolist() == [1, 0]
    assert match(*made)[0].hits[0].all()


@pytest.mark.parametrize(("iou", "right"), [(0.5, True), (0.51, False)])
def test_an_overlap_that_just_reaches_is_enough(iou, right):
    data, found = scene(([(0, *BOX)], [(0, 0, 0, 10, 5, 0.9)]))
    assert pair(data, found, 0, iou).right.tolist() == [right]


def test_a_image_without_boxes_or_without_detections():
    data, found = scene(([], [(0, *BOX, 0.9)]), ([(0, *BOX)], None), ([], []))
    shapes = [pair(data, found, i, 0.5).overlap.shape for i in range(3)]
    assert shapes == [(1, 0), (0, 1), (0, 0)]
    assert not pair(data, found, 0, 0.5).right.any()
