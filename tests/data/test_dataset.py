"""Opening: what is refused and how, split names, classes by name, memory."""

import json
import tracemalloc

import numpy as np
import pytest

from retinanet.common.errors import RequestError, WorkError
from retinanet.data import DetectionData, open_data, splits
from retinanet.data.faults import Report
from retinanet.data.formats.listing import Listing
from retinanet.data.validate import check

KNOWN = ("annotations/*.json", "ImageSets/Main", "a YAML with train, val and names")


@pytest.fixture
def coco(tmp_path, paint):
    """A COCO data set with the given splits, each of one image; its boxes are of the classes given."""

    def write(names=("train", "val"), classes=("cell", "star")):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for name in names:
            paint(tmp_path / name / "a.png")
            content = {
                "images": [{"id": 5, "file_name": "a.png"}],
                "annotations": [
                    {"id": i, "image_id": 5, "category_id": i, "bbox": [i, i, 10, 10]} for i in range(len(classes))
                ],
                "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
            }
            (tmp_path / f"annotations/instances_{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_missing(tmp_path, refused):
    nowhere = tmp_path / "nowhere"
    assert f"no data set {nowhere}" in refused(nowhere, "train")
    with pytest.raises(RequestError, match=r"^there is no data set"):
        splits(nowhere)


def test_empty(tmp_path, refused):
    assert refused(tmp_path, "train") == f"the data set {tmp_path} is an empty folder"


def test_unknown_layout(tmp_path, refused, paint):
    for i in range(8):
        paint(tmp_path / f"cat/{i}.jpg")
    (tmp_path / "notes.md").touch()
    message = refused(tmp_path, "train")
    assert all(fact in message for fact in (str(tmp_path), "it holds cat/, notes.md", *KNOWN))


def test_the_data_set_one_folder_deeper(coco, refused):
    root = coco()
    (root / "inner").mkdir()
    for name in ("annotations", "train", "val"):
        (root / name).rename(root / "inner" / name)
    assert refused(root, "train").endswith(f"it holds inner/; {root}/inner looks like COCO: give that folder")


def test_a_file_of_another_kind(tmp_path, refused):
    (tmp_path / "data.zip").touch()
    assert refused(tmp_path / "data.zip", "train").startswith(f"{tmp_path}/data.zip is not a data set")


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        ("train2017", "train", "train2017"),
        ("valid", "val", "valid"),
        ("val", "validation", "val"),
        ("training", "train", "training"),
        ("test-2", "test", "test-2"),
        ("trainval", "trainval", "trainval"),
    ],
)
def test_split_names_that_mean_the_same(coco, there, asked, found):
    assert open_data(coco([there]), asked).split == found


def test_a_missing_split_lists_those_there(coco, refused):
    root = coco(["train", "test"])
    assert refused(root, "trainval") == f"{root} has no split trainval; it has test (1 images) and train (1 images)"
    message = refused(root, "val")
    assert "no split val; it has test (1 images) and train (1 images)" in message
    assert "--data.val test" in message
    assert "--split test" in message


def test_an_ambiguous_split(coco, refused):
    root = coco(["val2014", "val2017"])
    assert refused(root, "val") == f"{root} has several splits that could be val: val2014, val2017; name one of them"
    assert open_data(root, "val2014").split == "val2014"


def test_classes_of_a_trained_model_are_mapped_by_name(coco):
    data = open_data(coco(), "val", class_names=["star", "moon", "cell"])
    assert data.class_names == ("star", "moon", "cell")
    assert data.labels(0).tolist() == [2, 0]
    assert data.category_ids == (1, 2, 0)  # moon has none in the data set: one that is not used there
    assert data.report.lines() == []


def test_classes_that_a_trained_model_does_not_know(coco):
    data = open_data(coco(), "val", class_names=["star"])
    assert data.report.lines() == [
        "class that the model does not know (1 left out): annotations/instances_val.json annotation 0: cell"
    ]
    assert data.boxes(0).tolist() == [[1, 1, 11, 11]]


def test_no_class_in_common(coco, refused):
    root = coco()
    assert refused(root, "val", class_names=["dog"]) == (
        f"no class of {root} (cell, star) is one of the model's (dog); classes are mapped by name"
    )


def test_a_image_that_changes_after_opening(coco, paint):
    root = coco()
    data = open_data(root, "train")
    paint(root / "train/a.png", 20, 20)
    with pytest.raises(WorkError) as error:
        data.read(0)
    assert str(error.value) == f"the image {root}/train/a.png changed its size since the data set was opened"
    (root / "train/a.png").unlink()
    with pytest.raises(WorkError) as error:
        data.read(0)
    assert str(error.value) == (
        f"cannot read the image {root}/train/a.png: there is no such file; remove or replace it in the data set {root}"
    )


def test_indices_outside(coco):
    data = open_data(coco(), "train")
    assert data.boxes(-1).shape == (2, 4)
    with pytest.raises(IndexError, match=r"^image 1 of 1$"):
        data.boxes(1)


def test_progress_is_told(coco):
    told = []
    open_data(coco(), "train", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1)]


@pytest.mark.slow
def test_a_million_boxes_take_far_less_than_100_mb(tmp_path, paint):
    path = str(paint(tmp_path / "a.png"))
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 19, (1_000_000, 4))
    corners[:, 2:] += 20
    listing = Listing(["cell"], [1], lambda image, reference: "")
    for i in range(20):
        listing.add_image(path, i)
    listing.images.frombytes(np.sort(rng.integers(0, 20, 1_000_000)).astype(np.int32).tobytes())
    listing.boxes.frombytes(corners.tobytes())
    for name, kind in (("labels", np.int32), ("crowds", np.int8), ("areas", np.float64), ("references", np.int64)):
        getattr(listing, name).frombytes(np.zeros(1_000_000, kind).tobytes())
    tracemalloc.start()
    report = Report()
    data = DetectionData(check(listing, tmp_path, report), ["cell"], [1], report, tmp_path, "COCO", "train")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (data.num_boxes, len(data)) == (1_000_000, 20)
    assert sum(array.nbytes for array in vars(data.annotations).values()) < 30e6
    assert held < 31e6  # and nothing else is kept
    assert sum(len(data.boxes(i)) for i in range(20)) == 1_000_000
    assert data.boxes(3).base is not None, "a view: reading boxes copies nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": 3}, "the data set must be a path, not 3"),
        ({"root": "a\0b"}, "a path cannot hold a null byte"),
        ({"split": None}, "split must be the name of one"),
        ({"class_names": "cat"}, "class names must be a list"),
        ({"class_names": ["cat", "cat"]}, "class name 1 is 'cat' again"),
    ],
)
def test_wrong_arguments(coco, arguments, message):
    with pytest.raises(RequestError, match=message):
        open_data(**({"root": coco(), "split": "train"} | arguments))
