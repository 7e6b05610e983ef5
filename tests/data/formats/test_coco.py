"""COCO and Roboflow's COCO: layouts, labels by name, and every fault named by annotation id."""

import json
import unicodedata

import numpy as np
import pytest

from retinanet.data import open_data, splits
from retinanet.data.formats.coco import split_name
from retinanet.data.formats.coco_json import _packed

FILE = "annotations/instances_val.json"


@pytest.fixture
def make(tmp_path, paint):
    """Write a split whose images 1 and 2 are there; what is given replaces or adds to it."""

    def write(annotations, images=None, categories=None, file=FILE, folder="val", painted=("a.png", "b.png")):
        for name in painted:
            paint(tmp_path / folder / name)
        if images is None:
            images = [{"id": i, "file_name": n, "height": 40, "width": 60} for i, n in enumerate(("a.png", "b.png"), 1)]
        categories = categories or [{"id": 7, "name": "cell"}, {"id": 3, "name": "star"}]
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / file).write_text(json.dumps(content))
        return tmp_path

    return write


def box(ident, bbox=(10, 10, 20, 10), image=1, category=3, **more):
    return {"id": ident, "image_id": image, "category_id": category, "bbox": list(bbox), **more}


def test_boxes_labels_crowds_and_areas(make, opened):
    annotations = [box(5), box(6, image=2, category=7, iscrowd=1, area=33.5), box(9, (0, 0, 60, 40), category=7)]
    data = opened(make(annotations), "val")
    assert repr(data) == f"<COCO {data.root} val: 2 images, 3 boxes>"
    assert data.class_names == ("star", "cell")  # in the order of the ids, wherever they start
    assert data.category_ids == (3, 7)
    assert data.boxes(0).tolist() == [[10, 10, 30, 20], [0, 0, 60, 40]]
    assert data.boxes(0).dtype == np.float32
    assert data.labels(0).tolist() == [0, 1]
    assert data.crowd(1).tolist() == [True]
    assert data.areas(0).tolist() == [200, 2400]
    assert data.areas(1).tolist() == [33.5]
    assert (data.image_id(0), data.image_id(1)) == (1, 2)
    assert (data.path(1).name, data.size(1)) == ("b.png", (40, 60))
    assert data.read(1).shape == (3, 40, 60)
    assert data.counts() == [1, 1]
    assert data.label_map_lines() == ["id 3 -> label 0: star (1 boxes)", "id 7 -> label 1: cell (1 boxes)"]


def test_a_crowd_flag_may_be_text_and_no_other_number(make):
    annotations = [box(5, iscrowd="1"), box(6, image=2, iscrowd=True), box(7, image=2, iscrowd=2)]
    data = open_data(make(annotations), "val")
    assert (data.crowd(0).tolist(), data.crowd(1).tolist()) == ([True], [True])
    assert data.report.count == 1


def test_a_image_without_annotations_is_background(make, opened):
    data = opened(make([box(1)]), "val")
    assert data.boxes(1).shape == (0, 4)


