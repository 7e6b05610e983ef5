"""COCO as CVAT, Label Studio, FiftyOne and others write it: where the JSON and the images lie."""

import json

import pytest

from helpers.annotated import annotated, classes_of, coco_content, put, require_same
from retinanet.data import open_data, splits


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


@pytest.mark.parametrize(
    ("file", "folder", "prefix"),
    [
        ("annotations/instances_default.json", "images", ""),  # CVAT 1.x
        ("annotations/instances_default.json", "images/default", ""),  # CVAT 2.x, Datumaro
        ("annotations/instances_default.json", ".", ""),
        ("annotations/instances_default.json", "my photos", "my photos/"),
        ("result.json", "images", "images/"),  # Label Studio 1.10
        ("result.json", "images", "images\\"),
        ("labels.json", "data", ""),  # FiftyOne 1.0
        ("_annotations.coco.json", ".", ""),
        ("Annotations/coco.json", "images", ""),
        ("labels/coco.json", "images", ""),
        ("annotations.json", ".", ""),
    ],
)
def test_one_json_is_one_list(images, tmp_path, file, folder, prefix):
    tmp_path = tmp_path / "dice"  # the folder of a data set can be called like a split
    for image in images:
        image.copy(tmp_path / folder)
    put(tmp_path / file, json.dumps(coco_content(images, classes_of(images), prefix, first_category=0)))
    assert list(splits(tmp_path).values()) == [len(images)]
    for split in ("train", "val"):
        data = require_same(open_data(tmp_path, split), images)
        assert data.kind == "COCO"
        assert data.class_names == tuple(classes_of(images))


@pytest.mark.parametrize(
    "file", ["{}/annotations.json", "{}/labels.json", "{}/annotations/coco.json", "annotations/{}.json"]
)
def test_a_json_for_each_split(images, tmp_path, file):
    for split, part in {"train": images[:3], "val": images[3:]}.items():
        for image in part:
            image.copy(tmp_path / split)
        put(tmp_path / file.format(split), json.dumps(coco_content(part, classes_of(images))))
    assert splits(tmp_path) == {"train": 3, "val": 2}
    require_same(open_data(tmp_path, "train", strict=True), images[:3])
    require_same(open_data(tmp_path, "val", strict=True), images[3:])


def test_a_json_that_names_its_split_is_not_used_for_others(images, tmp_path, refused):
    for image in images:
        image.copy(tmp_path / "images")
    put(tmp_path / "annotations/instances_Train.json", json.dumps(coco_content(images, classes_of(images))))
    require_same(open_data(tmp_path, "train", strict=True), images)
    assert "no split val" in refused(tmp_path, "val")
