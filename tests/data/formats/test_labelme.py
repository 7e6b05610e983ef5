"""labelme's JSON beside each image, box for box."""

import base64
import json

import pytest

from helpers.annotated import annotated, classes_of, fault_counts, put, require_same
from retinanet.cli import main
from retinanet.data import open_data, splits


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


def shape(label, points, kind="rectangle"):
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }


def sheet(image, shapes=None, path=None, embedded=False):
    """A file of labelme 5.5.0."""
    if shapes is None:  # drawn from the lower right corner to the upper left in every second case
        boxes = enumerate(image.boxes)
        shapes = [shape(name, [[x1, y1], [x2, y2]][:: -1 if i % 2 else 1]) for i, (name, x1, y1, x2, y2) in boxes]
    height, width = image.size
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": path or image.name,
        "imageData": base64.b64encode(image.path.read_bytes()).decode() if embedded else None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content, indent=2)


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize(
    ("pictures", "sheets", "path"),
    [
        (".", ".", "{}"),
        ("images", "annotations", "../images/{}"),
        ("images", "annotations", "..\\images\\{}"),
        ("images", "labels", "{}"),
        (".", ".", "/home/me/photos/{}"),
    ],
)
def test_one_list(images, tmp_path, embedded, pictures, sheets, path):
    for image in images:
        image.copy(tmp_path / pictures)
        put(tmp_path / sheets / f"{image.stem}.json", sheet(image, None, path.format(image.name), embedded))
    assert splits(tmp_path) == {"images": 5}
    data = require_same(open_data(tmp_path, "train", strict=True), images)
    assert (data.kind, data.class_names) == ("labelme", tuple(classes_of(images)))
    assert main(["data", str(tmp_path), "--images", "0"]) in (0, 1)


def test_folders_are_splits(images, tmp_path):
    for split, part in {"train": images[:3], "val": images[3:]}.items():
        for image in part:
            image.copy(tmp_path / split)
            put(tmp_path / split / f"{image.stem}.json", sheet(image))
    train, val = (open_data(tmp_path, split, strict=True) for split in ("train", "val"))
    require_same(train, images[:3])
    require_same(val, images[3:])
    assert train.class_names == val.class_names


def test_shapes_of_all_kinds(images, tmp_path):
    image = images[0]
    image.copy(tmp_path)
    images[-1].copy(tmp_path)
    shapes = [
        shape("one", [[10, 20], [50, 30], [20, 70.5]], "polygon"),
        shape("one", [[100, 100], [103, 104]], "circle"),
        shape("one", [[5, 6], [8, 9]], "mask"),
        shape("two", [[5, 6], [8, 9]], "line"),
        shape("two", [[5, 6]], "point"),
        shape("one", [[5, 6]], "rectangle"),
        shape("", [[5, 6], [8, 9]]),
        {"label": "one"},
        "odd",
        shape("one", [["a", 6], [8, 9]]),
    ]
    put(tmp_path / f"{image.stem}.json", sheet(image, shapes))
    data = open_data(tmp_path, "train")
    assert data.class_names == ("one",)
    assert data.boxes(0).tolist() == [[10, 20, 50, 70.5], [95, 95, 105, 105], [5, 6, 8, 9]]
    assert fault_counts(data) == {
        "shape without a box": (2, "left out"),
        "malformed annotation": (4, "left out"),
        "box with a coordinate that is not a finite number": (1, "left out"),
    }
    assert "3 polygons, circles or masks are read as the box around them" in data.report.notes
    assert "1 images without a JSON are background" in data.report.notes
    assert f"{image.stem}.json shape 4: line" in data.report.lines()[0]


def test_files_that_cannot_be_used(images, tmp_path, refused):
    for image in images:
        image.copy(tmp_path / "in")
        put(tmp_path / f"in/{image.stem}.json", sheet(image))
    put(tmp_path / f"in/{images[0].stem}.json", sheet(images[0])[:-30])
    (tmp_path / "in" / images[1].name).unlink()
    put(tmp_path / f"in/{images[1].stem}.json", sheet(images[1], embedded=True))
    images[0].copy(tmp_path, "secret.jpg")
    put(tmp_path / "in/x.json", sheet(images[0], path="../secret.jpg"))
    data = open_data(tmp_path / "in", "train")
    counts = fault_counts(data)
    assert counts["unreadable annotation file"] == (1, "left out")
    assert counts["path outside the data set"] == (1, "left out")
    assert counts["missing image"] == (1, "left out")
    assert "imageData" in "; ".join(data.report.lines())
    assert "give its folder" in refused(tmp_path / f"in/{images[2].stem}.json", "train")
