"""Label Studio's exports: JSON, JSON-MIN, COCO and YOLO, box for box."""

import json
import math

import pytest

from helpers.annotated import (
    annotated,
    classes_of,
    coco_content,
    fault_counts,
    put,
    require_same,
    yolo_label,
)
from retinanet.cli import main
from retinanet.data import open_data


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


def result(image, name, x1, y1, x2, y2, **changes):
    height, width = image.size
    value = {
        "x": 100 * x1 / width,
        "y": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
        "rotation": 0,
        "rectanglelabels": [name],
    }
    return {
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value | changes,
        "id": "Dx_aB91ISN",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "origin": "manual",
    }


def task(image, number, name="/data/upload/1/{}", annotations=None):
    """A task of Label Studio 1.10's JSON."""
    if annotations is None:
        annotations = [[result(image, *box) for box in image.boxes]]
    return {
        "id": number,
        "annotations": [
            {
                "id": 10 * number + i,
                "completed_by": 1,
                "result": results,
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": f"2024-03-0{i + 1}T21:52:49.513742Z",
                "updated_at": f"2024-03-0{i + 1}T22:16:08.746926Z",
            }
            for i, results in enumerate(annotations)
        ],
        "file_upload": f"0a1b2c3d-{image.name}",
        "drafts": [],
        "predictions": [],
        "data": {"image": name.format(f"0a1b2c3d-{image.name}")},
        "meta": {},
        "project": 1,
    }


@pytest.mark.parametrize(
    ("folder", "prefixed"), [("images", True), (".", True), ("images", False), ("media/upload/1", True)]
)
def test_json(images, tmp_path, folder, prefixed):
    for image in images:
        image.copy(tmp_path / folder, f"0a1b2c3d-{image.name}" if prefixed else None)
    content = [task(image, number) for number, image in enumerate(images, 40)]
    file = put(tmp_path / "project-1-at-2024-03-09-22-16-1b2c3d4e.json", json.dumps(content))
    for place in (tmp_path, file):
        data = open_data(place, "train", strict=True)
        require_same(data, images, rename=(lambda stem: f"0a1b2c3d-{stem}") if prefixed else str)
        assert (data.kind, data.class_names) == ("Label Studio", tuple(classes_of(images)))
        assert sorted(data.image_id(i) for i in range(5)) == [40, 41, 42, 43, 44]
    assert main(["data", str(tmp_path), "--images", "0"]) in (0, 1)


@pytest.mark.parametrize(
    "name",
    [
        "/data/local-files/?d=photos/{}",
        "s3://bucket/photos/{}",
        "https://example.com/photos/{}?X-Amz-Signature=0",
        "photos/{}",
        "/data/local-files/?d=C%3A%5Cphotos%5C{}",
    ],
)
def test_images_of_a_storage(images, tmp_path, name):
    for image in images:
        image.copy(tmp_path / "photos")
    content = [task(image, number) for number, image in enumerate(images, 1)]
    for entry, image in zip(content, images):
        entry["data"]["image"] = name.format(image.name)
        del entry["file_upload"]
    put(tmp_path / "export.json", json.dumps(content))
    require_same(open_data(tmp_path, "train", strict=True), images)


def test_json_min(images, tmp_path):
    content = []
    for number, image in enumerate(images, 1):
        image.copy(tmp_path)
        height, width = image.size
        shapes = [
            result(image, *box)["value"] | {"original_width": width, "original_height": height} for box in image.boxes
        ]
        entry = {
            "image": f"/data/upload/1/0a1b2c3d-{image.name}",
            "id": number,
            "annotator": 1,
            "annotation_id": number,
        }
        content.append(entry | ({"label": shapes} if shapes else {}))
    put(tmp_path / "export.json", json.dumps(content))
    require_same(open_data(tmp_path, "train", strict=True), images)


def test_coco_and_yolo(images, tmp_path):
    """The two exports have the same images and notes.json, which is not COCO's."""
    classes = classes_of(images)
    notes = {"categories": [{"id": i, "name": name} for i, name in enumerate(classes)], "info": {"version": "1.0"}}
    for image in images:
        for layout in ("coco", "yolo"):
            image.copy(tmp_path / layout / "images")
        put(tmp_path / f"yolo/labels/{image.stem}.txt", yolo_label(image, classes))
    put(tmp_path / "yolo/classes.txt", "\n".join(classes))
    put(tmp_path / "yolo/notes.json", json.dumps(notes))
    put(tmp_path / "coco/result.json", json.dumps(coco_content(images, classes, "images/", first_category=0)))
    for layout in ("coco", "yolo"):
        require_same(open_data(tmp_path / layout, "train"), images)


