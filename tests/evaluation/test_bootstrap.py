"""The bootstrap: weighing images gives COCO's AP of a data set in which they stand as often; intervals cover."""

import numpy as np
import pytest
import torch

from helpers.synthetic_data import Scenes
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.bootstrap import average_precision, confidence_intervals, match_detections
from retinanet.inference.detections import Detections

NAMES = ("a", "b", "c")


def made(seed, images=12, noise=6.0):
    """Truth with crowds and a class without boxes in many images, and detections of every quality."""
    rng = np.random.default_rng(seed)
    truth, found = [], {}
    for i in range(images):
        count = int(rng.integers(0, 7))
        corners = rng.integers(0, 150, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(8, 90, (count, 2))], axis=1).astype(np.float32)
        labels = rng.choice(3, count, p=(0.6, 0.35, 0.05)).astype(np.int64)
        truth.append([(label, *box, crowd) for label, box, crowd in zip(labels, boxes, rng.random(count) < 0.2)])
        again = np.concatenate([boxes, boxes[: count // 2], rng.integers(0, 60, (2, 4))])
        again[:, :2] += rng.normal(0, noise, (len(again), 2))
        again[:, 2:] = np.maximum(again[:, 2:] + rng.normal(0, noise, (len(again), 2)), again[:, :2] + 1)
        names = np.concatenate([labels, labels[: count // 2], rng.integers(0, 3, 2)])
        scores = np.sort(rng.random(len(again)).round(3 if seed % 2 else 8))[::-1].copy()
        if i != 3:  # this image has no entry
            values = (torch.from_numpy(v) for v in (again.astype(np.float32), scores.astype(np.float32), names))
            found[i] = Detections(*values, NAMES)
    return Scenes(truth), found


@pytest.mark.parametrize("seed", range(6))
def test_every_image_once_is_cocos_ap(seed):
    data, found = made(seed)
    ap = average_precision(match_detections(data, found), np.ones(len(data), np.int64))
    stats = coco_metrics.evaluate(data, found).stats
    assert ap.mean() == pytest.approx(stats["AP"], abs=1e-9)
    assert ap[0] == pytest.approx(stats["AP50"], abs=1e-9)
    assert ap[5] == pytest.approx(stats["AP75"], abs=1e-9)
    assert 0.05 < stats["AP"] < 0.95


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_images_that_stand_more_than_once(seed):
    data, found = made(2 * seed)  # no two scores are equal: among equals the order of the images decides
    weights = np.random.default_rng(seed).integers(0, 4, len(data))
    places = np.repeat(np.arange(len(data)), weights).tolist()
    copies = Scenes([data.truth[i] for i in places])
    stats = coco_metrics.evaluate(copies, {n: found[i] for n, i in enumerate(places) if i in found}).stats
    ap = average_precision(match_detections(data, found), weights)
    assert ap.mean() == pytest.approx(stats["AP"], abs=1e-9)
    assert ap[0] == pytest.approx(stats["AP50"], abs=1e-9)


def test_some_images_only():
    data, found = made(0)
    some = [1, 4, 5, 9]
    ap = average_precision(match_detections(data, found, some), np.ones(4, np.int64))
    assert ap.mean() == pytest.approx(coco_metrics.evaluate(data, found, some).stats["AP"], abs=1e-9)


def test_the_same_seed_gives_the_same_interval():
    matches = match_detections(*made(0))
    first, second, other = (confidence_intervals(matches, resamples=50, seed=seed)["AP"] for seed in (1, 1, 2))
    assert first == second != other
    assert first.low < first.value < first.high
    assert first.resamples == 50


def test_more_images_make_it_narrower():
    few, many = (confidence_intervals(match_detections(*made(0, images)), resamples=100)["AP"] for images in (10, 160))
    assert many.high - many.low < 0.5 * (few.high - few.low)


@pytest.mark.slow
def test_it_covers_the_ap_of_all_images_about_as_often_as_it_says():
    data, found = made(0, 600)
    whole = match_detections(data, found)
    truth = average_precision(whole, np.ones(len(data), np.int64)).mean()
    covered = 0
    for trial in range(40):
        some = np.random.default_rng(trial).choice(len(data), 60, replace=False)
        i = confidence_intervals(match_detections(data, found, some), resamples=100, seed=trial)["AP"]
        covered += i.low <= truth <= i.high
    assert covered >= 35  # 95 % of 40 are 38; plain percentiles reach 32


def test_a_paired_difference():
    data, found = made(0, 60)
    better, worse = match_detections(data, found), match_detections(data, made(0, 60, noise=9.0)[1])
    difference = confidence_intervals(better, worse, resamples=200)["AP"]
    values = [confidence_intervals(m, resamples=200)["AP"] for m in (better, worse)]
    assert difference.value == pytest.approx(values[0].value - values[1].value)
    assert 0 < difference.low < difference.high, "better on the same images beyond doubt"
    assert confidence_intervals(worse, better, resamples=200)["AP"].high == pytest.approx(-difference.low)
    same = confidence_intervals(better, better, resamples=20)["AP"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_without_any_box_there_is_no_value():
    for data in (Scenes([[], []]), Scenes([])):
        result = confidence_intervals(match_detections(data, {}), resamples=5)["AP"]
        assert np.isnan([result.value, result.low, result.high]).all()
        assert result.resamples == 0


def test_nothing_found_is_zero():
    data, _ = made(0)
    result = confidence_intervals(match_detections(data, {}), resamples=5)["AP"]
    assert (result.value, result.low, result.high) == (0, 0, 0)
