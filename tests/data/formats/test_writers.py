"""Copies in every layout: the same images, classes and boxes when read again, and what is said of the rest."""

import io
import json
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.analysis.splitting import split
from retinanet.common.errors import RequestError, WorkError
from retinanet.data import open_data, splits
from retinanet.data.formats.writers import FORMATS, write
from retinanet.data.layouts import find_layout

UNNAMED = "classes without a box, which Pascal VOC does not name"


def coco_folder(root, files, classes=("cell",), name="train", ids=None):
    """A COCO data set of images that are there: ``files`` maps names to (size, [(label, box, crowd)])."""
    ids = ids or list(range(1, len(classes) + 1))
    images, boxes = [], []
    for number, (file, ((height, width), things)) in enumerate(files.items(), 1):
        images.append({"id": number * 7, "file_name": file, "height": height, "width": width})
        for label, (x1, y1, x2, y2), crowd in things:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            ident = len(boxes) + 1
            boxes.append({"id": ident, "image_id": number * 7, "category_id": ids[label], "bbox": bbox})
            boxes[-1]["iscrowd"] = int(crowd)
    content = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": ident, "name": name} for ident, name in zip(ids, classes)],
    }
    (root / "annotations").mkdir(exist_ok=True, parents=True)
    (root / f"annotations/instances_{name}.json").write_text(json.dumps(content))
    return root


def all_of(root):
    return {name: open_data(root, name) for name in splits(root)}


def images_of(data, places=None):
    """Each image's boxes by its file name: (name, corners, crowd, area) of each box, in their order."""
    found = {}
    for i in range(len(data)) if places is None else places:
        names = [data.class_names[label] for label in data.labels(i)]
        rows = zip(names, data.boxes(i).tolist(), data.crowd(i).tolist(), data.areas(i).tolist())
        found[data.path(i).name] = (data.size(i), data.path(i).read_bytes(), data.image_id(i), list(rows))
    assert len(found) == len(data if places is None else places)
    return found


def assert_same(source, copy, layout, places=None, tolerance=1e-3):
    """The copy, opened, is the source as far as the layout can hold it, with no fault."""
    assert copy.report.faults == {}
    before, after = images_of(source, places), images_of(copy)
    assert before.keys() == after.keys()
    for name, (size, content, ident, boxes) in before.items():
        if layout == "yolo":
            boxes = [box for box in boxes if not box[2]]
        assert after[name][:2] == (size, content)
        assert len(after[name][3]) == len(boxes)
        for old, new in zip(boxes, after[name][3]):
            assert (new[0], new[2]) == (old[0], old[2])
            assert np.abs(np.subtract(new[1], old[1])).max() <= tolerance
            if layout == "coco":
                assert new == old
        if layout == "coco":
            assert after[name][2] == ident
    if layout == "coco":
        assert dict(zip(copy.class_names, copy.category_ids)) == dict(zip(source.class_names, source.category_ids))
    elif layout == "yolo":
        assert copy.class_names == source.class_names
    else:
        assert set(copy.class_names) <= set(source.class_names)


# Names that hold whatever all layouts can hold: quotes, line ends, what YAML takes for something else, any script.
xml = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\n\t\r")
class_names = st.one_of(
    st.sampled_from(["no", "1", "null", "a: b", "- x", "a\nb", "a\r\nb", "'\"", "<&>", "#", "=", "~", "{}", "é", "🦠"]),
    st.text(xml.filter(lambda c: c not in "\ufffe\uffff"), min_size=1, max_size=8).map(str.strip).filter(bool),
)
FILES = ("a.jpg", "a.b.png", "000012.jpg", "c-d.png", "e.JPG", "ü.png", "f.bmp")


