"""YOLO: where splits may lie, background images, polygons, and every fault named by file and line."""

import numpy as np
import pytest

from retinanet.common.errors import RequestError
from retinanet.data import splits

YAML = "train: images/train\nnames: [cell, star]\n"


@pytest.fixture
def make(tmp_path, paint):
    """Write a data set of one split: the label file of each image, None where it has none."""

    def write(labels, yaml=YAML, images="images/train", texts="labels/train"):
        for stem, text in labels.items():
            paint(tmp_path / images / f"{stem}.jpg")
            if text is not None:
                (tmp_path / texts).mkdir(parents=True, exist_ok=True)
                (tmp_path / texts / f"{stem}.txt").write_text(text)
        (tmp_path / "data.yaml").write_text(yaml)
        return tmp_path

    return write


GOOD = "0 0.5 0.5 0.5 0.5\n"


def test_boxes_are_fractions_of_the_image(make, opened):
    data = opened(make({"a": GOOD + "\n1 0.25 0.25 0.5 0.5\n", "b": ""}), "train")
    assert repr(data) == f"<YOLO {data.root} train: 2 images, 2 boxes>"
    assert data.boxes(0).tolist() == [[15, 10, 45, 30], [0, 0, 30, 20]]
    assert data.labels(0).tolist() == [0, 1]
    assert data.class_names == ("cell", "star")
    assert data.boxes(1).shape == (0, 4)


def test_boxes_are_fractions_of_the_upright_image(make, paint, opened):
    from PIL import Image

    root = make({"a": "0 0.5 0.25 0.5 0.5\n"})
    exif = Image.Exif()
    exif[0x0112] = 6
    paint(root / "images/train/a.jpg", exif=exif)
    data = opened(root, "train")
    assert data.size(0) == (60, 40)
    assert data.boxes(0).tolist() == [[10, 0, 30, 30]]


def test_a_polygon_becomes_its_bounding_box(make, opened):
    data = opened(make({"a": "1 0.1 0.5 0.5 0.25 0.4 0.75\n"}), "train")
    assert np.allclose(data.boxes(0), [[6, 10, 30, 30]])
    assert data.labels(0).tolist() == [1]


def test_a_image_without_a_label_file_is_background(make, opened):
    data = opened(make({"a": GOOD, "b": None}), "train", notes=["1 images without a label file are background"])
    assert (len(data), data.num_boxes) == (2, 1)


def test_no_label_file_at_all_is_refused(make, refused):
    root = make({"a": None, "b": None})
    assert refused(root, "train") == (
        f"none of the 2 images of train has a label file; looked for {root}/labels/train/a.txt and "
        f"{root}/images/train/a.txt"
    )


