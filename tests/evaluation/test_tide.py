"""Errors by kind: scenes with known answers, repairs done to the data itself and judged by COCO, and TIDE's figures."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from helpers.plain_matching import overlap_by_hand
from helpers.synthetic_data import Scenes, detections, scene, scenes
from retinanet.data import open_data
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.bootstrap import match_detections
from retinanet.evaluation.tide import KINDS, error_costs
from retinanet.inference.detections import Detections

BOX, AWAY, EMPTY = (0, 0, 10, 10), (40, 40, 50, 50), (200, 200, 210, 210)
NEAR = (0, 0, 10, 4)  # IoU 0.4 with BOX
HALF = (0, 0, 10, 5)  # IoU 0.5
TENTH, LESS = (0, 0, 10, 1), (0, 0, 10, 0.99)
pytestmark = pytest.mark.filterwarnings("error")


def only(**counts):
    return dict.fromkeys(KINDS, 0) | counts


# One image each: boxes, detections, how many errors of each kind, AP50, and what repairing each kind alone adds.
BY_HAND = {
    "all right": ([(0, *BOX)], [(0, *BOX, 0.9)], only(), 1, only()),
    "class": ([(0, *BOX)], [(1, *BOX, 0.9)], only(**{"class": 1}), 0, only(**{"class": 1})),
    "class, an IoU of just 0.5": ([(0, *BOX)], [(1, *HALF, 0.9)], only(**{"class": 1}), 0, only(**{"class": 1})),
    "class, and the box is found already": (
        [(0, *BOX)], [(0, *BOX, 0.8), (1, *BOX, 0.9)], only(**{"class": 1}), 1, only()
    ),
    "class, of an own box that is found less surely": (
        [(0, *BOX), (1, *AWAY)], [(0, *BOX, 0.8), (1, *BOX, 0.9), (1, *AWAY, 0.7)],
        only(**{"class": 1}), 0.75, only(**{"class": 0.25}),
    ),
    "location": ([(0, *BOX)], [(0, *NEAR, 0.9)], only(location=1), 0, only(location=1)),
    "location, an IoU of just 0.1": ([(0, *BOX)], [(0, *TENTH, 0.9)], only(location=1), 0, only(location=1)),
    "location, the surer of two counts": (
        [(0, *BOX)], [(0, *NEAR, 0.9), (0, *EMPTY, 0.8), (0, *NEAR, 0.7)],
        only(location=2, background=1), 0, only(location=1),
    ),
    "location, and the box is found already": (
        [(0, *BOX)], [(0, *NEAR, 0.9), (0, *BOX, 0.8)], only(location=1), 0.5, only(location=0.5)
    ),
    "a class and a location error about one box": (
        [(0, *BOX)], [(1, *BOX, 0.9), (0, *NEAR, 0.8)],
        only(**{"class": 1, "location": 1}), 0, only(**{"class": 1, "location": 1}),
    ),
    "both": ([(0, *BOX)], [(1, *NEAR, 0.9), (0, *BOX, 0.8)], only(both=1), 1, only()),
    "both, of an own box elsewhere": (
        [(0, *BOX), (1, *AWAY)], [(1, *NEAR, 0.9), (0, *BOX, 0.8), (1, *AWAY, 0.8)], only(both=1), 0.75, only(both=0.25)
    ),
    "both does not cover": ([(0, *BOX)], [(1, *NEAR, 0.9)], only(both=1, missed=1), 0, only(missed=1)),
    "duplicate": (
        [(0, *BOX), (0, *AWAY)], [(0, *BOX, 0.9), (0, *HALF, 0.8), (0, *AWAY, 0.7)],
        only(duplicate=1), (51 + 50 * 2 / 3) / 101, only(duplicate=50 / 303),
    ),
    "background": ([(0, *BOX)], [(0, *EMPTY, 0.9), (0, *BOX, 0.8)], only(background=1), 0.5, only(background=0.5)),
    "background, an IoU below 0.1": (
        [(0, *BOX)], [(0, *LESS, 0.9), (0, *BOX, 0.8)], only(background=1), 0.5, only(background=0.5)
    ),
    "missed": ([(0, *BOX), (0, *AWAY)], [(0, *BOX, 0.9)], only(missed=1), 51 / 101, only(missed=50 / 101)),
    "missed, a whole class": ([(0, *BOX), (1, *AWAY)], [(0, *BOX, 0.9)], only(missed=1), 0.5, only(missed=0.5)),
    "nothing found": ([(0, *BOX), (1, *AWAY)], None, only(missed=2), 0, only(missed=1)),
    "inside a crowd": (
        [(0, *BOX), (0, 100, 100, 200, 200, True)], [(0, 110, 110, 120, 120, 0.9), (0, *BOX, 0.8)], only(), 1, only()
    ),
    "of another class than the crowd": (
        [(0, *BOX), (1, 100, 100, 200, 200, True)], [(0, 110, 110, 120, 120, 0.9), (0, *BOX, 0.8)],
        only(background=1), 0.5, only(background=0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    truth, rows, counts, ap50, cost = BY_HAND[case]
    result = error_costs(*scene((truth, rows)))
    assert result.counts == counts
    assert tuple(result.counts) == tuple(result.cost) == KINDS
    assert result.ap50 == pytest.approx(ap50)
    assert result.cost == pytest.approx(cost)


def test_what_all_wrong_detections_and_all_boxes_not_found_cost():
    truth = [(0, *BOX), (0, *AWAY)]
    result = error_costs(*scene((truth, [(0, *EMPTY, 0.9), (0, *BOX, 0.8), (1, *AWAY, 0.7)])))
    assert result.ap50 == pytest.approx(51 / 101 / 2)
    assert result.false_positives == pytest.approx(51 / 101 / 2)  # all precision, half the recall
    assert result.false_negatives == pytest.approx(1 / 2 - 51 / 101 / 2)  # all recall, half the precision
    assert result.counts == only(background=1, **{"class": 1})


def test_counts_at_a_threshold():
    """Costs are those of all detections."""
    truth = [(0, *BOX), (0, *AWAY)]
    case = scene((truth, [(0, *BOX, 0.9), (0, *EMPTY, 0.8), (0, *AWAY, 0.5), (0, *EMPTY, 0.25)]))
    every, above = error_costs(*case), error_costs(*case, threshold=0.5)
    assert every.counts == only(background=2)
    assert above.counts == only(background=1, missed=1)
    assert (above.ap50, above.cost) == (every.ap50, every.cost)
    assert error_costs(*case, threshold=0.0).counts == every.counts


def test_location_comes_before_class_and_class_before_duplicate():
    near_and_other = scene(([(0, *BOX), (1, *NEAR)], [(0, *NEAR, 0.9)]))
    assert error_costs(*near_and_other).counts == only(location=1, missed=1)
    taken_and_other = scene(([(0, *BOX), (1, *HALF)], [(0, *BOX, 0.9), (0, *HALF, 0.8)]))
    assert error_costs(*taken_and_other).counts == only(**{"class": 1})


def test_of_each_class_in_an_image_a_hundred_detections_count():
    rows = [(label, *EMPTY, 0.9) for label in (0, 0, 1)] * 60
    result = error_costs(*scene(([(0, *BOX)], [*rows, (0, *BOX, 0.1)])))
    assert result.counts == only(background=160, missed=1)


@pytest.mark.parametrize("images", [[], [([], None)], [([(0, *BOX, True)], [(0, *BOX, 0.9)])]])
def test_no_truth(images):
    result = error_costs(*scene(*images))
    assert (result.ap50, result.counts, result.cost) == (0, only(), only())
    assert (result.false_positives, result.false_negatives) == (0, 0)


def test_no_truth_but_detections():
    result = error_costs(*scene(([], [(0, *BOX, 0.9)])))
    assert (result.ap50, result.counts, result.cost) == (0, only(background=1), only())


def test_some_images_only():
    data, found = scene(([(0, *BOX)], [(0, *BOX, 0.9)]), ([(0, *BOX)], None))
    assert error_costs(data, found, indices=iter([0, 0])).counts == only()
    assert error_costs(data, found).counts == only(missed=1)


# ------------------------------------------------------------------------------- repairs done to the data, by COCO


def sorted_out(truth, rows):
    """The kinds one image's detections are of, the boxes they are about, and the kind of each box."""
    kinds, about = [None] * len(rows), [None] * len(rows)
    fate = [None if row[5] else "missed" for row in truth]
    real = [j for j, row in enumerate(truth) if not row[5]]
    ious = [[overlap_by_hand(row[1:5], other[1:5], False) for other in truth] for row in rows]
    for i, ((label, *box, _), iou) in enumerate(zip(rows, ious)):
        near = [(iou[j], j) for j in real if truth[j][0] == label and fate[j] != "found"]
        if near and max(near)[0] >= 0.5:
            kinds[i], fate[max(near)[1]] = "right", "found"
        elif any(row[5] and row[0] == label and overlap_by_hand(box, row[1:5], True) >= 0.5 for row in truth):
            kinds[i] = "ignored"
    for i, ((label, *_), iou) in enumerate(zip(rows, ious)):
        if kinds[i]:
            continue
        same, other = (
            max(
                ((iou[j], -j) for j in real if (truth[j][0] == label) is own),
                default=(0, None),
            )
            for own in (True, False)
        )
        if 0.1 <= same[0] < 0.5:
            kinds[i], about[i] = "location", -same[1]
        elif other[0] >= 0.5:
            kinds[i], about[i] = "class", -other[1]
        elif same[0] >= 0.5:
            kinds[i] = "duplicate"
        else:
            kinds[i] = "both" if other[0] >= 0.1 else "background"
        if about[i] is not None and fate[about[i]] == "missed":
            fate[about[i]] = "covered"
    return kinds, about, fate