FAULTS = {
    "not finite": (
        [box(4, (10, float("nan"), 5, 5))],
        "box with a coordinate that is not a finite number (1 left out): "
        f"{FILE} annotation 4: 10 nan 15 nan in 60 x 40 pixels",
    ),
    "infinite": (
        [box(4, (10, 10, float("inf"), 5))],
        "box with a coordinate that is not a finite number (1 left out): "
        f"{FILE} annotation 4: 10 10 inf 15 in 60 x 40 pixels",
    ),
    "no area": (
        [box(4, (10, 10, 0, 5))],
        f"box of no area (1 left out): {FILE} annotation 4: 10 10 10 15 in 60 x 40 pixels",
    ),
    "negative": (
        [box(4, (10, 10, 5, -5))],
        f"box of no area (1 left out): {FILE} annotation 4: 10 10 15 5 in 60 x 40 pixels",
    ),
    "thinner than float32 tells": (
        [box(4, (59, 10, 1e-7, 5))],
        f"box of no area (1 left out): {FILE} annotation 4: 59 10 59.0000001 15 in 60 x 40 pixels",
    ),
    "outside": (
        [box(4, (60, 10, 5, 5))],
        f"box outside the image (1 left out): {FILE} annotation 4: 60 10 65 15 in 60 x 40 pixels",
    ),
    "unknown class": ([box(4, category=1)], f"unknown class (1 left out): {FILE} annotation 4: category 1"),
    "unknown image": (
        [box(4, image=8)],
        f"annotation of an unknown image (1 left out): {FILE} annotation 4: image 8",
    ),
    "written twice": ([box(1)], f"annotation written twice (1 left out): {FILE} annotation 1"),
    "no bbox": (
        [{"id": 4, "image_id": 1, "category_id": 3}],
        "malformed annotation (1 left out): "
        f"{FILE} annotation 4: needs image_id, category_id and bbox [x, y, width, height]",
    ),
    "three numbers": (
        [box(4, (1, 2, 3))],
        "malformed annotation (1 left out): "
        f"{FILE} annotation 4: needs image_id, category_id and bbox [x, y, width, height]",
    ),
    "no object": (
        ["box"],
        "malformed annotation (1 left out): "
        f"{FILE} annotations[1]: needs image_id, category_id and bbox [x, y, width, height]",
    ),
    "many": (
        [box(i, (10, 10, 0, 5)) for i in range(2, 8)],
        f"box of no area (6 left out): {FILE} annotation 2: 10 10 10 15 in 60 x 40 pixels; "
        f"{FILE} annotation 3: 10 10 10 15 in 60 x 40 pixels; {FILE} annotation 4: 10 10 10 15 in 60 x 40 pixels; "
        "and 3 more",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_annotations_left_out(make, opened, kind):
    annotations, line = FAULTS[kind]
    data = opened(make([box(1), *annotations]), "val", [line])
    assert data.boxes(0).tolist() == [[10, 10, 30, 20]]
    assert data.num_boxes == 1


def test_a_box_partly_outside_is_clipped(make, opened):
    line = f"box partly outside the image, clipped (1 repaired): {FILE} annotation 4: -5 10 15 41 in 60 x 40 pixels"
    data = opened(make([box(4, (-5, 10, 20, 31))]), "val", [line])
    assert data.boxes(0).tolist() == [[0, 10, 15, 40]]
    assert data.areas(0).tolist() == [450]


def test_a_box_outside_by_rounding_is_no_fault(make, opened):
    note = "1 boxes up to 0.02 pixels outside the image, by rounding, clipped"
    data = opened(make([box(4, (50, 10, 10.01, 5))]), "val", notes=[note])
    assert data.boxes(0).tolist() == [[50, 10, 60, 15]]


def test_a_repeated_annotation_id_with_another_box_is_kept(make, opened):
    line = f"repeated annotation id, given a new one (1 repaired): {FILE} annotation 1"
    assert opened(make([box(1), box(1, (0, 0, 5, 5))]), "val", [line]).num_boxes == 2


def entry(ident, name, height=40, width=60):
    return {"id": ident, "file_name": name, "height": height, "width": width}


IMAGES = {
    "repeated image id": (
        entry(1, "b.png"),
        f"repeated image id (1 left out): {FILE} image 1: b.png",
    ),
    "no file name": (
        {"id": 2},
        f"malformed image entry (1 left out): {FILE} images[1]: needs id and file_name",
    ),
    "missing": (entry(2, "c.png"), "missing image (1 left out): val/c.png"),
    "unreadable": (
        entry(2, "text.jpg"),
        "unreadable image (1 left out): val/text.jpg: it is not an image that Pillow knows",
    ),
    "another size": (
        entry(2, "b.png", 41, 60),
        "size that disagrees with the file (1 left out): val/b.png: annotated 60 x 41, the file is 60 x 40",
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_left_out(make, opened, tmp_path, kind):
    image, line = IMAGES[kind]
    root = make([box(1)], [entry(1, "a.png"), image])
    (tmp_path / "val/text.jpg").write_text("a text")
    data = opened(root, "val", [line])
    assert [data.path(i).name for i in range(len(data))] == ["a.png"]


def test_a_truncated_image_is_found_when_opened(make, opened, tmp_path):
    root = make([box(1), box(2, image=2)])
    content = (tmp_path / "val/b.png").read_bytes()
    (tmp_path / "val/b.png").write_bytes(content[:2000])
    data = open_data(root, "val")
    (line,) = data.report.lines()
    assert line.startswith("unreadable image (1 left out): val/b.png: it is damaged or cut short (")
    assert (len(data), data.num_boxes) == (1, 1)


def test_sizes_from_before_exif_rotation(make, paint, opened, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    paint(tmp_path / "val/turned.png", exif=exif)
    for size, faults in (((60, 40), []), ((40, 60), ["annotated 60 x 40, the file is 40 x 60"])):
        lines = [f"size before EXIF rotation, read unrotated (1 repaired): val/turned.png: {text}" for text in faults]
        data = opened(make([box(1)], [entry(1, "turned.png", *size)]), "val", lines)
        assert data.size(0) == size
        assert data.read(0).shape[1:] == size


def test_no_usable_image_is_refused(make, refused):
    root = make([box(1)], [entry(1, "a.png", 9, 9)])
    assert refused(root, "val") == (
        f"{root}, split val, has no usable image of 1: "
        "size that disagrees with the file (1 left out): val/a.png: annotated 9 x 9, the file is 60 x 40"
    )
    assert refused(make([], []), "val") == f"{root}, split val, lists no images"


def test_images_that_are_nowhere_are_refused(make, refused):
    root = make([box(1)], [entry(1, "x.png")])
    assert refused(root, "val") == (
        f"none of the images of {root}/{FILE} was found, such as x.png; "
        "looked in val, images/val, ., images, data, JPEGImages, annotations"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n  1,,\n', " line 2 column 5 is not valid JSON: Expecting value"),
        ('{"images": [1]}', " is not a COCO detection file: it has no list 'annotations'"),
        ('{"images": {"1": 1}}', " is not a COCO detection file: it has no list 'images'"),
    ],
)
def test_files_that_are_no_coco(tmp_path, refused, content, message):
    (tmp_path / "annotations").mkdir()
    (tmp_path / FILE).write_text(content)
    assert refused(tmp_path, "val") == f"{tmp_path}/{FILE}{message}"


def test_bytes_that_are_no_text(tmp_path, refused):
    (tmp_path / "val.json").write_bytes(b'{"images": "\xff"}')
    assert refused(tmp_path / "val.json", "val").startswith(f"cannot read {tmp_path}/val.json: not UTF-8 text")


CATEGORIES = {
    "no name": ([{"id": 1}], " has a category without id and name: {'id': 1}"),
    "text id": ([{"id": "one", "name": "a"}], " has the category 'a' with the id 'one'; ids are whole numbers"),
    "two names": (
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
        " uses the category id 1 for both 'a' and 'b'",
    ),
}


@pytest.mark.parametrize("kind", CATEGORIES)
def test_categories_that_cannot_be_used(make, refused, kind):
    categories, message = CATEGORIES[kind]
    root = make([], categories=categories)
    assert refused(root, "val") == f"{root}/{FILE}{message}"


def test_two_ids_of_one_class_are_one_label(make, opened):
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 4, "name": "a"}]
    note = "1 category ids have the name of another and are the same class: 4 is 1 ('a')"
    data = opened(make([box(1, category=4), box(2, category=1)], categories=categories), "val", notes=[note])
    assert data.class_names == ("a", "b")
    assert data.labels(0).tolist() == [0, 0]


def test_roboflow(make, opened):
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "red", "supercategory": "cells"},
        {"id": 2, "name": "white", "supercategory": "cells"},
    ]
    images = [entry(0, "a.png"), entry(1, "b.png")]
    for folder in ("train", "valid", "test"):
        file = f"{folder}/_annotations.coco.json"
        root = make([box(0, image=0, category=2), box(1, image=1, category=1)], images, categories, file, folder)
    assert splits(root) == {"test": 2, "train": 2, "valid": 2}
    for name in ("val", "valid", "validation"):
        data = opened(root, name)
        assert data.split == "valid"
        assert data.class_names == ("red", "white")  # the parent, which no box has, is no class
        assert [data.labels(i).tolist() for i in range(2)] == [[1], [0]]
        assert data.image_id(0) == 0
    (file_only,) = [open_data(root / "test/_annotations.coco.json", "test")]
    assert len(file_only) == 2


