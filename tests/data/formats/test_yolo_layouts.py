"""YOLO as other tools leave it: where labels lie, what describes the classes, lists of another machine, encodings."""

import codecs
import unicodedata

import numpy as np
import pytest
from PIL import Image

from helpers.annotated import Annotated, annotated, classes_of, put, require_same, voc_sheet, yolo_label
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.data import open_data, splits

LINE = "0 0.19375 0.458333 0.2625 0.4\n"
CORNERS = [10, 31, 52, 79]  # of the same in 160 x 120 pixels
YAML = "train: train/images\nval: valid/images\nnames: [red, blue]\n"


@pytest.fixture
def files(tmp_path):
    """Write files of these names: texts, bytes, or images of 160 x 120 pixels for None."""

    def write(**contents):
        for name, content in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Image.new("RGB", (160, 120)).save(path, "PNG")
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def kinds(data):
    return {fault.kind: (fault.count, fault.action) for fault in data.report.faults.values()}


def one_box(data):
    assert np.allclose(data.annotations.boxes, [CORNERS], atol=0.01)
    return data


def refused(root, split="train"):
    with pytest.raises(RequestError) as error:
        open_data(root, split)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------- where labels lie


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("some/folder/a.png", "some/folder/a.txt"),
        ("another/folder/images/a.png", "another/folder/images/a.txt"),
        ("images/a.png", "images/a.txt"),
        ("images/x/images/a.png", "images/x/labels/a.txt"),
        ("images/x/images/a.png", "labels/x/images/a.txt"),
        ("images/x/y/a.png", "labels/x/y/a.txt"),
        ("images/x/a.png", "images/x/A.TXT"),
        ("x/JPEGImages/a.png", "x/labels/a.txt"),
        ("Images/x/a.png", "Labels/x/a.txt"),
    ],
)
def test_labels_in_their_folder_or_beside_their_images(files, image, label):
    root = files(**{image: None, label: LINE, "data.yaml": f"train: [{image.rsplit('/', 1)[0]}]\nnames: [red]\n"})
    one_box(open_data(root, "train"))


def test_labels_of_two_folders_some_beside(files):
    root = files(
        **{
            "some/folder/a.png": None,
            "some/folder/a.txt": LINE,
            "some/folder/notes.txt": "a text\n",
            "some/folder/gone.txt": LINE,
            "another/folder/images/b.png": None,
            "another/folder/images/b.txt": LINE,
            "data.yaml": "train: [some/folder, another/folder/images]\nnames: [red]\n",
        }
    )
    data = open_data(root, "train")
    assert np.allclose(data.annotations.boxes, [CORNERS] * 2, atol=0.01)
    assert data.report.lines() == ["label file without an image (1 left out): some/folder/gone.txt"]


def test_a_label_file_that_lies_unused_is_named(files):
    root = files(
        **{"train/images/a.png": None, "train/images/a.txt": "1 0.5 0.5 0.1 0.1", "train/labels/a.txt": LINE},
        **{"data.yaml": YAML},
    )
    data = one_box(open_data(root, "train"))
    assert kinds(data) == {"label file that is not read": (1, "left out")}
    assert "train/images/a.txt" in data.report.lines()[0]


def test_label_files_that_cannot_be_read_are_named(files):
    root = files(**{f"train/images/{name}.png": None for name in "abc"}, **{"data.yaml": YAML})
    files(**{"train/labels/a.txt": LINE, "train/labels/b.txt": "0 0.5 \xe9".encode("latin-1")})
    (root / "train/labels/c.txt").mkdir()
    data = one_box(open_data(root, "train"))
    assert kinds(data) == {"unreadable annotation file": (2, "left out")}
    assert "train/labels/b.txt: not UTF-8 text (line 1, byte 0xe9" in data.report.lines()[0]
    assert "train/labels/c.txt: is a directory" in data.report.lines()[0]


# -------------------------------------------------------------------------------------------------------- encodings

