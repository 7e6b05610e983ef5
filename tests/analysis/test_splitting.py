"""Splitting a list: sizes, every class on both sides, groups that stay together, the same seed."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.analysis.splitting import one_sided, split
from retinanet.common.errors import RequestError
from retinanet.data import DetectionData, Report, open_data
from retinanet.data.annotations import Annotations, packed_paths


def made(images, crowds=(), classes=4):
    """Data with the given labels in each image; ``crowds`` are numbers of boxes."""
    labels = np.array([label for own in images for label in own], np.int32)
    count, boxes = len(images), len(labels)
    path_bytes, path_offsets = packed_paths([f"{i}.jpg" for i in range(count)])
    annotations = Annotations(
        path_bytes=path_bytes,
        path_offsets=path_offsets,
        ids=np.arange(count),
        sizes=np.full((count, 2), 64, np.int32),
        exif=np.ones(count, np.bool_),
        offsets=np.cumsum([0, *map(len, images)]),
        boxes=np.tile(np.array([0, 0, 8, 8], np.float32), (boxes, 1)),
        labels=labels,
        crowds=np.isin(np.arange(boxes), crowds),
        areas=np.full(boxes, 64.0),
        listed=np.arange(count, dtype=np.int32),
        references=np.arange(boxes),
    )
    names = [f"class {i}" for i in range(classes)]
    return DetectionData(annotations, names, range(1, classes + 1), Report(), Path("cells"), "COCO", "train")


fractions = st.floats(0.01, 0.99)
some = st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=2, max_size=24)
few = st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=2, max_size=9)


def missing(data, train, val):
    """How often a class, or the images without objects, is not in a part, though there are enough of it."""
    kinds = [set(data.labels(i)[~data.crowd(i)].tolist()) or {"none"} for i in range(len(data))]
    count = 0
    for kind in set().union(*kinds):
        there = {i for i, own in enumerate(kinds) if kind in own}
        count += len(there) > 1 and (there <= set(train.tolist())) + (there <= set(val.tolist()))
    return count


@given(some, fractions, st.integers(0, 2**32))
@settings(deadline=None)
def test_sizes_are_exact_and_every_image_is_in_one_part(images, fraction, seed):
    train, val = split(made(images), fraction, seed)
    assert len(train) == min(max(round(fraction * len(images)), 1), len(images) - 1)
    assert train.dtype == val.dtype == np.int64
    assert sorted([*train, *val]) == list(range(len(images)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()


@given(st.lists(st.sampled_from([[], [0], [1], [2], [3], [3, 3]]), min_size=10, max_size=40), fractions)
@settings(deadline=None)
def test_every_class_is_in_both_parts(images, fraction):
    data = made(images)
    train, val = split(data, fraction)
    if min(len(train), len(val)) >= 5:  # the four classes and the images without objects
        assert missing(data, train, val) == 0
        assert one_sided(data, train, val) == []


@given(few, fractions)
@settings(max_examples=60, deadline=None)
def test_no_exchange_of_two_images_brings_a_class_into_both_parts(images, fraction):
    data = made(images)
    train, val = split(data, fraction)
    here = missing(data, train, val)
    if here:
        for a, b in product(train, val):
            other = np.append(train[train != a], b), np.append(val[val != b], a)
            assert missing(data, *other) >= here


@given(some, fractions, st.data())
@settings(deadline=None)
def test_groups_stay_together(images, fraction, draw):
    count = len(images)
    groups = np.array(draw.draw(st.lists(st.integers(-3, 5), min_size=count, max_size=count)))
    data = made(images)
    if len(set(groups.tolist())) == 1:
        with pytest.raises(RequestError, match=rf"^all {count} images of cells are of one group"):
            split(data, fraction, groups=groups)
        return
    train, val = split(data, fraction, groups=groups)
    assert len(train)
    assert len(val)
    assert sorted([*train, *val]) == list(range(count))
    assert not set(groups[train]) & set(groups[val])
    wanted = min(max(round(fraction * count), 1), count - 1)
    off = abs(len(train) - wanted)
    for part, sign in ((train, -1), (val, 1)):
        for group in set(groups[part].tolist()):
            moved = int((groups == group).sum())
            if moved < len(part):
                assert abs(len(train) + sign * moved - wanted) >= off


def test_groups_of_one_image_give_the_exact_size():
    data = made([[i % 4] for i in range(50)])
    train, val = split(data, 0.7, groups=np.arange(50)[::-1])
    assert (len(train), len(val)) == (35, 15)
    assert missing(data, train, val) == 0


def test_near_duplicates_and_many_single_images_give_the_exact_size():
    groups = np.concatenate([np.zeros(30, int), np.ones(10, int), np.arange(2, 62)])
    train, _ = split(made([[i % 4] for i in range(100)]), 0.5, groups=groups)
    assert len(train) == 50


@given(some, fractions, st.integers(0, 99))
@settings(deadline=None)
def test_the_same_seed_gives_the_same_parts(images, fraction, seed):
    for first, second in zip(split(made(images), fraction, seed), split(made(images), fraction, seed)):
        assert first.tolist() == second.tolist()


def test_another_seed_gives_other_parts():
    data = made([[i % 4] for i in range(100)])
    assert len({tuple(split(data, 0.8, seed)[1]) for seed in range(5)}) == 5


def test_rare_classes_have_their_share():
    data = made([[0, 0, 0, *([1] if i % 10 == 0 else []), *([2] if i % 50 == 7 else [])] for i in range(500)])
    _, val = split(data, 0.8)
    assert [sum(label in data.labels(i) for i in val) for label in range(3)] == [100, 10, 2]


def test_images_without_objects_have_their_share_and_crowds_are_no_objects():
    data = made([[0] if i % 4 else [] for i in range(80)] + [[1]] * 20, crowds=range(60, 80))
    _, val = split(data, 0.8)
    empty = [i for i in range(100) if data.crowd(i).all()]
    assert len(empty) == 40
    assert len(set(val.tolist()) & set(empty)) == 8


def test_a_class_that_cannot_be_in_both_parts_is_named():
    data = made([[0], [0], [1], [1], [2], [2], [3]])
    train, val = split(data, 0.9)
    assert (len(train), len(val)) == (6, 1)
    assert one_sided(data, train, val) == [f"class {i}" for i in range(3) if i not in data.labels(val[0])]


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 80, float("nan")])
def test_fractions_that_are_none(fraction):
    with pytest.raises(RequestError, match=f"train is {fraction:g}: give one above 0 and below 1$"):
        split(made([[0], [1]]), fraction)


def test_one_image_cannot_be_parted():
    with pytest.raises(RequestError, match=r"^cells has 1 images: at least 2 "):
        split(made([[0]]), 0.5)


def test_shares_of_classes_in_bccd(real):
    data = open_data(real("bccd"), "trainval")
    train, val = split(data, 0.8)
    assert (len(train), len(val)) == (234, 58)
    assert one_sided(data, train, val) == []
    shares = [
        np.bincount(np.concatenate([data.labels(i) for i in part]), minlength=3)
        / sum(len(data.labels(i)) for i in part)
        for part in (train, val)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.02
    with_class = [[np.mean([label in data.labels(i) for i in part]) for label in range(3)] for part in (train, val)]
    assert np.abs(np.subtract(*with_class)).max() < 0.03


@pytest.mark.slow
def test_a_data_set_as_large_as_coco():
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, 81) ** 1.5
    counts = rng.poisson(7, 120_000)
    labels = rng.choice(80, counts.sum(), p=frequency / frequency.sum())
    data = made(np.split(labels, np.cumsum(counts)[:-1]), classes=80)
    train, val = split(data, 0.8)
    assert (len(train), len(val)) == (96_000, 24_000)
    assert one_sided(data, train, val) == []