@st.composite
def sources(draw):
    """Classes with ids, and one or two splits of images with boxes that every layout can hold."""
    classes = draw(st.lists(class_names, min_size=1, max_size=4, unique=True))
    ids = draw(st.lists(st.integers(0, 90), min_size=len(classes), max_size=len(classes), unique=True))
    names = draw(st.permutations(FILES))[: draw(st.integers(1, 5))]
    parted = draw(st.integers(1, len(names)))
    parts = {}
    for name, files in (("train", names[:parted]), ("val", names[parted:])):
        for file in files:
            height, width = draw(st.integers(4, 40)), draw(st.integers(4, 40))
            things = []
            for _ in range(draw(st.integers(1 if file == names[0] else 0, 4))):
                corners = []
                for side in (width, height):
                    low = draw(st.floats(0, side - 2, width=32))
                    corners.append((low, draw(st.floats(low + 1.5, side))))
                (x1, x2), (y1, y2) = corners
                crowd = len(things) > 0 and draw(st.booleans())
                things.append((draw(st.integers(0, len(classes) - 1)), (x1, y1, x2, y2), crowd))
            unique = {(label, box): (label, box, crowd) for label, box, crowd in things}
            parts.setdefault(name, {})[file] = (height, width), list(unique.values())
    return classes, ids, parts


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_from_any_layout_to_any_other(first, second):
    @given(sources())
    @settings(max_examples=12, deadline=None)
    def check(source):
        classes, ids, parts = source
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for part, files in parts.items():
                (root / "0" / part).mkdir(parents=True)
                for file, (size, _) in files.items():
                    Image.new("RGB", size[::-1], (90, 0, 0)).save(root / "0" / part / file)
                coco_folder(root / "0", files, classes, part, ids)
            for number, layout in enumerate((first, second)):
                old, new = root / str(number), root / str(number + 1)
                before = all_of(old)
                written = write(new, layout, before)
                after = all_of(new)
                assert set(after) == set(before) == set(parts)
                assert written.changes.keys() <= {"crowd regions left out, which YOLO does not have", UNNAMED}
                for part, data in after.items():
                    assert_same(before[part], data, layout)
                    assert (written.images[part], written.boxes[part]) == (len(data), data.num_boxes)

    check()


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", ["bccd", "coco128", "tiny_coco"])
def test_published_data_sets(real, tmp_path, name, layout):
    splits_of = {"bccd": ["val", "test"], "coco128": ["train", "val"], "tiny_coco": ["train2017", "val2017"]}
    before = {part: open_data(real(name), part) for part in splits_of[name]}
    some = np.arange(0, 50, 1 if name == "tiny_coco" else 2)
    told = []
    chosen = {part: (data, some) for part, data in before.items()}
    written = write(tmp_path / "copy", layout, chosen, lambda *count: told.append(count))
    assert told[-1] == (2 * len(some), 2 * len(some))
    if layout == "yolo":
        before = {part.removesuffix("2017"): data for part, data in before.items()}
    assert splits(tmp_path / "copy") == written.images == dict.fromkeys(before, len(some))
    for part, data in before.items():
        assert_same(data, open_data(tmp_path / "copy", part), layout, some)
    crowds = sum(int(data.crowd(i).sum()) for data in before.values() for i in some)
    left_out = written.changes.get("crowd regions left out, which YOLO does not have", [])
    assert len(left_out) == (crowds if layout == "yolo" else 0)
    assert crowds == (10 if name == "tiny_coco" else 0)


def test_trainval_shares_its_images(real, tmp_path):
    train, val, both = (open_data(real("bccd"), name) for name in ("train", "val", "trainval"))
    some = {train.path(i) for i in range(20)} | {val.path(i) for i in range(10)}
    places = np.array([i for i in range(len(both)) if both.path(i) in some])
    before = {"train": (train, np.arange(20)), "val": (val, np.arange(10)), "trainval": (both, places)}
    written = write(tmp_path / "voc", "voc", before)
    assert len(list((tmp_path / "voc/JPEGImages").iterdir())) == 30
    assert (written.images, written.changes) == ({"train": 20, "val": 10, "trainval": 30}, {})
    assert_same(both, open_data(tmp_path / "voc", "trainval"), "voc", places)
    written = write(tmp_path / "yolo", "yolo", before)
    assert written.lines() == ["splits left out that YOLO does not have, their images being in others (1): trainval"]
    assert written.images == {"train": 20, "val": 10}
    del before["train"]
    with pytest.raises(RequestError, match=r"^YOLO has no split trainval: it has train, val and test$"):
        write(tmp_path / "other", "yolo", before)