ENCODINGS = [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
             (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (b"", "utf-8")]  # fmt: skip


@pytest.mark.parametrize(("mark", "encoding"), ENCODINGS)
def test_every_file_is_read_by_its_byte_order_mark(files, mark, encoding):
    def coded(text):
        return mark + text.encode(encoding)

    root = files(
        **{"train/images/é.png": None, "train/labels/é.txt": coded(LINE)},
        **{"train.txt": coded("train/images/é.png\r\n"), "data.yaml": coded("train: train.txt\nnames: [rød]\n")},
    )
    assert one_box(open_data(root, "train", strict=True)).class_names == ("rød",)
    (root / "data.yaml").unlink()
    files(**{"classes.txt": coded("rød\nblau\n")})
    assert one_box(open_data(root, "train", strict=True)).class_names == ("rød", "blau")
    (root / "classes.txt").rename(root / "obj.names")
    files(**{"obj.data": coded("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")})
    assert one_box(open_data(root, "train", strict=True)).class_names == ("rød", "blau")


def test_where_no_label_file_can_be_read_the_reason_is_told(files, capsys):
    without_mark = LINE.encode("utf-16-le")
    root = files(**{"train/images/a.png": None, "train/labels/a.txt": without_mark, "data.yaml": YAML})
    message = refused(root)
    assert "train/labels/a.txt" in message
    assert "UTF-16 without a byte order mark" in message
    assert main(["data", str(root)]) == 2
    assert "UTF-16 without a byte order mark" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train.txt", "data.yaml", "classes.txt", "obj.names", "obj.data"])
def test_latin_1_is_one_line_that_names_the_file(files, name, capsys):
    root = files(**{"images/a.png": None, "labels/a.txt": LINE, "train.txt": "images/a.png\n"})
    if name == "train.txt":
        files(**{"data.yaml": "train: train.txt\nnames: [red]\n"})
    if name == "obj.data":
        files(**{"obj.names": "red\n"})
    files(**{name: "# x\nnames: [caf\xe9]\ntrain: images\n".encode("latin-1")})
    assert refused(root).startswith(f"cannot read {root / name}: not UTF-8 text (line 2, byte 0xe9")
    assert main(["data", str(root)]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert "Traceback" not in error


# ------------------------------------------------------------------------------------------------------ class names


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[on, 'off']", ("on", "off")),
        ("{0: on, 1: 1.10}", ("on", "1.10")),
        ("[0x10, 010, 1e3]", ("0x10", "010", "1e3")),
        ("[2020-01-01, 12:30:00]", ("2020-01-01", "12:30:00")),
        ("['null', \"~\"]", ("null", "~")),
        ("{'0': a, '2': b}", ("a", "b")),
        ("{1: b, 0: a}", ("a", "b")),
        ("\n  - TRUE\n  - .inf\n", ("TRUE", ".inf")),
    ],
)
def test_names_are_text_as_written(files, yaml, names):
    root = files(
        **{"train/images/a.png": None, "train/labels/a.txt": LINE},
        **{"data.yaml": f"train: train/images\nnc: {len(names)}\nnames: {yaml}\n"},
    )
    assert one_box(open_data(root, "train")).class_names == names


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("[red, null]", "the name of class 1 is null"),
        ("[~]", "the name of class 0 is null"),
        ("{0: red, 1: }", "the name of class 1 is null"),
        ("[[red]]", "which is no name"),
        ("[red, '']", "the name of class 1 is empty"),
        ("{3: ' '}", "the name of class 3 is empty"),
        ("[red, blue, red]", "the classes 0 and 2 are both called 'red'"),
        ("{0: red, 1: 'red '}", "the classes 0 and 1 are both called 'red'"),
        ("{0: red, 0: blue}", "0 is there twice"),
        ("{0: red, '00': blue}", "the same number twice"),
        ("{~: red}", "names must be a list"),
        ("[]", "names must be a list"),
    ],
)
def test_names_that_cannot_be_used(files, yaml, message):
    root = files(**{"train/images/a.png": None, "data.yaml": f"train: train/images\nnames: {yaml}\n"})
    assert message in refused(root)
    assert str(root / "data.yaml") in refused(root)


# ---------------------------------------------------------------------------------------- without a YAML, and beside it


NOTES = '{"categories": [{"id": 0, "name": "red"}], "info": {"images": []}}'
STUDIO = {"classes.txt": "red\nblue\n", "images/a.png": None, "labels/a.txt": LINE, "notes.json": NOTES}


def test_label_studios_export(files):
    data = one_box(open_data(files(**STUDIO), "train"))
    assert (data.kind, data.class_names) == ("YOLO", ("red", "blue"))
    files(**{"data.yaml": "train: images\nval: images\nnames: [red, blue]\n"})
    assert splits(data.root) == {"train": 1, "val": 1}
    one_box(open_data(data.root, "val", strict=True))


