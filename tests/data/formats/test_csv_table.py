"""CSV: keras-retinanet's, DeepForest's, TensorFlow's, Kaggle's and Open Images' columns, box for box."""

import csv
import gc
import io
import warnings

import pytest

from helpers.annotated import annotated, classes_of, fault_counts, put, require_same
from retinanet.cli import main
from retinanet.data import open_data, splits


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


def table(header, rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows] if header else rows)
    return text.getvalue()


def keras(images, prefix=""):
    """keras-retinanet 1.0: no header, empty columns for an image without objects."""
    rows = []
    for image in images:
        rows += [(prefix + image.name, *box, name) for name, *box in image.boxes] or [(prefix + image.name, *[""] * 5)]
    return table(None, rows)


def deepforest(images, prefix=""):
    """DeepForest 1.3."""
    rows = [(prefix + image.name, *box, name) for image in images for name, *box in image.boxes]
    return table(["image_path", "xmin", "ymin", "xmax", "ymax", "label"], rows)


def tensorflow(images, prefix=""):
    """The CSV of TensorFlow's object detection tutorials, and of Roboflow's export for it."""
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    rows = [(prefix + i.name, i.size[1], i.size[0], name, *box) for i in images for name, *box in i.boxes]
    return table(header, rows)


def wheat(images, prefix=""):
    """Kaggle's global wheat detection: image ids without suffix, one class, [x, y, w, h] as text."""
    rows = [
        (prefix + i.stem, i.size[1], i.size[0], str([x1, y1, x2 - x1, y2 - y1]), "usask_1")
        for i in images
        for _, x1, y1, x2, y2 in i.boxes
    ]
    return table(["image_id", "width", "height", "bbox", "source"], rows)


def open_images(images, prefix=""):
    """Open Images V7: fractions, xmin before xmax before ymin."""
    header = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    rows = [
        (prefix + i.stem, "xclick", f"/m/{name}", 1, x1 / w, x2 / w, y1 / h, y2 / h, 0, 0, int(n == 0), 0, 0)
        for i in images
        for h, w in [i.size]
        for n, (name, x1, y1, x2, y2) in enumerate(i.boxes)
    ]
    return table(header.split(","), rows)


STYLES = (keras, deepforest, tensorflow)


def without_boxes(style, images):
    """Only keras-retinanet lists images without boxes."""
    return images if style is keras else [image for image in images if image.boxes]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("folder", "prefix"),
    [("images", ""), (".", ""), ("images", "images/"), ("photos/2020", ""), ("images", "/home/me/data/images/")],
)
def test_one_table_is_one_list(images, tmp_path, style, folder, prefix):
    root = tmp_path / "dice"
    for image in images:
        image.copy(root / folder)
    file = put(root / "annotations.csv", style(images, prefix))
    for place in (root, file):
        data = require_same(open_data(place, "train"), without_boxes(style, images))
        assert (data.kind, data.class_names) == ("CSV", tuple(classes_of(images)))
        assert list(fault_counts(data)) == (["path written otherwise than on disk"] if prefix.startswith("/") else [])
        require_same(open_data(place, "val"), without_boxes(style, images))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("tables", "folder"),
    [
        ("{}.csv", "{}"),
        ("{}_labels.csv", "images/{}"),
        ("annotations_{}.csv", "images"),
        ("{}/_annotations.csv", "{}"),  # Roboflow's TensorFlow export
    ],
)
def test_tables_are_splits(images, tmp_path, style, tables, folder):
    for split, part in {"train": images[:2], "val": images[2:]}.items():
        for image in part:
            image.copy(tmp_path / folder.format(split))
        put(tmp_path / tables.format(split), style(part))
    train, val = (open_data(tmp_path, split, strict=True) for split in ("train", "val"))
    require_same(train, images[:2])
    require_same(val, without_boxes(style, images[2:]))
    assert train.class_names == val.class_names
    assert splits(tmp_path) == {"train": len(train), "val": len(val)}
    assert main(["data", str(tmp_path), "--images", "0"]) in (0, 1)


def test_classes_csv_decides_names_and_order(images, tmp_path):
    for image in images:
        image.copy(tmp_path)
    order = ("six", "five", "four", "three", "two", "one", "never")
    put(tmp_path / "annotations.csv", keras(images))
    put(tmp_path / "classes.csv", table(None, [(name, number) for number, name in enumerate(order)]))
    data = require_same(open_data(tmp_path, "train", strict=True), images)
    assert data.class_names == order
    put(tmp_path / "classes.csv", "six,0\nfive,1\n")
    data = open_data(tmp_path, "train")
    kept = sum(box[0] in ("six", "five") for image in images for box in image.boxes)
    assert data.num_boxes == kept
    assert fault_counts(data)["unknown class"] == (sum(len(i.boxes) for i in images) - kept, "left out")


def test_global_wheat(images, tmp_path):
    for image in images:
        image.copy(tmp_path / "train")
    put(tmp_path / "train.csv", wheat(images))
    put(tmp_path / "sample_submission.csv", "image_id,PredictionString\naac893a91,1.0 0 0 50 50\n")
    data = open_data(tmp_path, "train", strict=True)
    assert data.class_names == ("object",)
    for image in images:
        image.boxes = [("object", *box[1:]) for box in image.boxes]
    require_same(data, images[:-1])


