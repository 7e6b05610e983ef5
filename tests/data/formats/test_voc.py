"""Pascal VOC: coordinates from 1 or 0, difficult objects, and every fault named by file and line."""

import unicodedata
from pathlib import Path

import pytest

from retinanet.cli import main
from retinanet.data import open_data, splits

OBJECT = """  <object>
    <name>{name}</name>
    <part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
  </object>
"""


def thing(*corners, name="cell", difficult=0):
    return OBJECT.format(*corners, name=name, difficult=difficult)


@pytest.fixture
def make(tmp_path, paint):
    """Write a data set of the given images: the objects of each, None where it has no annotation file."""

    def write(sheets, lists=None, size=(40, 60), painted=True):
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for stem, objects in sheets.items():
            if painted:
                paint(tmp_path / f"JPEGImages/{stem}.jpg")
            if objects is not None:
                text = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
                sheet = f"<annotation>\n  {text}\n{''.join(objects)}</annotation>\n"
                (tmp_path / f"Annotations/{stem}.xml").write_text(sheet)
        for split, stems in (lists or {"train": list(sheets)}).items():
            (tmp_path / f"ImageSets/Main/{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        return tmp_path

    return write


def test_pixels_count_from_1_and_the_last_is_inside(make, opened):
    objects = [thing(1, 1, 60, 40), thing(11, 21, 30, 30, name="star", difficult=1)]
    data = opened(make({"a": objects, "b": [thing(5, 6, 7, 8)]}), "train")
    assert repr(data) == f"<Pascal VOC {data.root} train: 2 images, 3 boxes>"
    assert data.boxes(0).tolist() == [[0, 0, 60, 40], [10, 20, 30, 30]]
    assert data.boxes(1).tolist() == [[4, 5, 7, 8]]
    assert (data.class_names, data.category_ids) == (("cell", "star"), (1, 2))
    assert data.labels(0).tolist() == [0, 1]
    assert data.crowd(0).tolist() == [False, True]  # difficult: neither learnt nor counted
    assert [data.image_id(i) for i in range(2)] == [1, 2]


def test_a_zero_shows_that_pixels_count_from_0(make, opened):
    note = "box coordinates count from 0 (some are 0), not from 1 as in Pascal VOC"
    data = opened(make({"a": [thing(0, 5, 60, 40)], "b": [thing(5, 6, 7, 8)]}), "train", notes=[note])
    assert data.boxes(0).tolist() == [[0, 5, 60, 40]]
    assert data.boxes(1).tolist() == [[5, 6, 7, 8]]


def test_labels_do_not_depend_on_the_split(make, opened):
    root = make({"a": [thing(1, 1, 9, 9, name="z")], "b": [thing(1, 1, 9, 9)]}, {"train": ["a"], "test": ["b"]})
    assert splits(root) == {"test": 1, "train": 1}
    train, test = opened(root, "train"), opened(root, "test")
    assert train.class_names == test.class_names == ("cell", "z")
    assert (train.labels(0).tolist(), test.labels(0).tolist()) == ([1], [0])


def test_a_image_without_an_annotation_file_is_background(make, opened):
    note = "1 images without an annotation file are background"
    data = opened(make({"a": [thing(1, 1, 9, 9)], "b": None}), "train", notes=[note])
    assert data.boxes(1).shape == (0, 4)


@pytest.mark.parametrize(
    ("written", "crowd"),
    [("true", [True]), ("True", [True]), ("1", [True]), ("false", [False]), ("", [False]), ("no", [False]), ("2", [])],
)
def test_difficult_in_words(make, written, crowd):
    data = open_data(make({"a": [thing(1, 1, 9, 9, difficult=written)]}), "train")
    assert data.crowd(0).tolist() == crowd
    assert data.report.count == (not crowd)


def test_numbers_as_names_are_image_ids(make, opened):
    data = opened(make({"000012": [thing(1, 1, 9, 9)], "7": []}), "train")
    assert [data.image_id(i) for i in range(2)] == [12, 7]


FAULTS = {
    "no area": (
        thing(7, 8, 7, 8),
        "box of no area (1 left out): Annotations/a.xml line 9: 7 8 7 8 in 60 x 40 pixels",
    ),
    "swapped": (
        thing(9, 8, 7, 12),
        "box of no area (1 left out): Annotations/a.xml line 9: 9 8 7 12 in 60 x 40 pixels",
    ),
    "outside": (
        thing(71, 8, 77, 12),
        "box outside the image (1 left out): Annotations/a.xml line 9: 70 7 77 12 in 60 x 40 pixels",
    ),
    "not a number": (
        thing(1, "x", 7, 12),
        "box with a coordinate that is not a finite number (1 left out): "
        "Annotations/a.xml line 9: 1 nan 7 12 in 60 x 40 pixels",
    ),
    "nan": (
        thing(1, "NaN", 7, 12),
        "box with a coordinate that is not a finite number (1 left out): "
        "Annotations/a.xml line 9: 1 nan 7 12 in 60 x 40 pixels",
    ),
    "no name": (
        thing(1, 2, 7, 12, name=""),
        "malformed annotation (1 left out): Annotations/a.xml line 9: the object has no name",
    ),
    "no corner": (
        "<object><name>cell</name><bndbox><xmin>1</xmin><ymax>2</ymax></bndbox></object>",
        "malformed annotation (1 left out): Annotations/a.xml line 9: the object has no ymin xmax",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_objects_left_out(make, opened, kind):
    text, line = FAULTS[kind]
    data = opened(make({"a": [thing(1, 1, 9, 9), text]}), "train", [line])
    assert data.boxes(0).tolist() == [[0, 0, 9, 9]]


def test_a_box_partly_outside_is_clipped(make, opened):
    line = "box partly outside the image, clipped (1 repaired): Annotations/a.xml line 3: 50 9 70 20 in 60 x 40 pixels"
    data = opened(make({"a": [thing(51, 10, 70, 20)]}), "train", [line])
    assert data.boxes(0).tolist() == [[50, 9, 60, 20]]


def test_a_class_that_a_trained_model_does_not_know(make):
    root = make({"a": [thing(1, 1, 9, 9), thing(1, 1, 9, 9, name="moon")]})
    data = open_data(root, "train", class_names=["star", "cell"])
    assert data.report.lines() == ["class that the model does not know (1 left out): Annotations/a.xml line 9: moon"]
    assert data.class_names == ("star", "cell")
    assert data.labels(0).tolist() == [1]


def test_broken_xml(make, opened):
    root = make({"a": [thing(1, 1, 9, 9)], "b": []})
    (root / "Annotations/b.xml").write_text("<annotation>\n  <object></annotation>\n")
    line = "unreadable annotation file (1 left out): Annotations/b.xml line 2 column 13: mismatched tag"
    assert len(opened(root, "train", [line])) == 1


def test_images_left_out(make, opened, paint):
    root = make({stem: [thing(1, 1, 9, 9)] for stem in "abcd"})
    (root / "JPEGImages/b.jpg").unlink()
    (root / "JPEGImages/c.jpg").write_text("a text")
    paint(root / "JPEGImages/d.jpg", 60, 40)
    lines = [
        "missing image (1 left out): JPEGImages/b.jpg",
        "unreadable image (1 left out): JPEGImages/c.jpg: it is not an image that Pillow knows",
        "size that disagrees with the file (1 left out): JPEGImages/d.jpg: annotated 60 x 40, the file is 40 x 60",
    ]
    data = opened(root, "train", lines)
    assert (len(data), data.num_boxes) == (1, 1)


def test_a_image_listed_twice(make, opened):
    root = make({"a": [thing(1, 1, 9, 9)]}, {"train": ["a", "a"]})
    assert len(opened(root, "train", ["image listed twice (1 left out): ImageSets/Main/train.txt: a"])) == 1


def test_lists_of_one_class_are_no_splits(make):
    root = make({"a": [thing(1, 1, 9, 9)]})
    (root / "ImageSets/Main/cell_train.txt").write_text("a  1\n")
    assert splits(root) == {"train": 1}


def test_names_in_lists_may_have_suffixes_dots_and_spaces(make, opened):
    sheets = {stem: [thing(1, 1, 9, 9)] for stem in ("a.b", "c d")}
    data = opened(make(sheets, {"train": ["a.b.jpg", "c d"]}), "train")
    assert [data.path(i).name for i in range(2)] == ["a.b.jpg", "c d.jpg"]


def test_layouts_without_what_is_needed(make, refused):
    root = make({"a": None})
    assert refused(root, "train") == (
        f"{root}/Annotations names no class: there is no <object> with a <name> in any split; "
        f"looked for {root}/Annotations/a.xml"
    )
    make({"b": [thing(1, 1, 9, 9)]}, {"train": ["a"], "val": ["b"]})
    assert refused(root, "train") == (
        f"none of the 1 images of train has an annotation file in {root}/Annotations, such as a.xml"
    )
    for file in (root / "ImageSets/Main").iterdir():
        file.write_text("")
    assert refused(root, "train") == (
        f"{root} looks like Pascal VOC, but ImageSets/Main has no list of images such as train.txt"
    )


# ------------------------------------------------------------------------------------------------ as other tools write


@pytest.mark.parametrize(
    ("break_", "where", "reason"),
    [
        (lambda text: text.replace("cell", "R&D").encode(), "line 4 column 14", "invalid token"),
        (lambda text: b"\n<?xml version='1.0'?>" + text.encode(), "line 2 column 1", "declaration not at start"),
        (
            lambda text: text.replace("cell", "caf\xe9").encode("latin-1"),
            "not UTF-8 text (line 4, byte 0xe9",
            "Latin-1",
        ),
        (lambda text: text[:-9].encode(), "line 9 column 1", "unclosed token"),
        (lambda text: b"<?xml version='1.0' encoding='klingon'?>" + text.encode(), "", "encoding klingon"),
        (lambda text: text.encode("utf-16-le"), "", "UTF-16 without a byte order mark"),
        (lambda text: b"", "line 1 column 1", "no element found"),
    ],
)
def test_where_no_xml_can_be_read_the_first_fault_is_told(make, refused, break_, where, reason, capsys):
    root = make({stem: [thing(1, 1, 9, 9)] for stem in "ab"}, {"train": ["a", "b"], "val": ["b"]})
    for path in (root / "Annotations").iterdir():
        path.write_bytes(break_(path.read_text()))
    message = refused(root, "train")
    assert "unreadable annotation file (2 left out): Annotations/a.xml" in message
    assert where in message
    assert reason in message
    assert main(["data", str(root)]) == 2
    assert reason in capsys.readouterr().err


def test_in_one_split_no_xml_can_be_read(make, refused):
    root = make({stem: [thing(1, 1, 9, 9)] for stem in "ab"}, {"train": ["a"], "val": ["b"]})
    (root / "Annotations/b.xml").write_text("<annotation>&</annotation>")
    assert open_data(root, "train").num_boxes == 1
    assert "Annotations/b.xml line 1 column" in refused(root, "val")


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("ISO-8859-1", "latin-1"),
        ("windows-1252", "cp1252"),
        ("gb2312", "gb2312"),
        ("shift_jis", "shift_jis"),
        ("UTF-16", "utf-16"),
        ("UTF-8", "utf-8-sig"),
        ("utf-16", "ascii"),  # as .NET writes a text that it then saves otherwise
        ("", "utf-32"),
    ],
)
def test_encodings_that_xml_declares(make, opened, declared, encoding):
    name = {"latin-1": "café", "cp1252": "“café”", "gb2312": "猫", "shift_jis": "ネコ", "ascii": "cell"}.get(
        encoding, "é"
    )
    root = make({"a": [thing(1, 1, 9, 9, name=name)]})
    path = root / "Annotations/a.xml"
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    path.write_bytes((head + path.read_text(encoding="utf-8")).encode(encoding))
    data = opened(root, "train")
    assert (data.class_names, data.boxes(0).tolist()) == ((name,), [[0, 0, 9, 9]])


@pytest.mark.parametrize(
    "row",
    [
        "f 0.jpg",
        "JPEGImages/f 0.jpg",
        "./JPEGImages/f 0.jpg",
        "VOC2007\\JPEGImages\\f 0.jpg",
        "C:\\me\\JPEGImages\\f 0.JPG",
        "/home/me/VOC/JPEGImages/f 0.jpg",
        "JPEGImages/f 0.jpg Annotations/f 0.xml",
        "/a b/JPEGImages/f 0.jpg\t/a b/Annotations/f 0.xml",
        "f 0.jpg,f 0.xml",
        "Annotations/f 0.xml",
        "\ufefff 0",
    ],
)
def test_lines_of_lists(make, opened, row):
    data = opened(make({"f 0": [thing(1, 1, 9, 9)]}, {"train": [row]}), "train")
    assert (data.path(0).name, data.boxes(0).tolist()) == ("f 0.jpg", [[0, 0, 9, 9]])


def test_a_list_in_utf_16_and_one_in_latin_1(make, refused, opened):
    root = make({"é": [thing(1, 1, 9, 9)]})
    file = root / "ImageSets/Main/train.txt"
    file.write_text("é\r\n", encoding="utf-16")
    assert opened(root, "train").num_boxes == 1
    file.write_bytes("é\n".encode("latin-1"))
    assert refused(root, "train").startswith(f"cannot read {file}: not UTF-8 text (line 1, byte 0xe9")


def test_pairs_of_different_names_are_refused(make, refused):
    root = make({"a": [thing(1, 1, 9, 9)]}, {"train": ["a.jpg a.xml", "a.jpg b.xml"]})
    assert "train.txt line 2 pairs a.jpg with b.xml" in refused(root, "train")


def test_names_that_end_in_a_number_are_no_list_of_a_class(make):
    assert splits(make({"f 1": [thing(1, 1, 9, 9)], "g": []}, {"train": ["f 1", "g"]})) == {"train": 2}


@pytest.mark.parametrize(
    ("stem", "sheet", "image"),
    [
        ("A", "a.xml", "A.jpg"),
        ("a", "a.XML", "a.JPG"),
        ("a", "a.xml", "A.jpg"),
        (
            unicodedata.normalize("NFD", "é"),
            unicodedata.normalize("NFC", "é.xml"),
            unicodedata.normalize("NFC", "é.jpg"),
        ),
        ("b/a", "b/a.xml", "b/a.jpg"),
        ("b/a", "b/a.xml", "a.jpg"),
        ("/home/me/a", "a.xml", "a.jpg"),
        ("images/a", "a.xml", "a.jpg"),
        ("C:\\me\\a", "a.xml", "a.jpg"),
    ],
)
def test_files_of_nearly_the_listed_name(make, tmp_path, stem, sheet, image):
    root = make({"old": [thing(1, 1, 9, 9)]}, {"train": [stem]})
    for old, new in (("Annotations/old.xml", f"Annotations/{sheet}"), ("JPEGImages/old.jpg", f"JPEGImages/{image}")):
        (tmp_path / new).parent.mkdir(exist_ok=True)
        (tmp_path / old).rename(tmp_path / new)
    data = open_data(root, "train")
    assert (data.path(0), data.num_boxes) == (root / "JPEGImages" / image, 1)
    assert bool(data.report.faults) == (f"{stem}.xml" != sheet or not stem.endswith(Path(image).stem))


def test_annotations_that_may_be_those_of_two_images_are_those_of_none(make, opened):
    root = make({"x": [thing(1, 1, 9, 9)], "1": [thing(1, 1, 9, 9)]}, {"train": ["x", "a/1", "b/1"]})
    lines = ["missing image (2 left out): JPEGImages/a/1.jpg; JPEGImages/b/1.jpg"]
    data = opened(root, "train", lines)  # a missing image is not called background
    assert [len(data.boxes(i)) for i in range(len(data))] == [1]


def test_files_of_a_listed_name_are_not_taken_for_another(make, opened):
    root = make({"a": [thing(1, 1, 9, 9)]}, {"train": ["a", "A"], "val": ["a"]})
    assert opened(root, "train", ["missing image (1 left out): JPEGImages/A.jpg"]).num_boxes == 1
    assert opened(root, "val").num_boxes == 1


def test_images_of_one_name_in_two_folders(make, paint, opened):
    root = make({"x": []}, {"train": ["a/1", "b/1"]})
    for folder, width in (("a", 60), ("b", 50)):
        (root / "Annotations" / folder).mkdir()
        (root / f"Annotations/{folder}/1.xml").write_text(f"<annotation>{thing(1, 1, 9, 9)}</annotation>")
        paint(root / f"JPEGImages/{folder}/1.jpg", 40, width)
    assert [opened(root, "train").size(i) for i in range(2)] == [(40, 60), (40, 50)]


def test_without_a_size_and_with_numbers_of_every_kind(make, opened):
    root = make({"a": [thing("1.5", " 2 ", "1e1", "12.25")]})
    path = root / "Annotations/a.xml"
    path.write_text(path.read_text().replace("size>", "other>"))
    data = opened(root, "train")
    assert (data.size(0), data.boxes(0).tolist()) == ((40, 60), [[0.5, 1, 10, 12.25]])


def test_bccd(real, opened):
    root = real("bccd")
    assert splits(root) == {"test": 72, "train": 205, "trainval": 292, "val": 87}
    points = (
        "box of no area (2 left out): Annotations/BloodImage_00338.xml line 158: 504 337 504 337 in 640 x 480 pixels; "
        "Annotations/BloodImage_00343.xml line 50: 181 329 181 329 in 640 x 480 pixels"
    )
    trainval, test = opened(root, "trainval", [points]), opened(root, "test")
    assert trainval.class_names == ("Platelets", "RBC", "WBC")
    assert (len(trainval), len(test)) == (292, 72)
    assert trainval.counts() == [292, 3348, 301]  # with the test split the 361, 4155 and 372 published, less two points
    assert test.counts() == [69, 805, 71]