def repaired(data, found, kind):
    """The data as an oracle leaves it; a repaired detection lies right on its box."""
    truths, new = [], {}
    for index, truth in enumerate(data.truth):
        one = found.get(index)
        columns = (one.labels, one.boxes, one.scores) if one else ()
        rows = [(label, *box, score) for label, box, score in zip(*(column.tolist() for column in columns))]
        kinds, about, fate = sorted_out(truth, rows)
        done, left = {j for j, what in enumerate(fate) if what == "found"}, []
        for row, its_kind, j in zip(rows, kinds, about):
            if its_kind == kind and j is not None and j not in done:
                done.add(j)
                left.append((*truth[j][:5], row[5]))
            elif its_kind != kind and not (kind == "false positives" and its_kind not in ("right", "ignored")):
                left.append(row)
        new[index] = detections(left)
        lost = {"missed": ("missed",), "false negatives": ("missed", "covered")}.get(kind, ())
        truths.append([row for row, what in zip(truth, fate) if what not in lost])
    ap50 = coco_metrics.evaluate(Scenes(truths), new).stats["AP50"]
    return 1.0 if ap50 == -1 else ap50


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_costs_are_what_coco_says_of_repaired_data(made):
    data, found = made
    result = error_costs(data, found)
    if not any(not row[5] for truth in data.truth for row in truth):
        return
    now = coco_metrics.evaluate(data, found).stats["AP50"]
    assert result.ap50 == pytest.approx(now, abs=1e-6)
    expected = {kind: repaired(data, found, kind) - now for kind in KINDS}
    assert result.cost == pytest.approx(expected, abs=1e-6)
    assert result.false_positives == pytest.approx(repaired(data, found, "false positives") - now, abs=1e-6)
    assert result.false_negatives == pytest.approx(repaired(data, found, "false negatives") - now, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_every_detection_is_right_or_ignored_or_one_error(made):
    data, found = made
    result = error_costs(data, found)
    matches = match_detections(data, found)
    right, ignored = (sum(int(at[0].sum()) for at in side) for side in zip(*((m.hits, m.ignored) for m in matches)))
    wrong = sum(result.counts.values()) - result.counts["missed"]
    assert right + ignored + wrong == sum(map(len, found.values()))
    boxes = sum(int(m.boxes.sum()) for m in matches)
    assert right + result.counts["missed"] <= boxes <= right + wrong + result.counts["missed"]
    assert min(*result.cost.values(), result.false_positives, result.false_negatives) >= -1e-9
    removed = [result.cost[kind] for kind in ("both", "duplicate", "background")]
    assert max(removed) <= result.false_positives + 1e-9
    assert result.cost["missed"] <= result.false_negatives + 1e-9
    assert 0 <= result.ap50 <= 1


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_perfect_detections_have_no_errors(made):
    data, _ = made
    found = {i: detections([(*row[:5], 0.5) for row in truth if not row[5]]) for i, truth in enumerate(data.truth)}
    result = error_costs(data, found)
    assert result.counts == only()
    assert result.cost == only()
    assert (result.false_positives, result.false_negatives) == (0, 0)
    assert result.ap50 == (1 if any(map(len, found.values())) else 0)


# -------------------------------------------------------------------------------------------------- a real detector


def test_tides_own_figures(real):
    """tidecv 1.0.1's on the same boxes, with what the module says differs changed there, and recalls as COCO's.

    Counts need no change. There are no crowds here, and no two scores are equal: tidecv orders equals in a way of its
    own. The result file counts images from 51 and classes from 1.
    """
    results = json.loads((real("coco_eval") / "tiny_coco_val_results.json").read_text())
    whole = open_data(real("tiny_coco"), "val2017")
    truth = []
    for i in range(len(whole)):
        rows = zip(whole.labels(i).tolist(), whole.boxes(i).tolist(), whole.crowd(i).tolist())
        truth.append([(label, *box, False) for label, box, crowd in rows if not crowd])
    rows = [[] for _ in range(len(whole))]
    results.sort(key=lambda result: -result["score"])
    for n, result in enumerate(results):
        x, y, w, h = result["bbox"]
        rows[result["image_id"] - 51].append((result["category_id"] - 1, x, y, x + w, y + h, 1 - n / 8192))
    found = {i: detections(one, whole.class_names) for i, one in enumerate(rows)}
    result = error_costs(Scenes(truth, whole.class_names), found)
    assert result.ap50 == pytest.approx(0.4223835, abs=1e-6)
    assert list(result.counts.values()) == [624, 875, 684, 169, 2424, 75]
    assert list(result.cost.values()) == pytest.approx(
        [0.043316, 0.062880, 0.007410, 0.003854, 0.038572, 0.139896], abs=1e-6
    )
    assert (result.false_positives, result.false_negatives) == pytest.approx((0.188796, 0.249022), abs=1e-6)


def test_middling_detections_on_tiny_coco_have_cocos_ap50(real):
    data = open_data(real("tiny_coco"), "val2017")
    random = np.random.default_rng(0)
    found = {}
    for i in range(len(data)):
        boxes = torch.from_numpy(np.repeat(data.boxes(i), 2, axis=0).copy())
        boxes += torch.from_numpy(random.normal(0, 12, boxes.shape)).float()
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = torch.from_numpy(np.repeat(data.labels(i), 2))
        labels = torch.where(torch.from_numpy(random.random(len(labels)) < 0.2), labels.roll(1), labels)
        scores = torch.from_numpy(np.sort(random.random(len(labels)))[::-1].round(2).copy()).float()
        found[i] = Detections(boxes, scores, labels, data.class_names)
    result = error_costs(data, found)
    assert result.ap50 == pytest.approx(coco_metrics.evaluate(data, found).stats["AP50"], abs=1e-6)
    assert 0.1 < result.ap50 < 0.9
    assert min(result.counts.values()) > 0
    assert min(*result.cost.values(), result.false_positives, result.false_negatives) > 0
