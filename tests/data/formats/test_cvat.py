"""CVAT's exports: CVAT for images, COCO and YOLO, box for box."""

import json

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
from retinanet.data import open_data, splits


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


def box(name, x1, y1, x2, y2, more=""):
    return (
        f'    <box label="{name}" source="manual" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"{more} '
        'z_order="0">\n      <attribute name="quality">good</attribute>\n    </box>\n'
    )


def export(images, classes, subset=None, shapes=None):
    """annotations.xml of CVAT 2.11, "CVAT for images 1.1"."""
    labels = "".join(
        f"<label><name>{name}</name><color>#fa3253</color><type>any</type><attributes><attribute><name>quality</name>"
        "</attribute></attributes></label>\n"
        for name in classes
    )
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task><name>a</name>'
    )
    text += f"<labels>\n{labels}</labels></task></meta>\n"
    for number, image in enumerate(images):
        height, width = image.size
        part = f' subset="{subset(number)}" task_id="1"' if subset else ""
        text += f'  <image id="{number}" name="{image.name}"{part} width="{width}" height="{height}">\n'
        text += "".join(box(*each) for each in image.boxes) if shapes is None else shapes
        text += "  </image>\n"
    return text + "</annotations>\n"


@pytest.mark.parametrize("folder", ["images", ".", "images/default"])
@pytest.mark.parametrize("subset", [None, lambda _: "default"])
def test_cvat_for_images(images, tmp_path, folder, subset):
    for image in images:
        image.copy(tmp_path / folder)
    classes = ["six", "never", *classes_of(images)[:-2], "three", "two"]
    classes = list(dict.fromkeys([*classes, *classes_of(images)]))
    file = put(tmp_path / "annotations.xml", export(images, classes, subset))
    for place in (tmp_path, file):
        data = require_same(open_data(place, "train", strict=True), images)
        assert (data.kind, data.class_names) == ("CVAT", tuple(classes)), "in CVAT's order"
        require_same(open_data(place, "val", strict=True), images)
    assert main(["data", str(tmp_path), "--images", "0"]) in (0, 1)


def test_subsets_are_splits(images, tmp_path):
    for number, image in enumerate(images):
        image.copy(tmp_path / "images" / ("Train" if number < 3 else "Validation"))
    text = export(images, classes_of(images), lambda number: "Train" if number < 3 else "Validation")
    put(tmp_path / "annotations.xml", text)
    assert splits(tmp_path) == {"Train": 3, "Validation": 2}
    require_same(open_data(tmp_path, "train", strict=True), images[:3])
    require_same(open_data(tmp_path, "val", strict=True), images[3:])


def test_shapes_of_all_kinds(images, tmp_path):
    image = images[0]
    image.copy(tmp_path)
    shapes = (
        box("one", 100, 100, 200, 140, ' rotation="90.0"')
        + '<polygon label="one" points="10.00,20.00;50.00,30.00;20.00,70.50" z_order="0"></polygon>\n'
        + '<mask label="one" rle="1, 2" left="5" top="6" width="3" height="4"></mask>\n'
        + '<ellipse label="one" cx="50" cy="60" rx="10" ry="5"></ellipse>\n'
        + '<points label="one" points="1,2"></points>\n<polyline label="one" points="1,2;3,4"></polyline>\n'
        + '<box xtl="1" ytl="1" xbr="2" ybr="2"/><box label="one" xtl="1"/><tag label="one"/>\n'
        + '<polygon label="one" points="10.00"></polygon>\n'
    )
    put(tmp_path / "annotations.xml", export([image], ["one"], None, shapes))
    data = open_data(tmp_path, "train")
    assert data.boxes(0).tolist() == [[130, 70, 170, 170], [10, 20, 50, 70.5], [5, 6, 8, 10], [40, 55, 60, 65]]
    assert fault_counts(data) == {
        "rotated box, the upright box around it is read": (1, "repaired"),
        "shape without a box": (2, "left out"),
        "malformed annotation": (3, "left out"),
    }
    assert data.box_name(0) == f"{image.name} box 1"
    assert open_data(tmp_path, "train", references=True).box_name(0).startswith("annotations.xml line ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations>\n<image id='0' name='a.jpg'>\n</annotations>\n", "line 3 column"),
        ('<annotations>\n<track id="0" label="one"></track></annotations>', "line 2: it is CVAT for video"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>\n<annotations></annotations>', "declares the entity x"),
        ("<annotations>" + "<a>" * 60, "nested elements"),
        ("<annotations></annotations>", "names no class"),
        ('<?xml version="1.0" encoding="foo-8"?><annotations></annotations>', "an encoding that is not known"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, refused, text, message):
    file = put(tmp_path / "annotations.xml", text)
    for place in (tmp_path, file):
        assert message in refused(place, "train")
        assert str(file) in refused(place, "train")


def test_images_outside_are_not_read(images, tmp_path):
    images[0].copy(tmp_path / "in/images")
    images[1].copy(tmp_path)
    text = export(images[:2], classes_of(images)).replace(f'"{images[1].name}"', f'"../../../{images[1].name}"')
    put(tmp_path / "in/annotations.xml", text)
    data = open_data(tmp_path / "in", "train")
    assert len(data) == 1
    assert fault_counts(data) == {"path outside the data set": (1, "left out")}


def test_coco(images, tmp_path):
    """CVAT 2.11's COCO 1.0, with the images or without, so that they were put beside."""
    for folder in ("images", "images/default", "."):
        root = tmp_path / folder.replace("/", "-").replace(".", "here")
        for image in images:
            image.copy(root / folder)
        put(root / "annotations/instances_default.json", json.dumps(coco_content(images, classes_of(images))))
        require_same(open_data(root, "train", strict=True), images)


@pytest.mark.parametrize("prefix", ["data/", ""])
def test_yolo(images, tmp_path, prefix):
    """CVAT 2.11's YOLO 1.1."""
    classes = classes_of(images)
    put(tmp_path / "obj.names", "\n".join(classes) + "\n")
    lists = {"train": images[:3], "valid": images[3:]}
    rows = [f"classes = {len(classes)}", *(f"{name} = {prefix}{name}.txt" for name in lists)]
    put(tmp_path / "obj.data", "\n".join([*rows, f"names = {prefix}obj.names", "backup = backup/"]))
    for name, part in lists.items():
        put(tmp_path / f"{name}.txt", "".join(f"{prefix}obj_{name}_data/{image.name}\n" for image in part))
        for image in part:
            image.copy(tmp_path / f"obj_{name}_data")
            put(tmp_path / f"obj_{name}_data/{image.stem}.txt", yolo_label(image, classes))
    for split, part in (("train", images[:3]), ("val", images[3:])):
        data = require_same(open_data(tmp_path, split), part)
        assert list(fault_counts(data)) == (["path written otherwise than on disk"] if prefix else [])