def test_roboflow_parent_with_boxes_is_a_class(make, opened):
    categories = [{"id": 0, "name": "cells"}, {"id": 1, "name": "red", "supercategory": "cells"}]
    data = opened(make([box(1, category=0), box(2, category=1)], categories=categories), "val")
    assert data.class_names == ("cells", "red")


def test_one_json_without_a_split_in_its_name(make, opened):
    root = make([box(1)], file="boxes.json", folder=".")
    note = f"{root}/boxes.json is one list of images without the name of a split: it is used as train"
    assert len(opened(root / "boxes.json", "train", notes=[note])) == 2


def test_other_json_files_do_not_mislead(make, opened):
    root = make([box(1)], file="train.json", folder="images")
    (root / "config.json").write_text('{"lr": 0.1}')
    assert splits(root) == {"train": 2}
    opened(root, "train")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("instances_train2017.json", "train2017"),
        ("train.json", "train"),
        ("val_annotations.json", "val"),
        ("annotations.json", "annotations"),
        ("test-coco.json", "test"),
    ],
)
def test_split_names(tmp_path, file, name):
    assert split_name(tmp_path / file) == name


def test_two_files_for_one_split_are_refused(make, refused):
    root = make([box(1)])
    (root / "annotations" / "val.json").write_text((root / FILE).read_text())
    (root / FILE).rename(root / "annotations" / "annotations_val.json")
    assert refused(root, "val") == (
        f"{root} has two files for the split val, annotations/annotations_val.json and annotations/val.json: leave one "
        "of them, or name the file instead of the folder"
    )


