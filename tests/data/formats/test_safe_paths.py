"""Paths in annotation files: which are followed, and which lead out of the data set."""

import json
import os

import pytest

from retinanet.analysis.doctor import examine
from retinanet.common.errors import RequestError
from retinanet.config.model_settings import ModelSettings
from retinanet.data import open_data
from retinanet.data.formats.safe_paths import files_below, leaves


@pytest.fixture
def coco(tmp_path, paint):
    """A data set beside another folder with an image; the file names of its images are given."""
    paint(tmp_path / "private" / "photo.jpg")

    def make(*names):
        root = tmp_path / "set"
        for name in ("a.jpg", "deeper/b.jpg"):
            paint(root / "train" / name)
        images = [{"id": i, "file_name": str(name).format(root=root, tmp=tmp_path)} for i, name in enumerate(names)]
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
        path = root / "annotations" / "instances_train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return root

    return make


@pytest.mark.parametrize(
    "name", ["a.jpg", "deeper/../a.jpg", "../train/a.jpg", "{root}/train/a.jpg", "{root}/annotations/../train/a.jpg"]
)
@pytest.mark.parametrize("file", [False, True])
def test_what_stays_inside_is_read(coco, name, file):
    root = coco(name, "a.jpg")
    data = open_data(root / "annotations/instances_train.json" if file else root, "train")
    assert [path.resolve() for path in map(data.path, range(len(data)))] == [root / "train/a.jpg"] * 2
    assert not data.report.faults


@pytest.mark.parametrize(
    "name",
    [
        "../../private/photo.jpg",
        "{tmp}/private/photo.jpg",
        "deeper/../../../private/photo.jpg",
        "..\\..\\private\\photo.jpg",
    ],
)
def test_what_leads_out_is_left_out_and_told(coco, name):
    root = coco("a.jpg", name)
    data = open_data(root, "train")
    assert [data.path(i).name for i in range(len(data))] == ["a.jpg"]
    assert data.report.faults["path outside the data set"].count == 1
    (finding,) = [one for one in examine({"train": data}, ModelSettings()) if one.code == "files.outside"]
    assert finding.severity == "error"
    with pytest.raises(RequestError, match="strict refuses"):
        open_data(root, "train", strict=True)


def test_images_that_all_lie_outside_are_refused_with_what_to_do(coco):
    for names in (["{tmp}/private/photo.jpg"], ["../../private/photo.jpg", "{tmp}/private/photo.jpg"]):
        with pytest.raises(RequestError, match="outside the data set"):
            open_data(coco(*names), "train")


@pytest.mark.parametrize("name", ["{tmp}/elsewhere/train/deeper/b.jpg", "../../elsewhere/train/deeper/b.jpg"])
def test_a_file_inside_counts_more_than_its_original_outside(coco, tmp_path, paint, name):
    paint(tmp_path / "elsewhere/train/deeper/b.jpg")
    data = open_data(coco(name), "train")
    assert data.path(0) == tmp_path / "set/train/deeper/b.jpg"
    assert [fault.action for fault in data.report.faults.values()] == ["repaired"]


@pytest.mark.parametrize("sound", [True, False])
def test_lists_of_voc_do_not_lead_out(tmp_path, paint, sound):
    sheet = "<annotation><object><name>{}</name></object></annotation>"
    for place, name in ((tmp_path, "private"), (tmp_path / "set", "x")):
        paint(place / "JPEGImages" / f"{name}.jpg")
        (place / "Annotations").mkdir()
        (place / "Annotations" / f"{name}.xml").write_text(sheet.format(name))
    root = tmp_path / "set"
    outside = f"../../Annotations/private\n../../JPEGImages/../private\n..\\..\\private\n{tmp_path}/private\n"
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text(outside + "x\n" * sound)
    if sound:
        data = open_data(root, "train")
        assert data.class_names == ("x",)
        assert [data.path(i).name for i in range(len(data))] == ["x.jpg"]
        assert data.report.faults["path outside the data set"].count > 0
    else:
        with pytest.raises(RequestError, match="path outside the data set"):
            open_data(root, "train")


def test_links_to_files_and_folders_are_followed(coco, tmp_path, paint):
    paint(tmp_path / "disk" / "c.jpg")
    root = coco("linked.jpg", "disk/c.jpg")
    (root / "train/linked.jpg").symlink_to(tmp_path / "disk/c.jpg")
    (root / "train/disk").symlink_to(tmp_path / "disk")
    assert len(open_data(root, "train")) == 2
    (root / "train/disk/up").symlink_to(tmp_path)
    names = [path.relative_to(root / "train").as_posix() for path in files_below(root / "train")]
    assert names == ["a.jpg", "deeper/b.jpg", "disk/c.jpg", "linked.jpg"]


def test_a_yolo_list_may_name_images_anywhere_and_it_is_said(tmp_path, paint):
    root, other = tmp_path / "set", tmp_path / "other"
    for place in (root, other):
        paint(place / "images/a.jpg")
        (place / "labels").mkdir()
        (place / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\nthis is a letter\n")
    (root / "data.yaml").write_text("train: train.txt\nnames: [x]\n")
    (root / "train.txt").write_text(f"images/a.jpg\n{other}/images/a.jpg\n")
    data = open_data(root, "train")
    assert data.num_boxes == 2
    assert data.report.notes == [f"images outside {root}: 1, such as {other / 'images/a.jpg'}"]
    inside, outside = data.report.faults["malformed line"].examples
    assert "this is a letter" in inside
    assert "letter" not in outside, "the text of a file outside is not shown"
    assert "labels/a.txt line 2" in outside


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a", False), ("a/../b", False), ("..", False), ("../..", True), ("../x/y", False), ("../../set/x", False),
        ("../../sets/x", True), ("/", True), ("/etc/passwd", True), ("..\\..\\x", True),
        ("a..b", False), ("...", False),
    ],
)  # fmt: skip
def test_leaving_a_folder(tmp_path, name, out):
    assert leaves(name, tmp_path / "set/train", tmp_path / "set") is out


def test_leaving_a_folder_named_relative_to_this_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not leaves(os.path.abspath("set/x"), "set/train", "set")
    assert leaves(os.path.abspath("x"), "set/train", "set")
    assert not leaves("../x", "train", ".")
    assert leaves("../../x", "train", ".")