def test_the_box_around_a_rotated_box(images, tmp_path):
    """Label Studio rotates clockwise about the upper left corner."""
    image = images[0]
    image.copy(tmp_path)
    turned = result(image, "one", 100, 100, 200, 140, rotation=30)
    put(tmp_path / "a.json", json.dumps([task(image, 1, annotations=[[turned]])]))
    data = open_data(tmp_path, "train")
    sine, cosine = math.sin(math.radians(30)), math.cos(math.radians(30))
    expected = [100 - 40 * sine, 100, 100 + 100 * cosine, 100 + 100 * sine + 40 * cosine]
    assert data.boxes(0)[0].tolist() == pytest.approx(expected, abs=0.01)
    assert fault_counts(data) == {"rotated box, the upright box around it is read": (1, "repaired")}


def test_what_is_no_box(images, tmp_path):
    image = images[0]
    for each in images:
        each.copy(tmp_path)
    polygon = result(image, "one", 0, 0, 1, 1)
    polygon["value"] = {"points": [[10, 10], [50, 20], [20, 40]], "polygonlabels": ["one"]}
    mask, lost, view, choice = (result(image, "one", 1, 1, 9, 9) for _ in range(4))
    mask["value"] = {"rle": [0, 1], "brushlabels": ["one"]}
    lost["value"]["x"] = "wide"
    view["image_rotation"] = 90
    choice["value"] = {"choices": ["blurred"]}
    double = result(image, "one", 1, 1, 9, 9, rectanglelabels=["one", "two"])
    shapes = [polygon, mask, lost, view, choice, "odd", double]
    tasks = [task(image, 1, annotations=[[], shapes]), task(images[1], 2, annotations=[]), task(images[2], 3)]
    tasks[2]["annotations"][0]["was_cancelled"] = True
    put(tmp_path / "a.json", json.dumps(tasks))
    data = open_data(tmp_path, "train")
    height, width = image.size
    assert len(data) == 1
    assert data.boxes(0)[0].tolist() == pytest.approx([0.1 * width, 0.1 * height, 0.5 * width, 0.4 * height], abs=0.01)
    assert data.boxes(0)[1].tolist() == pytest.approx([1, 1, 9, 9], abs=0.01)
    assert fault_counts(data) == {
        "shape without a box": (1, "left out"),
        "malformed annotation": (1, "left out"),
        "box with a coordinate that is not a finite number": (1, "left out"),
        "box on a rotated view of the image": (1, "left out"),
        "box with several labels, the first is read": (1, "repaired"),
    }
    assert "2 tasks are not annotated or were skipped: they are left out" in data.report.notes
    assert "a.json task 1 result 2" in "; ".join(data.report.lines())


def test_images_outside_are_not_read(images, tmp_path):
    image = images[0]
    image.copy(tmp_path / "in")
    secret = image.copy(tmp_path / "out", "secret.jpg")
    tasks = [task(image, 1, f"../{image.name}"), task(image, 2), task(image, 3)]
    tasks[1]["data"]["image"], tasks[2]["data"]["image"] = str(secret), "../out/secret.jpg"
    for entry in tasks[1:]:
        del entry["file_upload"]
    put(tmp_path / "in/a.json", json.dumps(tasks))
    data = open_data(tmp_path / "in", "train")
    assert [data.path(i).name for i in range(len(data))] == [image.name]
    assert all(kind in ("missing image", "path outside the data set") for kind in fault_counts(data))


def test_a_broken_file(images, tmp_path, refused):
    images[0].copy(tmp_path)
    file = put(tmp_path / "a.json", json.dumps([task(images[0], 1)], indent=1)[:-20])
    assert f"{file} line" in refused(tmp_path, "train")
    put(tmp_path / "b.json", json.dumps([task(images[0], 1)]))
    assert "several Label Studio exports" in refused(tmp_path, "train")