@pytest.mark.parametrize("name", ["latest.json", "evaluation.json"])
def test_a_word_that_holds_the_name_of_a_split_names_none(make, opened, name):
    root = make([box(1)], file=name, folder=".")
    note = f"{root / name} is one list of images without the name of a split: it is used as train"
    assert len(opened(root / name, "train", notes=[note], where=str(root / name))) == 2


def test_numbers_of_every_kind_read_alike(make, opened):
    """Plain annotations are packed while the file is read; what is odd but readable goes the long way to the same."""
    plain = [box(5, (1, 2, 3.5, 4), area=9, iscrowd=0), box(6, image=2, category=7, iscrowd=1)]
    odd = [
        box("5", ("1", 2, "3.5", 4), area="9"),
        box(6.5, (10, 10, 20, 10), image=2, category=7, iscrowd=1, area=None),
    ]
    assert [type(_packed(a)) for a in (*plain, *odd)] == [bytes, bytes, dict, dict]
    first, second = (opened(make(annotations), "val") for annotations in (plain, odd))
    for name in ("sizes", "offsets", "boxes", "labels", "crowds"):
        np.testing.assert_array_equal(getattr(first.annotations, name), getattr(second.annotations, name))
    np.testing.assert_array_equal(first.areas(0), second.areas(0))


def test_a_truth_value_is_no_coordinate(make, opened):
    text = (
        "box with a coordinate that is not a finite number (1 left out): annotations/instances_val.json annotation 6: "
    )
    opened(make([box(5), box(6, (1, 2, True, 4))]), "val", [text + "1 2 nan 6 in 60 x 40 pixels"])


def test_ids_of_more_than_64_bits(make, opened):
    huge = 0x8F14E45FCEEA167A5A36DEDD4BEA2543
    images = [{"id": huge + i, "file_name": name} for i, name in enumerate(("a.png", "b.png"))]
    annotations = [box(huge, image=huge), box(huge + 1, (100, 100, 5, 5), image=huge + 1)]
    where = "annotations/instances_val.json annotations[1]: 100 100 105 105 in 60 x 40 pixels"
    data = opened(make(annotations, images), "val", [f"box outside the image (1 left out): {where}"])
    assert data.num_boxes == 1


# ------------------------------------------------------------------------------------------------ as other tools write


@pytest.mark.parametrize("image", [1, "1", 1.0])
@pytest.mark.parametrize("reference", [1, "1", 1.0, " 1", "1.0", "01"])
@pytest.mark.parametrize("category", [3, "3", 3.0])
def test_ids_match_in_whatever_type_they_are_written(make, image, reference, category):
    root = make([box(5, image=reference, category=category)], [{"id": image, "file_name": "a.png"}])
    data = open_data(root, "val")
    assert data.boxes(0).tolist() == [[10, 10, 30, 20]]
    assert data.labels(0).tolist() == [0]
    assert data.report.facts.used == {3: 1}
    numbers = type(reference) is int and image != "1"
    plain = type(category) is int and (numbers or image == reference == "1")
    assert plain == (not data.report.faults)
    assert data.report.count == (0 if plain else 1)