def test_one_list_parted(real, tmp_path):
    data = open_data(real("tiny_coco"), "train")
    train, val = split(data, 0.8)
    written = write(tmp_path, "coco", {"train": (data, train), "val": (data, val)})
    assert written.images == {"train": 40, "val": 10}
    assert written.boxes == {
        name: sum(len(data.boxes(i)) for i in part) for name, part in zip(("train", "val"), (train, val))
    }
    whole = images_of(data)
    for name, part in (("train", train), ("val", val)):
        copy = open_data(tmp_path, name, strict=True)
        assert (copy.class_names, copy.category_ids) == (data.class_names, data.category_ids)
        assert images_of(copy) == {data.path(i).name: whole[data.path(i).name] for i in part}


@pytest.fixture
def source(tmp_path, paint):
    """One image of 60 x 40 pixels with a box, a crowd region and nothing to round."""
    paint(tmp_path / "data/train/a.png")
    things = [(1, (10, 4, 40, 24), False), (0, (0.25, 0, 60, 40), True)]
    return coco_folder(tmp_path / "data", {"a.png": ((40, 60), things)}, ["moon", "star"], ids=[3, 8])


def test_what_coco_says(source, tmp_path):
    write(tmp_path / "copy", "coco", all_of(source))
    assert json.loads((tmp_path / "copy/annotations/instances_train.json").read_text()) == {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 8, "bbox": [10, 4, 30, 20], "area": 600, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0.25, 0, 59.75, 40], "area": 2390, "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "moon"}, {"id": 8, "name": "star"}],
    }
    assert (tmp_path / "copy/train/a.png").read_bytes() == (source / "train/a.png").read_bytes()


def test_what_yolo_says(source, tmp_path):
    written = write(tmp_path / "copy", "yolo", all_of(source))
    yaml = "train: images/train\nnc: 2\nnames:\n- moon\n- star\n"
    assert (tmp_path / "copy/data.yaml").read_text() == yaml
    assert (tmp_path / "copy/labels/train/a.txt").read_text() == "1 0.4166666667 0.35 0.5 0.5\n"
    assert written.lines() == ["crowd regions left out, which YOLO does not have (1): train/a.png: moon 0.25 0 60 40"]


def test_what_voc_says(source, tmp_path):
    write(tmp_path / "copy", "voc", all_of(source))
    assert (tmp_path / "copy/ImageSets/Main/train.txt").read_text() == "a\n"
    text = "".join(line.strip() for line in (tmp_path / "copy/Annotations/a.xml").read_text().splitlines())
    assert text == (
        "<annotation><folder>JPEGImages</folder><filename>a.png</filename>"
        "<size><width>60</width><height>40</height><depth>3</depth></size><segmented>0</segmented>"
        "<object><name>star</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        "<bndbox><xmin>11</xmin><ymin>5</ymin><xmax>40</xmax><ymax>24</ymax></bndbox></object>"
        "<object><name>moon</name><pose>Unspecified</pose><truncated>0</truncated><difficult>1</difficult>"
        "<bndbox><xmin>1.25</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object></annotation>"
    )