FAULTS = {
    "columns": (
        "0 0.5 0.5 0.5\n",
        "malformed line (1 left out): labels/train/a.txt line 2: 4 columns, not 5 or a polygon: 0 0.5 0.5 0.5",
    ),
    "even polygon": (
        "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4\n",
        "malformed line (1 left out): labels/train/a.txt line 2: 8 columns, not 5 or a polygon: "
        "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4",
    ),
    "class": (
        "cell 0.5 0.5 0.5 0.5\n",
        "malformed line (1 left out): labels/train/a.txt line 2: the class is not a number: cell",
    ),
    "unknown": ("2 0.5 0.5 0.5 0.5\n", "unknown class (1 left out): labels/train/a.txt line 2: class 2"),
    "negative": ("-1 0.5 0.5 0.5 0.5\n", "unknown class (1 left out): labels/train/a.txt line 2: class -1"),
    "twice": (GOOD, "annotation written twice (1 left out): labels/train/a.txt line 2"),
    "nan": (
        "0 nan 0.5 0.5 0.5\n",
        "box with a coordinate that is not a finite number (1 left out): "
        "labels/train/a.txt line 2: nan 10 nan 30 in 60 x 40 pixels",
    ),
    "polygon": (
        "0 0.1 0.1 0.2 x 0.3 0.3\n",
        "malformed line (1 left out): labels/train/a.txt line 2: x is not a number",
    ),
    "no area": (
        "0 0.5 0.5 0 0.5\n",
        "box of no area (1 left out): labels/train/a.txt line 2: 30 10 30 30 in 60 x 40 pixels",
    ),
    "outside": (
        "0 1.5 0.5 0.5 0.5\n",
        "box outside the image (1 left out): labels/train/a.txt line 2: 75 10 105 30 in 60 x 40 pixels",
    ),
    "pixels": (
        "0 30 20 10 10\n",
        "box outside the image (1 left out): labels/train/a.txt line 2: 1500 600 2100 1000 in 60 x 40 pixels",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_lines_left_out(make, opened, kind):
    text, line = FAULTS[kind]
    data = opened(make({"a": GOOD + text}), "train", [line])
    assert data.boxes(0).tolist() == [[15, 10, 45, 30]]


def test_a_box_partly_outside_is_clipped(make, opened):
    line = (
        "box partly outside the image, clipped (1 repaired): labels/train/a.txt line 1: -15 10 15 30 in 60 x 40 pixels"
    )
    data = opened(make({"a": "0 0 0.5 0.5 0.5\n"}), "train", [line])
    assert data.boxes(0).tolist() == [[0, 10, 15, 30]]


def test_files_left_out(make, opened):
    root = make(dict.fromkeys("abcd", GOOD))
    (root / "images/train/b.jpg").unlink()
    (root / "images/train/c.jpg").write_text("a text")
    (root / "labels/train/d.txt").write_bytes(b"\xff\xfe\xff")
    lines = [
        "unreadable annotation file (1 left out): labels/train/d.txt: "
        "its byte order mark says UTF-16-LE, and it is not that",
        "label file without an image (1 left out): labels/train/b.txt",
        "unreadable image (1 left out): images/train/c.jpg: it is not an image that Pillow knows",
    ]
    data = opened(root, "train", lines)
    assert [data.path(i).name for i in range(len(data))] == ["a.jpg"]


def test_lists_of_images(make, opened):
    root = make(
        {"a": GOOD, "b": GOOD, "c": GOOD}, "train: train.txt\nval: [val.txt, images/train/c.jpg]\nnames: {0: x}\n"
    )
    (root / "train.txt").write_text("./images/train/a.jpg\nimages/train/a.jpg\n\nimages/train/z.jpg\n")
    (root / "val.txt").write_text("images/train/b.jpg\n")
    lines = [
        "image listed twice (1 left out): train: images/train/a.jpg",
        "missing image (1 left out): images/train/z.jpg",
    ]
    data = opened(root, "train", lines)  # a missing image is not called background
    assert [data.path(i).name for i in range(len(data))] == ["a.jpg"]
    assert len(opened(root, "val")) == 2


def test_a_list_with_quotes(make, opened):
    root = make({"a": GOOD, "b": GOOD, "c": GOOD}, "train: train.txt\nnames: [x]\n")
    (root / "train.txt").write_text("\"images/train/a.jpg\"\n'images/train/b.jpg',\nimages/train/c.jpg\n")
    assert opened(root, "train").num_boxes == 3


@pytest.mark.parametrize(
    ("images", "texts"),
    [("train/imgs", "train/labels"), ("imgs/train", "labels/train"), ("train/imgs", "train/imgs/labels")],
)
def test_labels_that_the_folder_of_the_images_does_not_lead_to(make, paint, opened, refused, images, texts):
    root = make({"a": GOOD, "b": GOOD}, f"train: {images}\nnames: [cell]\n", images, texts)
    message = refused(root, "train")
    for part in ("none of the 2", "label file that is not read (2 left out)", f"{texts}/a.txt for {images}/a.jpg"):
        assert part in message
    paint(root / images / "c.jpg")
    (root / images / "c.txt").write_text(GOOD)
    text = "call the images' folder images and the other labels, or put the label files beside the images"
    fault = "; ".join(f"{texts}/{stem}.txt for {images}/{stem}.jpg: {text}" for stem in "ab")
    note = "2 images without a label file are background"
    assert opened(root, "train", [f"label file that is not read (2 left out): {fault}"], [note]).num_boxes == 1


def test_links_in_a_circle(make, opened, refused):
    root = make({"a": GOOD, "b": GOOD})
    (root / "images/train/b.jpg").unlink()
    (root / "images/train/b.jpg").symlink_to("b.jpg")
    text = "images/train/b.jpg: a link in a circle or to a file that is not there"
    assert len(opened(root, "train", [f"missing image (1 left out): {text}"])) == 1
    (root / "round").symlink_to("round")
    assert "round is a link in a circle" in refused(root / "round", "train")


def test_roboflows_folders_beside_the_yaml(make, opened):
    yaml = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cell', 'star']\n"
    root = make({"a": GOOD}, yaml, "train/images", "train/labels")
    assert splits(root) == {"train": 1, "val": 0}  # valid is not there
    assert opened(root, "train").num_boxes == 1


def test_a_yaml_elsewhere_with_a_path(make, opened, tmp_path):
    root = make({"a": GOOD}, "unrelated: true\n")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/mine.yaml").write_text(f"path: {root}\n{YAML}")
    note = f"images outside {tmp_path / 'sets'}: 1, such as {root / 'images/train/a.jpg'}"
    assert opened(tmp_path / "sets/mine.yaml", "train", notes=[note]).num_boxes == 1


def test_class_numbers_with_gaps(make, opened):
    data = opened(make({"a": "7 0.5 0.5 0.5 0.5\n"}, "train: images/train\nnames: {3: a, 7: b}\n"), "train")
    assert (data.class_names, data.category_ids, data.labels(0).tolist()) == (("a", "b"), (3, 7), [1])


def test_classes_without_names_are_numbers(make, opened):
    assert opened(make({"a": GOOD}, "train: images/train\nnc: 2\n"), "train").class_names == ("0", "1")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: [a\nnames: b\n", " line 2 column 6 is not valid YAML: did not find expected ',' or ']'"),
        ("train: a\nnames: cell\n", ": names must be a list of class names, or a mapping of numbers to names"),
        ("train: a\nnames: {a: b}\n", ": names must be a list of class names, or a mapping of numbers to names"),
        ("train: a\nnc: 3\nnames: [a, b]\n", ": nc is 3, but there are 2 names"),
    ],
)
def test_yaml_that_cannot_be_used(make, refused, yaml, message):
    root = make({"a": GOOD}, yaml)
    assert refused(root, "train") == f"{root}/data.yaml{message}"


def test_a_folder_that_is_not_there(make, refused):
    root = make({"a": GOOD}, "train: nowhere\nnames: [cell]\n")
    assert refused(root, "train") == f"{root}/data.yaml: train is nowhere, which is neither in {root}"


def test_without_a_yaml(make, opened):
    root = make({"a": GOOD})
    (root / "data.yaml").unlink()
    note = "no classes.txt, obj.names or YAML names the classes: they are called by their numbers"
    data = opened(root, "train", notes=[note])
    assert (data.class_names, data.category_ids) == (("0",), (0,))


def test_several_yamls(make, refused):
    root = make({"a": GOOD})
    (root / "other.yml").write_text(YAML)
    assert refused(root, "train") == (
        f"{root} has several YOLO data sets: data.yaml, other.yml; give one of these files instead of the folder"
    )
    (root / "empty.yaml").touch()
    with pytest.raises(RequestError, match=r"^.*empty.yaml describes no data set: it needs names \(or nc\) and paths"):
        splits(root / "empty.yaml")


def test_coco128(real, opened):
    root = real("coco128")
    files = "labels/train2017/000000000656.txt; labels/train2017/000000000659.txt"
    orphans = f"label file without an image (2 left out): {files}"
    rounded = "boxes up to 0.02 pixels outside the image, by rounding, clipped"
    notes = ["2 images without a label file are background", f"42 {rounded}"]
    train, val = opened(root, "train", [orphans], notes), opened(root, "val", notes=[f"38 {rounded}"])
    assert (len(train), train.num_boxes, len(val), val.num_boxes) == (128, 929, 128, 898)
    assert len(train.class_names) == 80
    assert train.path(0).stem == f"{train.image_id(0):012}"
    grey = [i for i in range(128) if (image := train.read(i))[0].equal(image[1]) and image[0].equal(image[2])]
    assert grey, "the data set has grey images, which become RGB"