def test_ids_of_categories_may_be_written_as_text(make):
    data = open_data(
        make([box(5, category="3"), box(6, category=7)], None, [{"id": "3", "name": "a"}, {"id": 7.0, "name": "b"}]),
        "val",
    )
    assert data.labels(0).tolist() == [0, 1]
    assert data.category_ids == (3, 7)
    assert data.report.faults["id written as text or fraction, matched"].count == 3


def test_ids_that_are_no_answer_are_shown_with_their_quotes(make, opened):
    images = [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}]
    lines = [
        f'annotation of an unknown image (2 left out): {FILE} annotation 7: image "x"; {FILE} annotation 8: image True',
        f'unknown class (1 left out): {FILE} annotation 9: category "1"',
    ]
    annotations = [box(5, image="1"), box(6), box(7, image="x"), box(8, image=True), box(9, category="1")]
    data = opened(make(annotations, images), "val", lines)
    assert [len(data.boxes(i)) for i in range(2)] == [1, 1]
    assert open_data(make([box(5, image="01"), box(6)], images), "val").num_boxes == 1  # of two images either


@pytest.mark.parametrize(
    ("name", "read"), [(5, "5"), ("1.10", "1.10"), ("null", "null"), ("yes", "yes"), (" a ", "a"), ("🐢", "🐢")]
)
def test_names_of_categories(make, name, read):
    assert open_data(make([box(1)], None, [{"id": 3, "name": name}]), "val").class_names == (read,)


@pytest.mark.parametrize("name", [None, True, 1.1, ["a"], {"a": 1}])
def test_names_of_categories_that_are_none(make, refused, name):
    message = refused(make([box(1)], None, [{"id": 3, "name": name}]), "val")
    assert f"{FILE}: the category with the id 3 has the name {json.dumps(name)}" in message


SQUARE = [10, 20, 30, 20, 30, 30, 10, 30]


@pytest.mark.parametrize(
    "bbox", [{"bbox": None}, {"bbox": []}, {}, {"bbox": [None] * 4}, {"bbox": [0] * 4}, {"bbox": [5, 5, 0.0, 0]}]
)
@pytest.mark.parametrize(
    ("outline", "corners"), [([SQUARE], [10, 20, 30, 30]), ([SQUARE, [2, 3, 4, 3, 4, "35.5"]], [2, 3, 30, 35.5])]
)
def test_a_box_is_taken_from_the_outline_where_it_is_missing(make, bbox, outline, corners):
    annotation = {"id": 4, "image_id": 1, "category_id": 3, "segmentation": outline, **bbox}
    data = open_data(make([annotation]), "val")
    assert data.boxes(0).tolist() == [corners]
    assert data.report.lines() == [f"no bbox, taken from the segmentation (1 repaired): {FILE} annotation 4"]


def test_a_flat_outline_is_a_box_of_no_area_and_no_more(make):
    annotations = [box(1), {"id": 4, "image_id": 1, "category_id": 3, "segmentation": [[1, 5, 9, 5, 4, 5]]}]
    annotations.append(box(5, (0, 0, 0, 0)))
    data = open_data(make(annotations), "val")
    assert data.num_boxes == 1
    assert {fault.kind: fault.count for fault in data.report.faults.values()} == {"box of no area": 2}


@pytest.mark.parametrize("name", ["", "  "])
def test_a_category_with_an_empty_name(make, refused, name):
    assert "the category with the id 3 has an empty name" in refused(
        make([box(1)], None, [{"id": 3, "name": name}]), "val"
    )


