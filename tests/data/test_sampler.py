"""Repeat-factor sampling against the paper's formula, counted class by class, and draws counted epoch by epoch."""

import math
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.config.settings import AugmentationSettings, DataSettings, Settings, TrainSettings
from retinanet.data import open_data
from retinanet.data.loader import TrainingSteps
from retinanet.data.sampler import Repeats, repeat_factors

FACTORS = st.lists(st.one_of(st.just(1.0), st.sampled_from([1.5, 2.0]), st.floats(1, 30)), min_size=1, max_size=40)


def plain_factors(data, threshold):
    """r = max over the image's classes of max(1, sqrt(t / f)); regions to ignore make no class present."""
    present = [set(data.labels(i)[~data.crowd(i)].tolist()) for i in range(len(data))]
    share = {c: sum(c in classes for classes in present) / len(data) for classes in present for c in classes}
    return [max([1.0, *(math.sqrt(threshold / share[c]) for c in classes)]) for classes in present]


@pytest.mark.parametrize("name", ["bccd", "coco128", "tiny_coco"])
@pytest.mark.parametrize("threshold", [0.001, 0.05, 0.3, 1.0])
def test_factors_are_those_of_the_paper(real, name, threshold):
    data = open_data(real(name), {"bccd": "trainval", "coco128": "train", "tiny_coco": "val"}[name])
    wanted = plain_factors(data, threshold)
    np.testing.assert_allclose(repeat_factors(data, threshold), wanted, rtol=1e-12)
    assert threshold < 1 or max(wanted) > 1


@given(FACTORS, st.integers(0, 99), st.one_of(st.integers(0, 50), st.integers(0, 10**9)))
@hypothesis.settings(deadline=None)
def test_an_epoch_draws_every_image_floor_or_ceil_of_its_number(factors, seed, epoch):
    repeats = Repeats.of(np.array(factors), seed)
    counts, expected = repeats.counts(epoch), repeats.expected
    assert counts.sum() == repeats.draws == round(math.fsum(factors))
    assert ((counts == np.floor(expected)) | (counts == np.ceil(expected))).all()
    assert (expected[np.array(factors) == 1] == 1).all()
    # the factors themselves, scaled beyond 1 so that an epoch is a whole number of draws
    scale = (repeats.draws - len(factors)) / max(1e-9, sum(factors) - len(factors))
    np.testing.assert_allclose(expected, 1 + (np.array(factors) - 1) * scale, atol=1e-7)
    assert abs(expected.sum() - sum(factors)) <= 0.5 + 1e-6

    images, numbers = repeats.drawn(epoch)
    assert np.array_equal(np.bincount(images, minlength=len(factors)), counts)
    assert len(set(zip(images.tolist(), numbers.tolist()))) == repeats.draws
    assert counts.max() <= repeats.most


@given(FACTORS, st.integers(0, 99), st.integers(0, 300))
@hypothesis.settings(deadline=None, max_examples=30)
def test_over_epochs_every_image_has_its_share(factors, seed, epochs):
    repeats = Repeats.of(np.array(factors), seed)
    total = sum((repeats.counts(epoch) for epoch in range(epochs)), np.zeros(len(factors), np.int64))
    assert np.abs(total - epochs * repeats.expected).max() < 5
    assert repeats.counts(7).tolist() == Repeats.of(np.array(factors), seed).counts(7).tolist()


def test_a_draw_number_is_used_once_for_an_image():
    repeats = Repeats.of(np.array([1.0, 1.25, 1.7, 3.05]), seed=3)
    draws = [pair for epoch in range(40) for pair in zip(*(column.tolist() for column in repeats.drawn(epoch)))]
    assert len(set(draws)) == len(draws) == 40 * repeats.draws
    assert [number for image, number in zip(*Repeats.of(np.ones(3), 0).drawn(5))] == [5, 5, 5]


# ----------------------------------------------------------------------------------------------------- the stream


def settings(threshold, batch_size=7, seed=0):
    augmentation = AugmentationSettings(zoom=(0.5, 2.0))
    return Settings(
        data=DataSettings(repeat_threshold=threshold, augmentation=augmentation),
        train=TrainSettings(batch_size=batch_size, seed=seed),
    )


def stream(data, settings, draws):
    steps = TrainingSteps(data, settings)
    return [draw for step in range(-(-draws // settings.train.batch_size)) for draw in steps.images(step)][:draws]


def test_images_of_a_rare_class_come_more_often(real):
    data = open_data(real("bccd"), "trainval")
    share = [np.mean([c in data.labels(i) for i in range(len(data))]) for c in range(3)]
    rare = int(np.argmin(share))
    assert data.class_names[rare] == "Platelets"
    some = settings(threshold=1.0)
    has_rare = np.array([rare in data.labels(i) for i in range(len(data))])
    repeats = Repeats.of(repeat_factors(data, 1.0), 0)
    drawn = [image for _, image in stream(data, some, 4 * repeats.draws)]
    factor = math.sqrt(1 / share[rare])
    assert factor > 1.2
    times = np.bincount(drawn, minlength=len(data)) / 4
    assert times[has_rare].mean() == pytest.approx(factor, rel=0.02)
    assert times[~has_rare].mean() < times[has_rare].mean() - 0.1
    assert has_rare[drawn].mean() > share[rare] + 0.03


def test_a_threshold_of_0_is_a_permutation_an_epoch(real):
    data = open_data(real("bccd"), "trainval")
    drawn = stream(data, settings(0.0), 3 * len(data))
    for epoch in range(3):
        part = drawn[epoch * len(data) : (epoch + 1) * len(data)]
        assert sorted(part) == [(epoch, image) for image in range(len(data))]


def test_batches_are_of_one_shape_with_repeats_too(real):
    data, some = open_data(real("coco128"), "train"), settings(0.3, batch_size=4)
    portrait, draws = data.portrait(), Repeats.of(repeat_factors(data, 0.3), 0).draws
    kinds = portrait[[image for _, image in stream(data, some, 4 * draws)]].reshape(-1, 4).sum(1)
    assert draws > 2 * len(data)
    assert 0.2 < portrait.mean() < 0.8
    assert (kinds % 4 != 0).sum() <= 4 * 2  # of an epoch's left-over, and where two epochs meet


def test_each_draw_is_augmented_on_its_own_and_counted(real):
    data = open_data(real("coco128"), "train")
    some = settings(0.3)
    repeats = Repeats.of(repeat_factors(data, 0.3), 0)
    drawn = stream(data, some, 3 * repeats.draws)
    assert len(set(drawn)) == len(drawn)
    of_image = {}
    for seen, image in drawn:
        of_image.setdefault(image, []).append(seen)
    within_epoch = drawn[: repeats.draws]
    image = max(of_image, key=lambda i: len(of_image[i]))
    sizes = [TrainingSteps(data, some).draw(*draw).size for draw in within_epoch if draw[1] == image]
    assert len(sizes) == len(set(sizes)) > 3
    assert stream(data, replace(some, train=replace(some.train, seed=1)), repeats.draws) != within_epoch