def test_a_usable_yaml_counts_more_than_a_json(files):
    coco = '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}'
    root = files(**STUDIO, **{"result.json": coco, "data.yaml": "train: images\nnames: [red, blue]\n"})
    assert one_box(open_data(root, "train")).kind == "YOLO"
    (root / "labels/a.txt").unlink()  # a YAML that describes nothing here
    assert open_data(root, "result").kind == "COCO"


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"images/train/a.png": None, "labels/train/a.txt": LINE}, {"train": 1}),
        ({"train/images/a.png": None, "train/labels/a.txt": LINE, "test/images/b.png": None}, {"train": 1, "test": 1}),
        ({"train/a.png": None, "train/a.txt": LINE}, {"train": 1}),
        ({"train.txt": "x/a.png", "x/a.png": None, "x/a.txt": LINE}, {"train": 1}),
        ({"a.png": None, "a.txt": LINE}, {"images": 1}),
        ({"images/a.png": None, "labels/a.txt": LINE, "labels/classes.txt": "red"}, {"images": 1}),
    ],
)
def test_class_names_alone(files, lists, found):
    root = files(**({} if "labels/classes.txt" in lists else {"classes.txt": "\ufeffred\n\n"}), **lists)
    assert splits(root) == found
    assert one_box(open_data(root, "train")).class_names == ("red",)


@pytest.mark.parametrize(
    ("text", "message"), [("red\n\nblue", "line 2 is blank"), ("", "is empty"), ("red\nred\n", "both called 'red'")]
)
def test_lists_of_names_that_cannot_be_used(files, text, message):
    assert message in refused(files(**STUDIO | {"classes.txt": text}))


CVAT = {
    "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    "obj.names": "red\nblue\n",
    "train.txt": "data/obj_train_data/f0.png\n",
    "obj_train_data/f0.png": None,
    "obj_train_data/f0.txt": LINE,
}


def test_cvats_export(files):
    root = files(**CVAT)
    for place in (root, root / "obj.data"):
        data = one_box(open_data(place, "train"))
        assert data.class_names == ("red", "blue")
        assert kinds(data) == {"path written otherwise than on disk": (1, "repaired")}
    files(**{"data.yaml": "train: train.txt\nnames: [red, blue]\n"})
    one_box(open_data(root, "train"))
    (root / "obj_train_data/f0.png").unlink()
    message = refused(root)
    assert "data/obj_train_data/f0.png" in message
    assert str(root / "train.txt") in message
    assert "label file" not in message


def test_darknets_file_that_cannot_be_used(files):
    assert "has 2 names" in refused(files(**CVAT | {"obj.data": CVAT["obj.data"].replace("2", "3")}))
    assert "names = FILE" in refused(files(**{"obj.data": "train = train.txt\n"}))
    assert "no list of class names x" in refused(files(**{"obj.data": "train = train.txt\nnames = x\n"}))


# -------------------------------------------------------------------------------------------- paths of other machines


@pytest.mark.parametrize(
    ("row", "image"),
    [
        ("train\\images\\a.png", "train/images/a.png"),
        (".\\train\\images\\a.png", "train/images/a.png"),
        ("C:\\Users\\me\\data\\train\\images\\a.png", "train/images/a.png"),
        ("/home/me/data/train/images/a.png", "train/images/a.png"),
        ("../data/train/images/a.png", "train/images/a.png"),
        ("../train/images/a.png", "train/images/a.png"),
        ("train/images/my%20pic.png", "train/images/my pic.png"),
        ("train/images/100%.png", "train/images/100%.png"),
        ("train/images/a.PNG", "train/images/a.png"),
        ("Train/Images/A.png", "train/images/a.png"),
        (unicodedata.normalize("NFD", "train/images/é.png"), unicodedata.normalize("NFC", "train/images/é.png")),
        (unicodedata.normalize("NFC", "train/images/Ü.png"), unicodedata.normalize("NFD", "train/images/ü.png")),
    ],
)
def test_lists_written_otherwise(files, row, image):
    label = image.replace("images", "labels").replace(".png", ".txt")
    root = files(**{image: None, label: LINE, "train.txt": f"{row}\n", "data.yaml": "train: train.txt\nnames: [a]\n"})
    data = one_box(open_data(root, "train"))
    repaired = {} if row == image else {"path written otherwise than on disk": (1, "repaired")}
    assert kinds(data) == repaired
    assert data.path(0) == root / image


def test_two_files_that_a_row_may_mean_are_no_answer(files):
    root = files(
        **{f"train/images/{name}": None for name in ("a.png", "A.png", "b.png")},
        **{"train/labels/b.txt": LINE, "train.txt": "train/images/a.PNG\ntrain/images/b.png\n"},
        **{"data.yaml": "train: train.txt\nnames: [a]\n"},
    )
    data = one_box(open_data(root, "train"))
    assert kinds(data) == {"missing image": (1, "left out")}


def test_labels_are_not_taken_from_a_image_of_nearly_the_same_name(files):
    root = files(**{"train/images/a.png": None, "train/images/A.png": None, "train/labels/a.txt": LINE})
    files(**{"data.yaml": YAML})
    data = one_box(open_data(root, "train"))
    assert [len(data.boxes(i)) for i in range(2)] == [0, 1]
    assert not data.report.faults