def test_what_a_layout_cannot_hold_is_reported(tmp_path, paint):
    paint(tmp_path / "data/train/a.png")
    boxes = [(0, (3, 3, 20, 20), False), (0, (3, 3, 20, 20), False), (0, (5, 5, 5.5, 9), False)]
    root = coco_folder(tmp_path / "data", {"a.png": ((40, 60), boxes)}, ["cell", "star"])
    content = json.loads((root / "annotations/instances_train.json").read_text())
    content["annotations"][0]["area"] = 100
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    before = all_of(root)
    assert write(tmp_path / "coco", "coco", before).lines() == []
    assert open_data(tmp_path / "coco", "train").areas(0).tolist() == [100, 289, 2]
    assert write(tmp_path / "yolo", "yolo", before).lines() == [
        "boxes left out that are there twice (1): train/a.png: cell 3 3 20 20",
        "images whose boxes have areas of outlines, which YOLO does not have (1): train/a.png",
    ]
    assert open_data(tmp_path / "yolo", "train", strict=True).num_boxes == 2
    written = write(tmp_path / "voc", "voc", before)
    assert written.lines() == [
        "classes without a box, which Pascal VOC does not name (1): star",
        "boxes of one pixel or less left out, which Pascal VOC does not tell from points (1): "
        "train/a.png: cell 5 5 5.5 9",
        "images whose boxes have areas of outlines, which Pascal VOC does not have (1): train/a.png",
    ]
    assert open_data(tmp_path / "voc", "train", strict=True).num_boxes == written.boxes["train"] == 2


@pytest.mark.parametrize("layout", FORMATS)
def test_images_that_exif_turns(tmp_path, layout):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    exif, xmp = Image.Exif(), b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    exif[0x010F], exif[0x0112] = "a camera", 6
    (tmp_path / "data/train").mkdir(parents=True)
    files = {}
    for name in ("stored.jpg", "stored.png", "turned.jpg", "turned.png", "xmp.jpg"):
        options = {"xmp": xmp} if name == "xmp.jpg" else {"exif": exif}
        Image.fromarray(pixels).save(tmp_path / "data/train" / name, **options)
        size = (60, 40) if name.startswith("turned") else (40, 60)
        files[name] = size, [(0, (2, 3, 30.5, 36), False)]
    root = coco_folder(tmp_path / "data", files)
    before = open_data(root, "train")
    assert before.report.count == 3  # those that are read as they are stored
    written = write(tmp_path / "copy", layout, {"train": before})
    assert written.lines()[-2:] == [
        "images copied without their EXIF orientation (3): train/stored.jpg; train/stored.png; train/xmp.jpg",
        "images written as PNG (2): train/stored.png; train/xmp.jpg",
    ]
    after = open_data(tmp_path / "copy", "train", strict=True)
    places = {after.path(i).stem + after.path(i).suffix: i for i in range(len(after))}
    copied = {"stored.jpg", "turned.jpg", "turned.png"} if layout == "coco" else set()
    for i in range(len(before)):
        found = [place for name, place in places.items() if after.size(place) == before.size(i)]
        same = [place for place in found if (after.read(place) == before.read(i)).all()]
        assert same, before.path(i)
        assert all(np.abs(after.boxes(place) - before.boxes(i)).max() < 1e-3 for place in same)
    assert copied <= set(places)
    if layout != "coco":
        return
    stored, new = (folder.joinpath("train/stored.jpg").read_bytes() for folder in (root, tmp_path / "copy"))
    assert new.endswith(stored[stored.index(b"\xff\xdb") :]), "from the quantisation tables on nothing differs"
    with Image.open(io.BytesIO(new)) as image:
        assert dict(image.getexif()) == {0x010F: "a camera", 0x0112: 1}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "I;16"])
def test_images_that_are_not_rgb_are_copied_as_they_are(tmp_path, layout, mode):
    (tmp_path / "data/train").mkdir(parents=True)
    Image.new(mode, (60, 40)).save(tmp_path / "data/train/a.png")
    before = open_data(coco_folder(tmp_path / "data", {"a.png": ((40, 60), [(0, (2, 3, 30.5, 36), False)])}), "train")
    assert write(tmp_path / "copy", layout, {"train": before}).lines() == []
    assert_same(before, open_data(tmp_path / "copy", "train", strict=True), layout)


