"""The doctor: nothing on sound data, each fault found by its check, in all layouts that it can have."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import retinanet.data
from helpers.synthetic_data import CLASSES, HEIGHT, WIDTH, Sample, encoded, pixels, png, sound, write
from retinanet.analysis.doctor import examine, fault_checks, open_all
from retinanet.analysis.doctor.overlaps import overlapping
from retinanet.analysis.near_duplicates import inspect_images
from retinanet.common.errors import RequestError
from retinanet.config.model_settings import ModelSettings, PostprocessingSettings, PreprocessingSettings

LAYOUTS = ("yolo", "coco", "voc")


def diagnose(root, settings=None, pixels_too=False):
    opened, found = open_all(root)
    figures = {name: inspect_images(data) for name, data in opened.items()} if pixels_too else None
    return found + examine(opened, settings or ModelSettings(), figures)


def serious(findings):
    """(severity, code, split) of all errors and warnings."""
    return [(f.severity, f.code, f.split) for f in findings if f.severity != "note"]


def only(findings, code, split=None):
    """The one finding of this code (in this split)."""
    (finding,) = [f for f in findings if f.code == code and split in (None, f.split)]
    assert "\n" not in finding.text + finding.remedy
    return finding


def boxes_of(splits):
    return [box for images in splits.values() for image in images for box in image.boxes]


# ------------------------------------------------------------------------------------------------------- sound data


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sound_data_has_no_errors_and_no_warnings(tmp_path, layout):
    findings = diagnose(write(tmp_path, layout, sound()), pixels_too=True)
    assert serious(findings) == []
    assert len(findings) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_examples_name_file_and_line(tmp_path, layout):
    splits = sound()
    add(splits, [0, 0, 1, WIDTH, HEIGHT], 4)
    finding = only(diagnose(write(tmp_path, layout, splits)), "boxes.whole-image")
    where = {
        "yolo": "labels/train/train3.txt line 4",
        "coco": "annotations/instances_train.json annotation 16",
        "voc": "Annotations/train3.xml line 5",
    }
    assert where[layout] in finding.examples
    assert (len(finding.examples), finding.count, finding.split) == (4, 4, "train")
    assert finding.text == "4 boxes cover more than 95 % of the image"


def test_without_references_examples_name_the_image(tmp_path):
    splits = sound()
    splits["train"][3].boxes[1][3] = splits["train"][3].boxes[1][1] + 1
    data = retinanet.data.open_data(write(tmp_path, "yolo", splits), "train")
    finding = only(examine({"train": data}, ModelSettings()), "boxes.thin")
    assert finding.text == "1 box (0.83 %) thinner than 2 pixels in the file"
    assert finding.examples == ("images/train/train3.png box 2",)


# ------------------------------------------------------------------------------------------------ classes and numbers


@pytest.mark.parametrize("layout", ["yolo", "coco"])
@pytest.mark.parametrize("step", [-1, 1])
def test_labels_off_by_one(tmp_path, layout, step):
    splits = sound()
    for box in boxes_of(splits):
        box[0] += step
    findings = diagnose(write(tmp_path, layout, splits))
    for split, n in (("train", 120), ("val", 60)):
        finding = only(findings, "labels.off-by-one", split)
        assert (finding.severity, finding.count) == ("error", n)
        assert f"one too {'high' if step > 0 else 'low'}" in finding.text
        assert f"{n // 3} boxes left out" in finding.text
        unknown = only(findings, "labels.unknown-class", split)
        assert (unknown.severity, unknown.count) == ("error", n // 3)


def test_unknown_numbers_alone_are_not_called_off_by_one(tmp_path):
    splits = sound()
    splits["train"][0].boxes[0][0] = 7
    findings = diagnose(write(tmp_path, "yolo", splits))
    assert serious(findings) == [("error", "labels.unknown-class", "train")]


def test_background_as_first_class(tmp_path):
    splits = sound()
    for box in boxes_of(splits):
        box[0] += 1
    findings = diagnose(write(tmp_path, "coco", splits, ("__background__", *CLASSES)))
    assert serious(findings) == [("warning", "classes.background", "")]


def test_first_class_never_occurs(tmp_path):
    splits = sound()
    for box in boxes_of(splits):
        box[0] += 1
    findings = diagnose(write(tmp_path, "yolo", splits, ("things", *CLASSES)))
    assert serious(findings) == [("warning", "labels.first-unused", "")]


def test_the_heading_of_roboflows_categories_is_a_note(tmp_path):
    root = write(tmp_path, "coco", sound())
    for path in root.glob("annotations/*.json"):
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["supercategory"] = "things"
        content["categories"].append({"id": 0, "name": "things", "supercategory": "none"})
        path.write_text(json.dumps(content))
    findings = diagnose(root)
    assert [f.code for f in findings] == ["classes.parent"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_of_one_split_shifted(tmp_path, layout):
    classes = ("a", "b", "c", "d", "e")
    splits = sound(val=32, classes=4)
    for images in splits.values():
        for i, image in enumerate(images):
            image.boxes = [box for box in image.boxes if box[0] in (0, 1) or i % 4 < box[0] - 1]
            if i % 3:
                image.boxes = [box for box in image.boxes if box[0] != 0]
    assert not [f for f in diagnose(write(tmp_path / "sound", layout, splits, classes)) if f.code == "labels.shifted"]
    for image in splits["val"]:
        for box in image.boxes:
            box[0] += 1
    finding = only(diagnose(write(tmp_path / "shifted", layout, splits, classes)), "labels.shifted")
    assert finding.split == "val"
    assert "one too high" in finding.remedy


def test_class_names(tmp_path):
    root = write(
        tmp_path, "coco", sound(classes=6), ("cell", "Cell", " star", "traffic light", "traffic_light", "star")
    )
    findings = diagnose(root)
    assert "cell and Cell, traffic light and traffic_light" in only(findings, "classes.nearly-same").text
    assert only(findings, "classes.doubled").text.endswith("one class: star")
    assert only(findings, "classes.blanks").text.endswith("cut off: ' star'")


def test_numbers_as_class_names(tmp_path):
    root = write(tmp_path, "yolo", sound(), ("10", "11", "12"))
    assert serious(diagnose(root)) == [("warning", "classes.numbers", "")]


def test_splits_of_other_classes(tmp_path):
    root = write(tmp_path, "coco", sound())
    path = root / "annotations/instances_val.json"
    path.write_text(path.read_text().replace('"name": "star"', '"name": "moon"'))
    findings = diagnose(root)
    assert only(findings, "classes.differ").severity == "error"
    assert only(findings, "classes.missing").text == "its list of classes lacks 1 class of train: star"


# --------------------------------------------------------------------------------------- coordinates of another kind


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("factor", "code"), [(0.5, "labels.smaller-size"), (2, "labels.larger-size")])
def test_coordinates_of_images_of_another_size(tmp_path, layout, factor, code):
    splits = sound()
    for box in boxes_of(splits):
        box[1:] = [int(value * factor) for value in box[1:]]
    findings = diagnose(write(tmp_path, layout, splits))
    for split in ("train", "val"):
        assert only(findings, code, split).severity == "error"
    assert not [f for f in findings if f.code == "labels.misread"]


def test_objects_in_the_middle_are_no_coordinates_of_another_size(tmp_path):
    splits = sound()
    for box in boxes_of(splits):
        box[1:] = [25 + value // 2 for value in (box[1], box[2] - 10, box[3], box[4] - 10)]
    assert serious(diagnose(write(tmp_path, "coco", splits))) == []


@pytest.mark.parametrize("layout", ["coco", "voc"])
def test_fractions_where_pixels_belong(tmp_path, layout):
    root = write(tmp_path, layout, sound())
    for path in root.glob("*/*.json"):
        content = json.loads(path.read_text())
        for a in content["annotations"]:
            a["bbox"] = [value / side for value, side in zip(a["bbox"], [WIDTH, HEIGHT] * 2)]
        path.write_text(json.dumps(content))
    for path in root.glob("Annotations/*.xml"):
        path.write_text(re.sub(r"<([xy]m..)>(\d+)", lambda m: f"<{m[1]}>{int(m[2]) / WIDTH}", path.read_text()))
    findings = diagnose(root)
    assert only(findings, "labels.fractions", "train").severity == "error"
    assert only(findings, "labels.fractions", "val").text.startswith("100 % of the boxes lie within the first pixel")


def test_pixels_where_fractions_belong(tmp_path):
    root = write(tmp_path, "yolo", sound())
    for path in root.glob("labels/*/*.txt"):
        rows = [line.split() for line in path.read_text().splitlines()]
        path.write_text("\n".join(" ".join([k, *(str(float(v) * WIDTH) for v in values)]) for k, *values in rows))
    findings = diagnose(root)
    assert {f.split for f in findings if f.code == "labels.pixels"} == {"train", "val"}
    assert {f.split for f in findings if f.code == "splits.no-boxes"} == {"train", "val"}


def test_coco_corners(tmp_path):
    root = write(tmp_path, "coco", sound())
    for path in root.glob("annotations/*.json"):
        content = json.loads(path.read_text())
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            a["bbox"] = [x, y, x + w, y + h]
        path.write_text(json.dumps(content))
    finding = only(diagnose(root), "labels.misread", "train")
    assert finding.severity == "error"
    assert finding.text.endswith("read as x1 y1 x2 y2, 100 %")
    assert finding.remedy == "convert the boxes from x1 y1 x2 y2 to x1 y1 w h"


@pytest.mark.parametrize("written", ["x1 y1 x2 y2", "x1 y1 w h"])
def test_yolo_corners(tmp_path, written):
    root = write(tmp_path, "yolo", sound())
    for path in root.glob("labels/*/*.txt"):
        rows = []
        for line in path.read_text().splitlines():
            k, x, y, w, h = map(float, line.split())
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            values = corners if written == "x1 y1 x2 y2" else (*corners[:2], w, h)
            rows.append(" ".join(map(str, [int(k), *values])))
        path.write_text("\n".join(rows))
    finding = only(diagnose(root), "labels.misread", "train")
    assert finding.remedy == f"convert the boxes from {written} to cx cy w h"


def test_voc_sides(tmp_path):
    root = write(tmp_path, "voc", sound())
    for path in root.glob("Annotations/*.xml"):
        corners = r"<xmin>(\d+)</xmin><ymin>(\d+)</ymin><xmax>(\d+)</xmax><ymax>(\d+)</ymax>"

        def sides(m):
            x1, y1, x2, y2 = map(int, m.groups())
            return f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2 - x1}</xmax><ymax>{y2 - y1}</ymax>"

        path.write_text(re.sub(corners, sides, path.read_text()))
    assert only(diagnose(root), "labels.misread", "val").remedy == "convert the boxes from x1 y1 w h to x1 y1 x2 y2"


def test_outlines(tmp_path):
    root = write(tmp_path, "yolo", sound())
    path = root / "labels/val/val0.txt"
    path.write_text(path.read_text() + "\n0 .4 .4 .5 .4 .5 .6")
    assert only(diagnose(root), "labels.polygons").count == 1


# ------------------------------------------------------------------------------------------------------------ boxes


def add(splits, box, images=1, split="train"):
    for image in splits[split][:images]:
        image.boxes.append(list(box))


@pytest.mark.parametrize("layout", ["coco", "voc"])  # in YOLO's files equal lines are left out as they are read
def test_equal_boxes(tmp_path, layout):
    splits = sound()
    for image in splits["train"][:2]:
        image.boxes.append(list(image.boxes[1]))
    findings = diagnose(write(tmp_path, layout, splits))
    assert serious(findings) == [("warning", "boxes.repeated", "train")]
    assert only(findings, "boxes.repeated").count == 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("label", "code"), [(2, "boxes.double"), (0, "boxes.two-classes")])
def test_two_boxes_on_one_object(tmp_path, layout, label, code):
    splits = sound()
    for image in splits["train"][:2]:
        _, x1, y1, x2, y2 = image.boxes[2]
        image.boxes.append([label, x1 + 1, y1, x2, y2])
    findings = diagnose(write(tmp_path, layout, splits))
    assert serious(findings) == [("warning", code, "train")]
    assert " and " in only(findings, code).examples[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_boxes_in_several_images(tmp_path, layout):
    splits = sound()
    splits["val"][5].boxes = [list(box) for box in reversed(splits["val"][2].boxes)]
    finding = only(diagnose(write(tmp_path, layout, splits)), "boxes.copied-set")
    assert (finding.severity, finding.split, finding.count) == ("warning", "val", 2)
    assert [Path(name).name for name in finding.examples] == ["val2.png", "val5.png"]


def test_long_boxes(tmp_path):
    splits = sound()
    add(splits, [0, 2, 50, 102, 54], 1)
    assert serious(diagnose(write(tmp_path / "few", "coco", splits))) == []
    add(splits, [1, 2, 40, 102, 44], 8)
    findings = diagnose(write(tmp_path / "many", "coco", splits))
    assert ("warning", "boxes.long", "train") in serious(findings)


def test_boxes_of_whole_images(tmp_path):
    splits = sound()
    add(splits, [0, 0, 1, WIDTH, HEIGHT], 2)
    assert only(diagnose(write(tmp_path / "few", "yolo", splits)), "boxes.whole-image").severity == "note"
    for image in splits["train"]:
        image.boxes = [[0, 0, 1, WIDTH, HEIGHT]]
    finding = only(diagnose(write(tmp_path / "all", "yolo", splits)), "boxes.classification")
    assert (finding.severity, finding.count) == ("error", 40)


@st.composite
def crowds(draw):
    """Boxes of several images on a coarse grid, so that edges and whole boxes coincide."""
    rows = draw(st.lists(st.tuples(*[st.integers(0, 3)] * 3, st.integers(1, 4), st.integers(1, 4)), max_size=25))
    values = np.array(rows, np.float32).reshape(-1, 5)
    boxes = np.concatenate([values[:, 1:3], values[:, 1:3] + values[:, 3:]], 1)
    return boxes, values[:, 0].astype(np.int32)


@given(crowds(), st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_overlapping_finds_what_comparing_all_pairs_finds(crowd, least):
    from torch import from_numpy

    from retinanet.ops.boxes import iou

    boxes, owner = crowd
    table = iou(from_numpy(boxes), from_numpy(boxes)).numpy()
    i, j = np.nonzero(np.triu((table > least + 1e-6) & (owner[:, None] == owner), 1))
    first, second, overlap = overlapping(boxes, owner, least + 1e-6)
    assert sorted(zip(np.minimum(first, second), np.maximum(first, second))) == sorted(zip(i, j))
    np.testing.assert_allclose(overlap, table[first, second], rtol=1e-5)


# ------------------------------------------------------------------------------------------------- this detector's


def sized(size, longer=1333, **post):
    preprocessing = PreprocessingSettings(size=size, longer=longer)
    return ModelSettings(preprocessing=preprocessing, postprocessing=PostprocessingSettings(**post))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shrunken_images(tmp_path, layout):
    findings = diagnose(write(tmp_path, layout, sound()), sized(HEIGHT // 3))
    shrunk = only(findings, "training.shrunk", "train")
    assert shrunk.severity == "warning"
    wanted = int(re.search(r"size (\d+)", shrunk.remedy)[1])
    assert wanted % 32 == 0
    again = [f.count for f in diagnose(tmp_path, sized(wanted)) if f.code == "training.shrunk"]
    assert not again, "at the size that the remedy names all is well"
    below = [f for f in diagnose(tmp_path, sized(HEIGHT // 6)) if f.code == "training.tiny"]
    assert [f.severity for f in below] == ["warning", "warning"]


def test_more_objects_than_detections(tmp_path):
    findings = diagnose(write(tmp_path, "coco", sound()), sized(800, max_detections=2))
    finding = only(findings, "training.max-detections", "train")
    assert "40 images have more than 2 objects, at most 3: 40 (33 %)" in finding.text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_that_nms_takes_away(tmp_path, layout):
    splits = sound()
    for image in splits["train"][:10]:
        _, x1, y1, x2, y2 = image.boxes[2]
        image.boxes.append([2, x1, y1, x2 - 8, y2])
    findings = diagnose(write(tmp_path, layout, splits))
    assert serious(findings) == [("warning", "training.nms", "train")]
    assert only(findings, "training.nms").count == 20
    threshold = float(re.search(r"nms-iou (\S+),", only(findings, "training.nms").remedy)[1])
    after = [f.count for f in diagnose(tmp_path, sized(800, nms_iou=threshold)) if f.code == "training.nms"]
    assert sum(after) <= 2


@pytest.mark.parametrize(("height", "width", "code"), [(7100, 7100, "huge"), (20, 120, "small"), (40, 440, "long")])
def test_images_of_strange_sizes(tmp_path, height, width, code):
    splits = sound()
    content = encoded(Image.new("1", (width, height), 1))
    splits["val"][0] = Sample("odd.png", content, [[0, 1, 1, 30, 18]], (height, width))
    finding = only(diagnose(write(tmp_path, "coco", splits)), f"images.{code}")
    assert (finding.severity, finding.examples) == ("warning", ("val/odd.png",))
    assert f"such as {width} x {height}" in finding.text


# ------------------------------------------------------------------------------------------------------------ splits


def test_one_split_is_a_note(tmp_path):
    splits = sound()
    del splits["val"]
    findings = diagnose(write(tmp_path, "yolo", splits))
    assert serious(findings) == []
    assert "--val" in only(findings, "splits.no-val").remedy  # training holds out a share


def test_test_instead_of_val_is_a_note(tmp_path):
    splits = sound()
    splits["test"] = splits.pop("val")
    findings = diagnose(write(tmp_path, "coco", splits))
    assert serious(findings) == []
    assert "--data.val test" in only(findings, "splits.no-val").remedy


def test_no_split_to_learn_from(tmp_path):
    splits = sound()
    splits["test"] = splits.pop("train")
    assert ("error", "splits.no-train", "") in serious(diagnose(write(tmp_path, "voc", splits)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_splits(tmp_path, layout):
    splits = sound()
    splits["val"] = []
    findings = diagnose(write(tmp_path, layout, splits))
    finding = only(findings, "splits.unusable")
    assert (finding.severity, finding.split) == ("error", "val")
    assert finding.text.startswith("cannot be used: ")


def test_splits_that_cannot_be_opened(tmp_path):
    root = write(tmp_path, "yolo", sound())
    for path in root.glob("labels/val/*"):
        path.unlink()
    finding = only(diagnose(root), "splits.unusable", "val")
    assert "none of the 20 images of val has a label file" in finding.text
    (root / "data.yaml").write_text("train: images/train\nval: images/train\ntest: images/nowhere\nnames: [a, b, c]")
    finding = only(diagnose(root), "splits.unusable")
    assert (finding.severity, finding.split) == ("warning", "test")


def test_no_data_set_is_refused(tmp_path):
    with pytest.raises(RequestError, match="is an empty folder"):
        open_all(tmp_path)


def test_small_splits(tmp_path):
    finding = only(diagnose(write(tmp_path, "coco", sound(val=12))), "splits.small")
    assert finding.text.startswith("it has 12 images (23 % of all) and 36 boxes")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_that_a_split_lacks(tmp_path, layout):
    splits = sound()
    for split, label in (("train", 0), ("val", 1)):
        for image in splits[split]:
            image.boxes = [box for box in image.boxes if box[0] != label]
    findings = diagnose(write(tmp_path, layout, splits))
    assert only(findings, "splits.only-here").text.endswith("not in train: cell; each counts with AP 0")
    assert only(findings, "splits.not-here").text.endswith(": star")


def test_rare_and_unused_classes_and_imbalance(tmp_path):
    splits = sound()
    for image in splits["train"][1:]:
        image.boxes = [box for box in image.boxes if box[0] != 2]
    findings = diagnose(write(tmp_path, "yolo", splits, (*CLASSES, "moon")))
    assert only(findings, "splits.rare-class").text == "1 class has fewer than 10 boxes: ring (1)"
    imbalance = only(findings, "splits.imbalance")
    assert "40 to 1" in imbalance.text
    assert "--data.repeat-threshold 0.1" in imbalance.remedy
    assert only(findings, "splits.unused-class").text == "1 class occurs in no split, of 4: moon"


def test_other_shares_of_classes(tmp_path):
    splits = sound(train=60, val=60)
    for i, image in enumerate(splits["val"]):
        image.boxes = [box for box in image.boxes if box[0] != 0 or i < 5]
    findings = diagnose(write(tmp_path, "coco", splits))
    assert only(findings, "splits.class-skew").text.endswith(
        "in train: cell (4 %, in train 33 %), star (48 %, in train 33 %), ring (48 %, in train 33 %)"
    )


def test_other_box_and_image_sizes(tmp_path):
    splits = sound()
    for i, image in enumerate(splits["val"]):
        image.boxes = [[k, x1, y1, x1 + (x2 - x1) // 2, y1 + (y2 - y1) // 2] for k, x1, y1, x2, y2 in image.boxes]
        splits["val"][i] = replace(
            image,
            content=png(5000, HEIGHT * 3, WIDTH * 3),
            size=(HEIGHT * 3, WIDTH * 3),
            boxes=[[k, *(3 * value for value in box)] for k, *box in image.boxes],
        )
    findings = diagnose(write(tmp_path, "yolo", splits))
    assert serious(findings) == [("warning", "splits.size-skew", "val"), ("warning", "splits.image-skew", "val")]
    assert only(findings, "splits.image-skew").text.startswith("images are 3 times as large as in train")
    assert only(findings, "splits.size-skew").text.startswith("boxes are 0.5 times as large as in train")


def test_images_without_boxes(tmp_path):
    splits = sound()
    for image in splits["train"][:25]:
        image.boxes = []
    for image in splits["val"]:
        image.boxes = []
    findings = diagnose(write(tmp_path, "coco", splits))
    assert only(findings, "splits.empty-images").text == "25 of 40 images (62 %) have no box"
    assert only(findings, "splits.no-boxes").split == "val"


def test_vocs_overlapping_lists_are_no_leak(tmp_path):
    root = write(tmp_path, "voc", sound())
    lists = root / "ImageSets/Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + "\n" + (lists / "val.txt").read_text())
    opened, found = open_all(root)
    assert list(opened) == ["train", "val"]
    assert [f.text for f in found] == ["trainval (60 images) is train (40) + val (20): checked as those, and no leak"]


@pytest.mark.parametrize("layout", ["yolo", "voc"])
def test_one_file_in_two_splits(tmp_path, layout):
    root = write(tmp_path, layout, sound())
    if layout == "voc":
        path = root / "ImageSets/Main/val.txt"
        path.write_text(path.read_text() + "\ntrain7")
    else:
        paths = sorted(root.glob("images/val/*.png"))
        (root / "val.txt").write_text("\n".join(map(str, [*paths, root / "images/train/train7.png"])))
        yaml = root / "data.yaml"
        yaml.write_text(yaml.read_text().replace("val: images/val", "val: val.txt"))
    findings = diagnose(root, pixels_too=True)
    assert serious(findings) == [("error", "splits.leak", "val")]
    assert Path(only(findings, "splits.leak").examples[0]).name == "train7.png"


# ---------------------------------------------------------------------------------------------- inside the images


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_across_splits(tmp_path, layout):
    splits = sound()
    splits["val"][4].content = splits["train"][9].content
    small = pixels(11).resize((WIDTH // 2, HEIGHT // 2))
    splits["val"][6].content = encoded(small.resize((WIDTH, HEIGHT)), "JPEG", quality=50)
    findings = diagnose(write(tmp_path, layout, splits), pixels_too=True)
    assert serious(findings) == [("error", "splits.leak", "val"), ("error", "splits.near-leak", "val")]
    assert re.fullmatch(r"\S+val4.png = \S+train9.png", only(findings, "splits.leak").examples[0])
    assert re.fullmatch(
        r"\S+val6.png = \S+train11.png \(similarity \S+\)", only(findings, "splits.near-leak").examples[0]
    )
    assert only(findings, "images.other-format").examples[0].endswith("val6.png: JPEG")


def test_copies_within_a_split(tmp_path):
    splits = sound()
    first, second = splits["train"][3], splits["train"][5]
    second.content, second.boxes = first.content, first.boxes
    findings = diagnose(write(tmp_path / "alike", "coco", splits), pixels_too=True)
    assert serious(findings) == [("warning", "boxes.copied-set", "train"), ("warning", "images.copies", "train")]
    second.boxes = second.boxes[:2]
    findings = diagnose(write(tmp_path / "apart", "coco", splits), pixels_too=True)
    assert serious(findings) == [("error", "images.copies-disagree", "train"), ("warning", "images.copies", "train")]


def test_frames_of_a_fixed_camera(tmp_path):
    splits = sound()
    base = np.asarray(pixels(0), np.int16)
    rng = np.random.default_rng(0)
    for images in splits.values():
        for image in images:
            frame = np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)
            image.content = encoded(Image.fromarray(frame))
    findings = diagnose(write(tmp_path, "coco", splits), pixels_too=True)
    assert only(findings, "splits.near-leak").severity == "warning"
    assert "20 images (100 %) look like many of train" in only(findings, "splits.near-leak").text
    assert only(findings, "images.near-duplicates", "train").text == "40 images in 1 group are near-duplicates"


def swapped(image):
    red, green, blue = image.split()
    return Image.merge("RGB", (blue, green, red))


def test_channels_in_the_wrong_order(tmp_path):
    splits = sound()
    assert "images.channels" not in [
        f.code for f in diagnose(write(tmp_path / "sound", "yolo", splits), pixels_too=True)
    ]
    for i, image in enumerate(splits["val"]):
        image.content = encoded(swapped(pixels(1000 + i)))
    findings = diagnose(write(tmp_path / "val", "yolo", splits), pixels_too=True)
    assert only(findings, "images.channels").split == "val"

    splits = sound()
    for i, image in enumerate(splits["train"]):
        tinted = Image.merge("RGB", [c.point(lambda v, f=f: v * f) for c, f in zip(pixels(i).split(), (1, 0.8, 0.5))])
        image.content = encoded(swapped(tinted) if i < 8 else tinted)
    finding = only(diagnose(write(tmp_path / "some", "yolo", splits), pixels_too=True), "images.channels", "train")
    assert finding.count == 8
    assert {Path(name).stem for name in finding.examples} == {f"train{i}" for i in range(8)}


def test_grey_blank_and_damaged_images(tmp_path):
    splits = sound()
    for i, image in enumerate(splits["val"][:10]):
        image.content = encoded(pixels(1000 + i).convert("L"))
    splits["train"][1].content = encoded(Image.new("RGB", (WIDTH, HEIGHT), "orange"))
    whole = png(2)
    splits["train"][2].content = whole[:600] + bytes(400) + whole[1000:]
    findings = diagnose(write(tmp_path, "coco", splits), pixels_too=True)
    assert only(findings, "images.grey").text == "10 of 20 images are grey, the others have colours"
    assert only(findings, "splits.grey-skew").text == "50 % of the images are grey, in train 0 %"
    assert only(findings, "images.blank").text == "1 image has one colour everywhere, 1 of them with boxes"
    damaged = only(findings, "images.undecodable")
    assert damaged.severity == "error"
    assert damaged.examples[0].startswith("train/train2.png: it is damaged")


def test_a_sample_says_so(tmp_path):
    opened, _ = open_all(write(tmp_path, "coco", sound()))
    findings = examine(opened, ModelSettings(), {name: inspect_images(data, limit=15) for name, data in opened.items()})
    assert only(findings, "images.sample", "train").text.startswith("the pixels of 15 of 40 images")


# -------------------------------------------------------------------------------------------------------------- files


def test_images_that_share_one_label_file(tmp_path):
    splits = sound()
    splits["train"].append(Sample("train0.jpg", encoded(pixels(77), "JPEG"), splits["train"][0].boxes))
    finding = only(diagnose(write(tmp_path / "yolo", "yolo", splits)), "files.same-stem")
    assert finding.examples == ("images/train/train0.jpg and images/train/train0.png",)
    root = write(tmp_path / "voc", "voc", sound())
    (root / "JPEGImages/train0.jpg").write_bytes(encoded(pixels(77), "JPEG"))
    finding = only(diagnose(root), "files.same-stem")
    assert finding.examples == ("JPEGImages/train0.jpg and JPEGImages/train0.png",)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_that_differ_in_case(tmp_path, layout):
    splits = sound()
    splits["train"].append(Sample("Train0.png", png(77), splits["train"][1].boxes[:2]))
    finding = only(diagnose(write(tmp_path, layout, splits)), "files.case")
    assert finding.count == 2


def test_a_image_under_two_ids(tmp_path):
    splits = sound()
    splits["train"].append(replace(splits["train"][0], boxes=[[0, 50, 50, 70, 70]]))
    finding = only(diagnose(write(tmp_path, "coco", splits)), "files.listed-twice")
    assert (finding.severity, finding.examples) == ("error", ("train/train0.png",))


def test_images_in_no_split_and_other_files(tmp_path):
    root = write(tmp_path, "coco", sound())
    (root / "train/extra.png").write_bytes(png(3))
    (root / "train/scan.jxl").write_bytes(b"x")
    (root / "train/readme.txt").write_bytes(b"x")
    findings = diagnose(root)
    assert only(findings, "files.unlisted").examples == ("train/extra.png",)
    assert only(findings, "files.no-images").examples == ("train/scan.jxl",)
    assert serious(findings) == []


def test_images_that_exif_turns(tmp_path):
    splits = sound()
    exif = Image.Exif()
    exif[0x0112] = 6
    splits["val"][1].content = encoded(pixels(1, WIDTH, HEIGHT), "JPEG", exif=exif)
    finding = only(diagnose(write(tmp_path, "coco", splits)), "files.exif")
    assert finding.examples == ("val/val1.png",)


def test_what_readers_leave_out_and_repair(tmp_path):
    root = write(tmp_path, "yolo", sound())
    (root / "images/train/train0.png").write_bytes(b"")
    (root / "labels/train/train1.txt").write_text(
        "0 .5 .5 .2\n0 .5 .5 0 .2\n0 .9 .5 .4 .2\n1 2 2 .1 .1\n0 nan .5 .1 .1"
    )
    (root / "labels/train/other.txt").write_text("0 .5 .5 .2 .2")
    found = {(f.severity, f.code, f.split) for f in diagnose(root)}
    expected = {
        ("error", "files.unreadable-image"),
        ("error", "labels.malformed"),
        ("error", "boxes.no-area"),
        ("error", "boxes.outside"),
        ("error", "boxes.not-finite"),
        ("warning", "boxes.partly-outside"),
        ("warning", "files.label-without-image"),
    }
    assert {(*pair, "train") for pair in expected} <= found
    opened, _ = open_all(root)
    strict = examine(opened, ModelSettings(), strict=True)
    assert only(strict, "boxes.partly-outside").severity == "error"
    _, refused = open_all(root, strict=True)
    assert "strict refuses any" in only(refused, "splits.unusable", "train").text


def test_every_fault_has_a_code():
    source = "".join(path.read_text() for path in Path(retinanet.data.__file__).parent.rglob("*.py"))
    kinds = set(re.findall(r'\badd\(\s*"([^"]+)",\s*"(?:left out|repaired)"', source))
    kinds |= set(re.findall(r'\("(box [^"]+)", ', source))
    assert len(kinds) > 20
    assert kinds <= set(fault_checks.KINDS)


# ---------------------------------------------------------------------------------------------------- published data


def test_bccd(real):
    findings = diagnose(real("bccd"), pixels_too=True)
    assert serious(findings) == [
        ("error", "boxes.no-area", "train"),
        ("error", "boxes.no-area", "val"),
        ("error", "splits.near-leak", "val"),  # one smear, photographed twice
    ]
    assert only(findings, "boxes.no-area", "val").examples == (
        "Annotations/BloodImage_00338.xml line 158: 504 337 504 337 in 640 x 480 pixels",
    )
    assert only(findings, "splits.near-leak").examples == (
        "JPEGImages/BloodImage_00037.jpg = JPEGImages/BloodImage_00038.jpg (similarity 0.97)",
    )
    assert only(findings, "splits.union").split == "trainval"


@pytest.mark.parametrize(("name", "split"), [("coco128", "val"), ("tiny_coco", "val2017")])
def test_small_parts_of_coco_have_few_images_of_their_classes_and_no_errors(real, name, split):
    train = split.replace("val", "train") if name == "tiny_coco" else "train"
    findings = serious(diagnose(real(name), pixels_too=True))
    assert set(findings) - {("warning", "files.label-without-image", "train")} == {
        ("warning", "splits.rare-class", train),
        ("warning", "splits.imbalance", train),
        ("warning", "splits.only-here", split),
        ("warning", "splits.not-here", split),
    }