@pytest.mark.parametrize(
    "outline",
    [
        None,
        [],
        [[]],
        [[1, 2, 3, 4]],
        [SQUARE[:-1]],
        {"counts": "x", "size": [1, 1]},
        [[1, 2, 3, "x", 5, 6]],
        "abc",
        [5],
    ],
)
def test_no_box_and_no_outline_is_named(make, outline):
    annotation = {"id": 4, "image_id": 1, "category_id": 3, "segmentation": outline, "bbox": None}
    data = open_data(make([box(1), annotation, box(5) | {"bbox": "1234"}]), "val")
    assert data.num_boxes == 1
    assert data.report.faults["malformed annotation"].count == 2


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sub\\a.png", "val/sub/a.png"),
        ("sub/my%20pic.png", "val/sub/my pic.png"),
        ("a.PNG", "val/a.png"),
        ("a.png ", "val/a.png"),
        ("my+pic.png", "val/my pic.png"),
        ("https://host/x/a.png?size=1#2", "val/a.png"),
        ("A.png", "val/a.png"),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "val/é.png")),
        ("C:\\upload\\1\\a.png", "val/a.png"),
        ("../../label-studio/data/upload/1/a.png", "images/a.png"),
        ("/data/images/a.png", "images/a.png"),
        ("images\\a.png", "images/a.png"),
    ],
)
def test_file_names_of_other_machines(make, tmp_path, name, file):
    root = make([box(1)], [entry(1, name)], folder="x")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x/a.png").rename(tmp_path / file)
    data = open_data(root, "val")
    assert (data.path(0), data.boxes(0).tolist()) == (tmp_path / file, [[10, 10, 30, 20]])
    (fault,) = data.report.faults.values()
    assert (fault.kind, fault.count, fault.action) == ("path written otherwise than on disk", 1, "repaired")


def test_a_file_is_not_taken_for_two_images(make, opened):
    root = make([box(1), box(2, image=2)], [entry(1, "a.png"), entry(2, "A.png"), entry(3, "B.png"), entry(4, "b.PNG")])
    lines = ["missing image (3 left out): val/A.png; val/B.png; val/b.PNG"]
    assert opened(root, "val", lines).num_boxes == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_by_its_byte_order_mark(make, encoding):
    root = make([box(1)])
    (root / FILE).write_bytes((root / FILE).read_text().encode(encoding))
    assert open_data(root, "val", strict=True).num_boxes == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [1,],}', " line 1 column 1"),
        ('{"images": [], "annotations": [],\n"categories": [{"id": 1 "name": "a"}]}', " line 2 column 25 is not valid"),
    ],
)
def test_json_that_is_none_is_named_with_line_and_column(tmp_path, refused, content, message):
    (tmp_path / "val.json").write_text(content)
    for place in (tmp_path, tmp_path / "val.json"):
        assert f"{tmp_path}/val.json{message}" in refused(place, "val")


def test_a_json_without_images_is_no_candidate_and_is_named(make, refused, tmp_path):
    root = make([box(1)])
    (root / "annotations/notes.json").write_text('{"categories": [], "info": {"images": []}}')
    assert splits(root) == {"val": 2}
    (root / FILE).unlink()
    assert "annotations/notes.json is not a COCO detection file: it has no list 'images'" in refused(root, "val")


@pytest.mark.parametrize("notes", [{"images": []}, {"images": [{"shot": 1}]}])
def test_notes_beside_the_data_are_no_candidate(make, notes, tmp_path):
    root = make([box(1)], file="val.json")
    (root / "notes.json").write_text(json.dumps(notes))
    assert splits(root) == {"val": 2}


def test_a_large_json_whose_images_come_last(make):
    root = make([box(i) for i in range(1, 3)])
    content = json.loads((root / FILE).read_text())
    filled = {"info": "x" * (1 << 20), "annotations": content["annotations"], "categories": content["categories"]}
    (root / FILE).write_text(json.dumps(filled | {"images": content["images"]}))
    assert splits(root) == {"val": 2}


def test_tiny_coco(real, opened):
    root = real("tiny_coco")
    assert splits(root) == {"train2017": 50, "val2017": 50}
    for split, boxes, background in (("train", 470, 1), ("val", 382, 2)):
        data = opened(root, split)
        assert (len(data), data.num_boxes, len(data.class_names)) == (50, boxes, 80)
        assert sum(data.crowd(i).sum() for i in range(50)) == 5
        assert sum(len(data.boxes(i)) == 0 for i in range(50)) == background
        assert data.category_ids[-1] == 90
        assert data.path(0).stem == f"{data.image_id(0):012}"