def renamed(root, copy, layout, files):
    box = [(0, (2, 3, 30, 36), False)]
    before = open_data(coco_folder(root, dict.fromkeys(files, ((40, 60), box))), "train")
    written = write(copy, layout, {"train": before})
    after = open_data(copy, "train", strict=True)
    assert sorted(after.path(i).read_bytes() for i in range(len(after))) == sorted(
        before.path(i).read_bytes() for i in range(len(before))
    )
    return sorted(after.path(i).name for i in range(len(after))), written.lines(9)


@pytest.mark.parametrize("layout", FORMATS)
def test_names_that_occur_twice(tmp_path, paint, layout):
    files = ["a/1.jpg", "b/1.jpg", "c/b/1.jpg", "c/b_1.jpg", "c/B_1_2.jpg"]
    for number, name in enumerate(files):
        paint(tmp_path / "data/train" / name, quality=50 + number)
    assert renamed(tmp_path / "data", tmp_path / "copy", layout, files) == (
        ["1.jpg", "B_1_2.jpg", "b_1.jpg", "b_1_3.jpg", "b_1_4.jpg"],
        ["images renamed (2): train/b/1.jpg -> b_1_3.jpg; train/c/b/1.jpg -> b_1_4.jpg"],
    )


def test_names_that_differ_in_their_suffix(tmp_path, paint):
    for name in ("a.jpg", "a.png"):
        paint(tmp_path / "data/train" / name)
    assert renamed(tmp_path / "data", tmp_path / "coco", "coco", ["a.jpg", "a.png"]) == (["a.jpg", "a.png"], [])
    for layout in ("yolo", "voc"):
        assert renamed(tmp_path / "data", tmp_path / layout, layout, ["a.jpg", "a.png"]) == (
            ["a.jpg", "train_a.png"],
            ["images renamed (1): train/a.png -> train_a.png"],
        )


def test_names_that_a_layout_would_not_find(tmp_path, paint):
    files = ["a b.jpg", ".c.jpg", "d.jpg.png", "e", "f.v2", "\udcff.jpg"]
    for name in files[:4]:
        paint(tmp_path / "data/train" / name, format="JPEG")
    paint(tmp_path / "data/train/f.v2", format="PNG")
    paint(tmp_path / "data/train" / files[5])
    assert renamed(tmp_path / "data", tmp_path / "coco", "coco", files) == (sorted(files), [])
    assert renamed(tmp_path / "data", tmp_path / "yolo", "yolo", files) == (
        sorted(["a b.jpg", "_c.jpg", "d.jpg.png", "e.jpeg", "f.v2.png", "\udcff.jpg"]),
        ["images renamed (3): train/.c.jpg -> _c.jpg; train/e -> e.jpeg; train/f.v2 -> f.v2.png"],
    )
    assert renamed(tmp_path / "data", tmp_path / "voc", "voc", files)[0] == sorted(
        ["a_b.jpg", "_c.jpg", "d_jpg.png", "e.jpeg", "f.v2.png", "_.jpg"]
    )


def test_splits_with_different_classes(tmp_path, paint):
    for name, classes, ids in (("train", ["cell", "star"], [1, 2]), ("val", ["moon", "star"], [1, 2])):
        paint(tmp_path / f"data/{name}/{name}.png")
        box = [(0, (2, 3, 30, 36), False), (1, (2, 3, 20, 36), False)]
        coco_folder(tmp_path / "data", {f"{name}.png": ((40, 60), box)}, classes, name, ids)
    before = all_of(tmp_path / "data")
    for layout in FORMATS:
        written = write(tmp_path / layout, layout, before)
        assert written.lines() == ["class ids changed that splits have for different classes (1): moon: 1 -> 3"]
        after = open_data(tmp_path / layout, "val", strict=True)
        assert [after.class_names[label] for label in after.labels(0)] == ["moon", "star"]
        assert after.class_names == (("cell", "moon", "star") if layout == "voc" else ("cell", "star", "moon"))