@pytest.mark.parametrize(
    "entry", ["train\\images", "Train/Images", "../train/images", "./train/images", "data/train/images"]
)
def test_folders_written_otherwise(files, entry):
    root = files(**{"train/images/a.png": None, "train/labels/a.txt": LINE})
    files(**{"data.yaml": f"train: {entry}\nnames: [a]\n"})
    assert splits(root) == {"train": 1}
    one_box(open_data(root, "train"))


@pytest.mark.parametrize("path", ["", "path: .\n", "path: nowhere\n", "path: ../datasets/nowhere\n", "path: null\n"])
def test_a_path_that_is_missing_is_the_yamls_folder(files, path):
    root = files(**{"train/images/a.png": None, "train/labels/a.txt": LINE, "data.yaml": f"{path}{YAML}"})
    assert splits(root) == {"train": 1, "val": 0}
    one_box(open_data(root, "train"))


# -------------------------------------------------------------------------------- without a list of the class names


NUMBERED = "no classes.txt, obj.names or YAML names the classes: they are called by their numbers"


@pytest.mark.parametrize(
    ("pictures", "texts"),
    [
        ("images/{}", "labels/{}"),
        ("{}/images", "{}/labels"),
        ("{}", "{}"),
        ("images/{}2017", "labels/{}2017"),
        ("{}2017", "{}2017"),
    ],
)
@pytest.mark.parametrize("names", [None, "classes.txt", "obj.names", "in the folder of labels"])
def test_splits_without_a_yaml(real, tmp_path, pictures, texts, names):
    images = annotated(real("dice"), "val")
    classes = classes_of(images)
    for split, part in {"train": images[:3], "val": images[3:]}.items():
        for image in part:
            image.copy(tmp_path / pictures.format(split))
            put(tmp_path / texts.format(split) / f"{image.stem}.txt", yolo_label(image, classes))
        if names == "in the folder of labels":  # labelImg, with that folder as its save directory
            put(tmp_path / texts.format(split) / "classes.txt", "\n".join(classes))
    if names in ("classes.txt", "obj.names"):
        put(tmp_path / names, "\n".join(classes))
    for split, part in {"train": images[:3], "val": images[3:]}.items():
        data = open_data(tmp_path, split, strict=True)
        assert data.report.notes == ([] if names else [NUMBERED])
        if not names:
            numbers = sorted({str(classes.index(box[0])) for image in images for box in image.boxes}, key=int)
            assert data.class_names == tuple(numbers)
            part = [
                Annotated(image.path, image.size, [(str(classes.index(box[0])), *box[1:]) for box in image.boxes])
                for image in part
            ]
        require_same(data, part)


@pytest.mark.parametrize(("pictures", "texts"), [(".", "."), ("images", "labels"), ("Images", "Labels")])
def test_one_list_without_a_yaml(real, tmp_path, pictures, texts):
    images = annotated(real("dice"), "val")
    for image in images:
        image.copy(tmp_path / pictures)
        put(tmp_path / texts / f"{image.stem}.txt", yolo_label(image, classes_of(images)))
    data = open_data(tmp_path, "train", strict=pictures != "Images")
    assert NUMBERED in data.report.notes
    assert data.num_boxes == sum(len(image.boxes) for image in images)
    put(tmp_path / texts / "classes.txt", "\n".join(classes_of(images)))
    require_same(open_data(tmp_path, "train", strict=pictures != "Images"), images)


def test_lists_of_classes_that_differ(files):
    root = files(**{"train/images/a.png": None, "train/labels/a.txt": LINE, "train/labels/classes.txt": "red\n"})
    files(**{"val/images/a.png": None, "val/labels/a.txt": LINE, "val/labels/classes.txt": "blue\n"})
    assert "list different classes" in refused(root)


def test_texts_beside_images_that_are_no_labels(files):
    root = files(**{"a.png": None, "a.txt": "a photo of a cat\n"})
    assert "none of the known layouts" in refused(root)


def test_two_layouts_in_one_folder_are_named(real, tmp_path):
    (image,) = annotated(real("dice"), "val", 2)[:1]
    image.copy(tmp_path)
    put(tmp_path / f"{image.stem}.xml", voc_sheet(image))
    put(tmp_path / f"{image.stem}.txt", yolo_label(image, classes_of([image])))
    data = require_same(open_data(tmp_path, "train"), [image])
    assert data.kind == "Pascal VOC"
    assert f"{tmp_path} is read as Pascal VOC; it also has the layout of YOLO" in data.report.notes
