"""The digit scenes: what is stored, the same every time, and that validation shares nothing with training."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'retinanet[demo]'")

from retinanet.common.errors import RequestError
from retinanet.data import digits


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return digits.write(tmp_path_factory.mktemp("digits") / "scenes", train=40, val=6)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(scenes, tmp_path):
    again = digits.write(tmp_path / "again", train=3, val=2)
    first = digest(scenes)
    images = {name: value for name, value in digest(again).items() if name.endswith(".jpg")}
    assert images.items() <= first.items(), "scenes do not depend on how many are made"
    other = digits.write(tmp_path / "other", train=3, val=2, seed=1)
    assert not set(digest(other).values()) & set(first.values())


def test_boxes_lie_inside_and_are_of_the_sizes_asked_for(scenes):
    for split, count in (("train", 40), ("val", 6)):
        truth = json.loads((scenes / "annotations" / f"instances_{split}.json").read_text())
        assert [c["name"] for c in truth["categories"]] == list(digits.CLASSES)
        assert len(truth["images"]) == count
        for image in truth["images"]:
            with Image.open(scenes / split / image["file_name"]) as source:
                assert source.size == (image["width"], image["height"]) == (160, 160)
                assert source.mode == "RGB"
        assert len({a["id"] for a in truth["annotations"]}) == len(truth["annotations"])
        for annotation in truth["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert 0 <= x < x + width <= 224
            assert 0 <= y < y + height <= 224
            assert 15 <= max(width, height) <= 80


def test_a_box_is_tight_around_the_ink():
    """On a background of one colour the pixels that differ from it span the box."""
    ink, labels, _ = digits._material()
    grey = [np.full((200, 200, 3), 128, dtype=np.uint8)]
    rng = np.random.default_rng(0)
    scene, boxes, classes = digits._scene(rng, "train", ink, labels, grey, 96, (1, 1), (40, 40))
    assert len(boxes) == len(classes) == 1
    differs = np.abs(scene.astype(int) - int(np.median(scene))).max(axis=2) > 30
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == pytest.approx(boxes[0], abs=1.5)


def test_some_classes_are_rare(scenes):
    truth = json.loads((scenes / "annotations" / "instances_train.json").read_text())
    counts = np.bincount([a["category_id"] - 1 for a in truth["annotations"]], minlength=10)
    assert (counts > 0).all()
    assert counts[:3].sum() > 2 * counts[-3:].sum()


def test_validation_shares_neither_digits_nor_parts_of_photographs_with_training():
    train, val = (set(digits.samples(split, 1797)) for split in ("train", "val"))
    assert not train & val
    assert train | val == set(range(1797))
    (first, middle), (middle_again, last) = digits.rows_of("train", 427), digits.rows_of("val", 427)
    assert (first, middle, last) == (0, middle_again, 427)


def test_every_class_has_digits_of_its_own_for_validation():
    _, labels, _ = digits._material()
    assert set(labels[digits.samples("val", len(labels))]) == set(range(10))


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RequestError) as caught:
        digits.write(tmp_path)
    assert str(caught.value) == f"{tmp_path} exists and is not empty: name a new folder for the digit scenes"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_scikit_learn_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RequestError) as caught:
        digits.write(tmp_path)
    assert str(caught.value) == "the digit scenes need scikit-learn: install it with pip install 'retinanet[demo]'"