def test_a_image_with_other_boxes_in_another_split_is_another(tmp_path, paint):
    paint(tmp_path / "data/images/a.png")
    for name, x in (("train", 20), ("val", 30)):
        coco_folder(tmp_path / "data", {"a.png": ((40, 60), [(0, (2, 3, x, 36), False)])}, name=name)
    write(tmp_path / "copy", "voc", all_of(tmp_path / "data"))
    boxes = [open_data(tmp_path / "copy", name, strict=True).boxes(0).tolist() for name in ("train", "val")]
    assert boxes == [[[2, 3, 20, 36]], [[2, 3, 30, 36]]]


def test_requests_that_are_refused(source, tmp_path, paint):
    data = open_data(source, "train")

    def refused(layout, parts, folder=tmp_path / "copy"):
        with pytest.raises(RequestError) as error:
            write(folder, layout, parts)
        assert not (tmp_path / "copy").exists()
        return str(error.value)

    file = source / "train/a.png"
    for folder in (source, file):
        assert refused("coco", {"train": data}, folder).startswith(f"{folder} exists and is not empty")
    assert "csv: choose one of coco, yolo, voc" in refused("csv", {"train": data})
    assert f"the split val of {source} would have no images" in refused("coco", {"val": (data, np.zeros(0, np.int64))})
    assert "'../val'" in refused("coco", {"../val": data})
    assert "'train_coco'" in refused("coco", {"train_coco": data})
    assert "splits train2014, train2017 would be YOLO's train" in refused(
        "yolo", {"train2014": data, "train2017": data}
    )
    assert "no split cells: it has train, val and test" in refused("yolo", {"cells": data})
    empty = open_data(coco_folder(source, {"a.png": ((40, 60), [])}), "train")
    assert "there is no box at all" in refused("voc", {"train": empty})
    odd = open_data(coco_folder(source, {"a.png": ((40, 60), [(0, (1, 1, 9, 9), False)])}, ["a\0b"]), "train")
    assert "the class name 'a\\x00b'" in refused("voc", {"train": odd})
    write(tmp_path / "yolo", "yolo", {"train": odd})
    assert open_data(tmp_path / "yolo", "train").class_names == ("a\0b",)


@pytest.mark.parametrize("layout", FORMATS)
def test_an_interrupted_copy_is_no_data_set(real, tmp_path, layout):
    def interrupt(done, total):
        if done == total:
            raise KeyboardInterrupt

    data = open_data(real("tiny_coco"), "val")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "copy", layout, {"val": data}, interrupt)
    assert sum(path.suffix == ".jpg" for path in (tmp_path / "copy").rglob("*")) == 50
    with pytest.raises(RequestError):
        find_layout(tmp_path / "copy")


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("limit", [1000, 20_000])
def test_a_full_disk_is_told_in_one_line(tmp_path, paint, layout, limit):
    paint(tmp_path / "data/train/a.png")  # of 7 kB
    boxes = [(0, (i / 100, 3, 30, 36), False) for i in range(1000)]
    data = open_data(coco_folder(tmp_path / "data", {"a.png": ((40, 60), boxes)}), "train")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # no file may become larger
    try:
        with pytest.raises(WorkError, match=r"^cannot (copy|write) \S+( to \S+)?: file too large$"):
            write(tmp_path / "copy", layout, {"train": data})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "copy").rglob("*.part*"))
    with pytest.raises(RequestError):
        find_layout(tmp_path / "copy")


def test_a_image_that_is_gone(source, tmp_path):
    data = open_data(source, "train")
    (source / "train/a.png").unlink()
    with pytest.raises(WorkError) as error:
        write(tmp_path / "copy", "coco", {"train": data})
    assert str(error.value) == (
        f"cannot copy {source}/train/a.png to {tmp_path}/copy/train/a.png: no such file or directory"
    )
