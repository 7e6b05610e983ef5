"""One image at one IoU, against the plain definition and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.plain_matching import matched_by_hand
from helpers.synthetic_data import scene, scenes
from retinanet.evaluation.bootstrap import THRESHOLDS, match_detections
from retinanet.evaluation.detection_matching import pair

BOX = (0, 0, 10, 10)


@settings(max_examples=100, deadline=None)
@given(scenes(), st.sampled_from(THRESHOLDS.tolist()))
def test_matches_are_those_of_the_plain_definition(made, iou):
    data, found = made
    rows = matched_by_hand(data, found, iou)
    for index in range(len(data)):
        pairs = pair(data, found, index, iou)
        expected = [row[1:] for row in rows if row[0] == index]
        columns = (pairs.labels, pairs.scores, pairs.correct, pairs.ignored)
        assert list(zip(*(column.tolist() for column in columns))) == expected
        for label in range(len(data.class_names)):
            ranks = pairs.ranks[pairs.labels == label]
            assert ranks.tolist() == list(range(len(ranks)))


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_a_box_is_found_once_by_a_detection_of_its_class_that_is_near(made):
    data, found = made
    for index in range(len(data)):
        pairs = pair(data, found, index, 0.5)
        boxes = pairs.boxes[pairs.correct]
        assert len(set(boxes.tolist())) == len(boxes)
        assert not pairs.crowd[boxes].any()
        assert (pairs.box_labels[boxes] == pairs.labels[pairs.correct]).all()
        assert (pairs.overlap[np.flatnonzero(pairs.correct), boxes] >= 0.5).all()
        assert (np.diff(pairs.scores) <= 0).all()
        if index in found:
            np.testing.assert_array_equal(found[index].scores.numpy()[pairs.indices], pairs.scores)


def test_the_surest_first_whatever_the_order():
    data, found = scene(([(0, *BOX)], [(0, *BOX, 0.9), (0, *BOX, 0.3)]))
    for column in (found[0].boxes, found[0].scores, found[0].labels):
        column.copy_(column.flip(0))
    pairs = pair(data, found, 0, 0.5)
    assert pairs.indices.tolist() == [1, 0]
    assert pairs.boxes.tolist() == [0, -1]


def test_of_boxes_as_near_the_last_is_taken():
    truth = [(0, 0, 0, 10, 8), (0, 0, 2, 10, 10)]
    made = scene((truth, [(0, 0, 0, 10, 10, 0.9), (0, 0, 0, 10, 4, 0.8)]))
    assert pair(*made, 0, 0.5).boxes.tolist() == [1, 0]
    assert match_detections(*made)[0].hits[0].all()


@pytest.mark.parametrize(("iou", "right"), [(0.5, True), (0.51, False)])
def test_an_overlap_that_just_reaches_is_enough(iou, right):
    data, found = scene(([(0, *BOX)], [(0, 0, 0, 10, 5, 0.9)]))
    assert pair(data, found, 0, iou).correct.tolist() == [right]


def test_an_image_without_boxes_or_without_detections():
    data, found = scene(([], [(0, *BOX, 0.9)]), ([(0, *BOX)], None), ([], []))
    shapes = [pair(data, found, i, 0.5).overlap.shape for i in range(3)]
    assert shapes == [(1, 0), (0, 1), (0, 0)]
    assert not pair(data, found, 0, 0.5).correct.any()
