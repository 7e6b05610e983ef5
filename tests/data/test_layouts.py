"""Which layout is read where a folder has several, and which file is given for which."""

import json

import pytest

from helpers.annotated import annotated, classes_of, coco_content, put, require_same, voc_sheet, yolo_label
from retinanet.analysis.doctor import examine
from retinanet.analysis.holdout import open_held_out
from retinanet.config.model_settings import ModelSettings
from retinanet.data import open_data
from retinanet.data.layouts import find_layout


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


def test_the_file_of_a_whole_data_set_comes_before_those_of_single_images(images, tmp_path):
    """Each layout is added to those before; the kind that is read changes as the table of the layouts says."""
    classes = classes_of(images)
    rows = [(image.name, *box, name) for image in images for name, *box in image.boxes]

    def texts():
        for image in images:
            put(tmp_path / f"{image.stem}.txt", yolo_label(image, classes))

    def sheets():
        for image in images:
            put(tmp_path / f"{image.stem}.xml", voc_sheet(image))

    steps = [
        ("YOLO", texts),
        ("CSV", lambda: put(tmp_path / "boxes.csv", "".join(",".join(map(str, row)) + "\n" for row in rows))),
        ("Pascal VOC", sheets),
        ("YOLO", lambda: put(tmp_path / "classes.txt", "\n".join(classes))),
        ("COCO", lambda: put(tmp_path / "a.json", json.dumps(coco_content(images, classes)))),
        ("YOLO", lambda: put(tmp_path / "data.yaml", "train: .\nnames: " + json.dumps(classes))),
    ]
    for image in images:
        image.copy(tmp_path)
    before = set()
    for kind, add in steps:
        add()
        data = open_data(tmp_path, "train")
        assert data.kind == kind
        assert data.num_boxes == sum(len(image.boxes) for image in images)
        others = before - {kind}
        notes = [note for note in data.report.notes if "it also has the layout of" in note]
        assert len(notes) == bool(others)
        assert all(other in notes[0] for other in others)
        before.add(kind)
    for name, kind in {"data.yaml": "YOLO", "a.json": "COCO", "boxes.csv": "CSV"}.items():
        assert find_layout(tmp_path / name).kind == kind


def test_one_list_can_be_divided_in_memory(images, tmp_path):
    for image in images:
        image.copy(tmp_path)
        put(tmp_path / f"{image.stem}.xml", voc_sheet(image))
    assert find_layout(tmp_path).any_split
    require_same(open_data(tmp_path, "anything"), images)


def test_an_interrupted_copy(tmp_path, refused):
    put(tmp_path / ".retinanet-incomplete", "")
    assert "interrupted" in refused(tmp_path, "train")


def test_a_list_that_was_divided_has_a_split_to_train_on(images, tmp_path):
    for image in images:
        image.copy(tmp_path)
        put(tmp_path / f"{image.stem}.xml", voc_sheet(image))
    train, val = open_held_out(tmp_path, "images", 0.4, seed=0)
    findings = examine({"images": train, "held out": val}, ModelSettings())
    assert not [finding for finding in findings if finding.code == "splits.no-train"]
