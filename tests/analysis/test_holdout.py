"""A share of the only split that is held out for validation."""

import json

import numpy as np
import pytest

from helpers.synthetic_data import CLASSES, png, sound, write
from helpers.tiny_run import tiny
from retinanet.analysis.holdout import open_again, open_held_out, share_of, wanted_share
from retinanet.checkpoints import native
from retinanet.common.errors import RequestError
from retinanet.data import open_data
from retinanet.training.run_folder import read_run
from retinanet.training.trainer import train


@pytest.fixture(scope="module")
def one_split(tmp_path_factory):
    """40 images, of which the first eight are one scene."""
    samples = sound(train=40)["train"]
    for sample in samples[:8]:
        sample.content = png(0)
    return write(tmp_path_factory.mktemp("one") / "data", "coco", {"train": samples})


def names(data):
    return {data.path(i).name for i in range(len(data))}


def test_shares_and_names_of_splits(one_split, tmp_path):
    assert [share_of(text) for text in ("0.2", ".5", "val", "2017", "v1.2")] == [0.2, 0.5, None, None, None]
    assert wanted_share(one_split, "val") == 0.2
    assert wanted_share(one_split, "valid") == 0.2
    assert wanted_share(one_split, "0.3") == 0.3
    assert wanted_share(one_split, "test") is None
    assert wanted_share(write(tmp_path / "two", "yolo", sound(4, 4)), "val") is None


def test_every_image_is_on_one_side_with_its_boxes(one_split):
    whole = open_data(one_split, "train")
    data, val = open_held_out(one_split, "train", 0.25, seed=0)
    assert len(data) + len(val) == 40
    assert len(val) == 10
    assert names(data) | names(val) == names(whole)
    boxes = {whole.path(i).name: (whole.boxes(i), whole.labels(i), whole.size(i)) for i in range(40)}
    for part in (data, val):
        for i in range(len(part)):
            expected, labels, size = boxes[part.path(i).name]
            np.testing.assert_array_equal(part.boxes(i), expected)
            np.testing.assert_array_equal(part.labels(i), labels)
            assert part.size(i) == size
            assert part.read(i).shape[1:] == size
    scene = {f"train{i}.png" for i in range(8)}
    assert names(val) >= scene or not names(val) & scene
    assert min(val.counts()) > 0
    assert any("10 of 40" in note for note in data.report.notes)


def test_the_same_seed_gives_the_same_images(one_split):
    held = [names(open_held_out(one_split, "train", 0.25, seed)[1]) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.5, float("nan")])
def test_impossible_shares(one_split, share):
    with pytest.raises(RequestError, match="share"):
        open_held_out(one_split, "train", share, 0)


def test_images_that_all_look_alike_are_divided_and_reported(tmp_path):
    samples = sound(train=6)["train"]
    for sample in samples:
        sample.content = png(0)
    data, val = open_held_out(write(tmp_path / "data", "coco", {"train": samples}), "train", 0.34, 0)
    assert (len(data), len(val)) == (4, 2)
    assert any("near-duplicates" in note for note in data.report.notes)


def test_a_scene_of_most_images_is_reported(tmp_path):
    """It stays on one side, so far fewer images are left for the other one than were wanted."""
    samples = sound(train=40)["train"]
    for sample in samples[:38]:
        sample.content = png(0)
    data, val = open_held_out(write(tmp_path / "data", "coco", {"train": samples}), "train", 0.4, 0)
    assert len(val) == 2
    assert any("2 of 40" in note and "(5%," in note and "no nearer share" in note for note in data.report.notes)


def test_one_image_cannot_be_divided(tmp_path):
    with pytest.raises(RequestError, match="at least 2"):
        open_held_out(write(tmp_path / "data", "coco", sound(train=1, val=0)), "train", 0.2, 0)


@pytest.mark.slow
def test_a_run_holds_out_the_same_images_when_it_is_resumed(one_split, tmp_path):
    train(one_split, tiny(steps=4), tmp_path / "run")
    root, saved = read_run(tmp_path / "run")
    assert saved.data.val == "0.2"
    about = native.load(tmp_path / "run" / "best.safetensors").extra["held_out"]
    _, expected = open_held_out(one_split, "train", 0.2, seed=0)
    assert names(open_again(root, about, CLASSES)) == names(expected)

    summary = train(root, tiny(steps=6), tmp_path / "run", resume=True)
    assert summary["steps"] == 6
    assert native.load(tmp_path / "run" / "last.safetensors").extra["held_out"] == about


def test_held_out_images_of_a_data_set_that_has_grown_are_unknown(one_split):
    _, val = open_held_out(one_split, "train", 0.2, 0)
    with pytest.raises(RequestError, match="39 in training"):
        open_again(one_split, {**val.held_out, "images": 39}, CLASSES)


@pytest.mark.parametrize("training", [False, True])
def test_other_labels_would_hold_out_other_images(tmp_path, training):
    """The classes are balanced, so corrected labels change the choice: images of the training set would be among it."""
    root = write(tmp_path / "data", "coco", {"train": sound(train=30)["train"]})
    if training:
        train(root, tiny(steps=1), tmp_path / "run")
    _, val = open_held_out(root, "train", 0.2, 0)
    assert names(open_again(root, val.held_out, CLASSES)) == names(val)
    held = {key: value for key, value in val.held_out.items() if key != "digest"}
    assert names(open_again(root, held, CLASSES)) == names(val), "of an older checkpoint"
    path = next(root.rglob("*.json"))
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][: len(content["annotations"]) // 2]
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="other images or labels"):
        open_again(root, val.held_out, CLASSES)
    if training:
        with pytest.raises(RequestError, match="cannot resume"):
            train(root, tiny(steps=2), tmp_path / "run", resume=True)
