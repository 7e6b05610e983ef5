"""Pascal VOC's XML without lists of images: beside the images, or in a folder of their own."""

import pytest

from helpers.annotated import annotated, fault_counts, put, require_same, voc_sheet
from retinanet.cli import main
from retinanet.data import open_data, splits

BACKGROUND = "images without an annotation file are background"


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


@pytest.mark.parametrize(
    ("pictures", "sheets"),
    [
        (".", "."),  # labelImg
        ("images", "annotations"),
        ("JPEGImages", "Annotations"),
        (".", "Annotations"),
        ("images", "images/Annotations"),
        ("images", "xmls"),
        ("images", "images"),
        ("images", "."),
    ],
)
def test_one_list(images, tmp_path, pictures, sheets):
    for image in images:
        image.copy(tmp_path / pictures)
        put(tmp_path / sheets / f"{image.stem}.xml", voc_sheet(image))
    assert splits(tmp_path) == {"images": len(images)}
    data = require_same(open_data(tmp_path, "train", strict=True), images)
    assert data.kind == "Pascal VOC"
    assert any("without the name of a split" in note for note in data.report.notes)


@pytest.mark.parametrize(
    ("pictures", "sheets"),
    [
        ("{}", "{}"),  # Roboflow's Pascal VOC export
        ("{}/images", "{}/annotations"),
        ("images/{}", "annotations/{}"),
        ("{}/JPEGImages", "{}/Annotations"),
    ],
)
def test_folders_are_splits(images, tmp_path, pictures, sheets):
    parts = {"train": images[:3], "valid": images[3:]}
    for name, part in parts.items():
        for image in part:
            image.copy(tmp_path / pictures.format(name))
            put(tmp_path / sheets.format(name) / f"{image.stem}.xml", voc_sheet(image))
    put(tmp_path / "README.roboflow.txt", "dice - v1\n")
    assert splits(tmp_path) == {"train": 3, "valid": 2}
    train, val = open_data(tmp_path, "train", strict=True), open_data(tmp_path, "val", strict=True)
    require_same(train, parts["train"])
    require_same(val, parts["valid"])
    assert train.class_names == val.class_names, "labels do not depend on the split"
    assert train.report.lines() == []
    assert main(["data", str(tmp_path), "--images", "0"]) in (0, 1)


def test_three_splits_are_checked_by_the_doctor(images, tmp_path, capsys):
    for name, image in zip(("train", "valid", "test"), images):
        image.copy(tmp_path / name)
        put(tmp_path / name / f"{image.stem}.xml", voc_sheet(image))
    assert main(["data", str(tmp_path), "--images", "0"]) == 0
    assert "Pascal VOC" in capsys.readouterr().out


def test_an_image_without_xml_is_background_and_an_xml_without_image_is_reported(images, tmp_path):
    for image in images:
        image.copy(tmp_path)
        put(tmp_path / f"{image.stem}.xml", voc_sheet(image))
    (tmp_path / f"{images[-1].stem}.xml").unlink()
    put(tmp_path / "gone.xml", voc_sheet(images[0]))
    data = require_same(open_data(tmp_path, "train"), images)
    assert fault_counts(data) == {"label file without an image": (1, "left out")}
    assert f"1 {BACKGROUND}" in data.report.notes


def test_a_broken_xml_is_named_by_line(images, tmp_path):
    for image in images:
        image.copy(tmp_path)
        put(tmp_path / f"{image.stem}.xml", voc_sheet(image))
    put(tmp_path / f"{images[0].stem}.xml", "<annotation>\n<object>\n</annotation>\n")
    data = require_same(open_data(tmp_path, "train"), images[1:])
    assert f"{images[0].stem}.xml line 3" in data.report.lines()[0]


def test_names_in_another_case_are_found(images, tmp_path):
    image = images[0]
    image.copy(tmp_path / "images", image.stem.upper() + image.path.suffix)
    put(tmp_path / "annotations" / f"{image.stem.lower()}.xml", voc_sheet(image))
    data = require_same(open_data(tmp_path, "train"), [image], rename=str.upper)
    assert list(fault_counts(data)) in ([], ["path written otherwise than on disk"])


def test_xml_without_any_object(images, tmp_path, refused):
    images[-1].copy(tmp_path)
    put(tmp_path / f"{images[-1].stem}.xml", voc_sheet(images[-1]))
    assert "name no class" in refused(tmp_path, "train")