def test_corners_in_a_column_of_text(images, tmp_path):
    for image in images:
        image.copy(tmp_path)
    rows = [(i.name, *i.size[::-1], str(box), name) for i in images for name, *box in i.boxes]
    put(tmp_path / "boxes.csv", table(["file_name", "width", "height", "bbox", "label"], rows))
    data = require_same(open_data(tmp_path, "train", strict=True), images[:-1])
    assert any("as x, y, w, h they leave the images" in note for note in data.report.notes)


@pytest.mark.parametrize("described", [False, True])
def test_open_images(images, tmp_path, described):
    for image in images:
        image.copy(tmp_path / "train")
    put(tmp_path / "oidv6-train-annotations-bbox.csv", open_images(images))
    if described:
        names = table(None, [(f"/m/{name}", name) for name in classes_of(images)])
        put(tmp_path / "class-descriptions-boxable.csv", names)
    else:
        for image in images:
            image.boxes = [(f"/m/{box[0]}", *box[1:]) for box in image.boxes]
    data = require_same(open_data(tmp_path, "train", strict=True), images[:-1])
    assert data.crowd(0).tolist() == [True] + [False] * (len(images[0].boxes) - 1)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_sides(images, tmp_path, delimiter):
    for image in images:
        image.copy(tmp_path)
    rows = [(i.name, x1, y1, x2 - x1, y2 - y1, name) for i in images for name, x1, y1, x2, y2 in i.boxes]
    put(tmp_path / "boxes.csv", "\ufeff" + table(["image", "x", "y", "w", "h", "class"], rows, delimiter))
    require_same(open_data(tmp_path, "train", strict=True), images[:-1])


def test_numbered_classes(images, tmp_path):
    images[0].copy(tmp_path)
    put(tmp_path / "a.csv", f"{images[0].name},1,2,30,40,10\n{images[0].name},1,2,30,41,9\n")
    data = open_data(tmp_path, "train")
    assert data.class_names == ("9", "10")
    assert any("called by their number" in note for note in data.report.notes)


def test_an_image_under_two_names_is_one_image(images, tmp_path):
    images[0].copy(tmp_path / "images")
    name = images[0].name
    put(tmp_path / "a.csv", f"{name},1,2,30,40,a\n./{name},1,2,30,41,a\nimages/{name},5,6,30,41,b\n")
    data = open_data(tmp_path, "train")
    assert (len(data), data.num_boxes) == (1, 3)


def test_faults_name_the_row(images, tmp_path):
    images[0].copy(tmp_path / "dice")
    name = images[0].name
    rows = [
        ("path", "x1", "y1", "x2", "y2", "class"),
        (name, 1, 2, 30, 40, "one"),
        (name, 1, 2, "thirty", 40, "one"),
        (name, 1, 2, 30, "", "one"),
        (name, 1, 2, 30, 40, ""),
        ("", 1, 2, 30, 40, "one"),
        ("gone.jpg", 1, 2, 30, 40, "one"),
        ("../../etc/secret.jpg", 1, 2, 30, 40, "one"),
        (name, "inf", 2, 30, 40, "one"),
        (name,),
    ]
    put(tmp_path / "dice/a.csv", table(None, rows))
    data = open_data(tmp_path / "dice", "train")
    assert data.boxes(0).tolist() == [[1, 2, 30, 40]]
    assert fault_counts(data) == {
        "malformed annotation": (4, "left out"),
        "missing image": (1, "left out"),
        "path outside the data set": (1, "left out"),
        "box with a coordinate that is not a finite number": (1, "left out"),
    }
    assert "a.csv line 3: the box is 1 2 thirty 40, not four numbers" in data.report.lines()[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,x1,y1,x2,y2,class\na.jpg,1,2,3,4,caf\xe9\n", "is not UTF-8 text (byte 0xe9)"),
        (b'path,x1,y1,x2,y2,class\na.jpg,1,2,3,4,"' + b"x" * 200_000 + b'"\n', "is not CSV"),
        (b"path,x1,y1,x2,y2,class\na.jpg,1,2,3,4," + bytes(1 << 21), "line 2"),
        (b"name,colour\na,red\n", "is no table of boxes"),
        (b"", "is no table of boxes"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, refused, content, message):
    file = put(tmp_path / "a.csv", content)
    assert message in refused(file, "train")
    assert str(file) in refused(file, "train")
    if "no table" not in message:
        assert message in refused(tmp_path, "train")


def test_several_tables(images, tmp_path, refused):
    for name in ("a.csv", "b.csv"):
        put(tmp_path / name, keras(images))
    assert "several tables of boxes, a.csv, b.csv" in refused(tmp_path, "train")
    for name in ("train_a.csv", "train_b.csv"):
        put(tmp_path / name, keras(images))
    assert "two tables for the split train" in refused(tmp_path, "train")


def test_every_file_is_closed(images, tmp_path):
    images[0].copy(tmp_path)
    put(
        tmp_path / "a.csv",
        table(None, [("path", "x1", "y1", "x2", "y2", "class"), (images[0].name, 1, 2, 30, 40, "one")]),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        open_data(tmp_path, "train")
        gc.collect()
    assert [str(each.message) for each in caught] == []
