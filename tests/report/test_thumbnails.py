import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from retinanet.data import open_data
from retinanet.report import thumbnails


def decoded(image):
    head, body = image.source.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")


def test_every_class_is_seen_in_as_few_images_as_reach(real):
    splits = {name: open_data(real("coco128"), name) for name in ("train", "val")}
    there = {int(label) for data in splits.values() for label in np.unique(data.annotations.labels)}
    chosen = thumbnails.choose(splits, 100)
    assert len(chosen) == len(set(chosen)) == 100
    seen = {int(label) for split, index in chosen for label in splits[split].labels(index)}
    assert seen == there
    few = thumbnails.choose(splits, 5)
    assert few == chosen[:5]
    assert len({int(label) for split, index in few for label in splits[split].labels(index)}) >= 5


@pytest.mark.parametrize("count", [0, 1, 4, 6, 50])
def test_no_more_images_than_asked_for_or_there(make_set, count):
    splits = {"train": open_data(make_set(), "train")}
    chosen = thumbnails.choose(splits, count)
    assert len(chosen) == len(set(chosen)) == min(count, 6)
    assert thumbnails.choose({}, count) == []


def test_images_are_small_and_said_in_words(real, make_set):
    data = open_data(real("bccd"), "test")
    one = thumbnails.labelled(data, 0, "test")
    assert decoded(one).size == (one.width, one.height) == (480, 360)
    assert one.title == data.path(0).name
    assert one.alt.startswith(one.title)
    assert "RBC" in one.caption
    assert one.caption.startswith("test: ")
    small = thumbnails.labelled(open_data(make_set(), "train"), 0)
    assert (small.width, small.height) == (240, 180)


def test_what_is_wrong_is_red(make_set, run):
    inputs = run(make_set())
    data, found = inputs.data, inputs.detections

    def reds(source):
        image = np.asarray(decoded(source)).astype(int)
        return int((np.abs(image - thumbnails.WRONG).max(axis=2) < 60).sum())

    some = next(one for one in inputs.images if len(one.kept))
    clean = dataclasses.replace(some, missed=np.zeros(3, bool), correct=np.ones(len(some.kept), bool))
    faulty = dataclasses.replace(some, missed=np.ones(3, bool), correct=np.zeros(len(some.kept), bool))
    for good, bad in zip(thumbnails.pair(data, clean, found), thumbnails.pair(data, faulty, found)):
        assert reds(bad) > reds(good) + 300
    left, right = thumbnails.pair(data, faulty, found)
    assert left.caption.startswith("3 boxes; missed: ")
    assert left.alt == f"{left.title}. Ground truth: {left.caption}"
    assert "; wrong: " in right.caption
    left, right = thumbnails.pair(data, clean, found)
    assert left.caption == "no box missed"
    assert right.caption.endswith("all correct")


def test_an_image_without_detections(make_set, run):
    inputs = run(make_set(), nothing=True)
    (one, *_) = inputs.images
    assert thumbnails.pair(inputs.data, one, inputs.detections)[1].caption == "no detections"
    assert thumbnails.pair(inputs.data, one, {})[1].caption == "no detections"
