"""Hugging Face's detection data sets: Parquet as ``datasets`` writes it, and ImageFolder with metadata."""

import json
import sys
from importlib import import_module

import pytest
from PIL import Image

from helpers.annotated import annotated, classes_of, fault_counts, put, require_same
from retinanet.cli import main
from retinanet.data import open_data, splits

pyarrow = pytest.importorskip("pyarrow")
parquet = import_module("pyarrow.parquet")


@pytest.fixture
def images(real):
    return annotated(real("dice"), "val")


def row(image, number, classes, corners=False, as_list=False, text=False):
    height, width = image.size
    boxes = [[x1, y1, x2, y2] if corners else [x1, y1, x2 - x1, y2 - y1] for _, x1, y1, x2, y2 in image.boxes]
    category = [box[0] if text else classes.index(box[0]) for box in image.boxes]
    objects = {"id": list(range(len(boxes))), "area": [1.0] * len(boxes), "bbox": boxes, "category": category}
    if as_list:
        objects = [dict(zip(objects, values)) for values in zip(*objects.values())]
    return {"image_id": 100 + number, "width": width, "height": height, "objects": objects}


def features(classes, version):
    """The description that ``datasets`` 2 and 3 (Sequence) or 4 (List) put into the schema."""
    label = {"_type": "ClassLabel"} if classes is None else {"names": list(classes), "_type": "ClassLabel"}
    number = {"dtype": "int64", "_type": "Value"}
    inner = {"id": number, "area": number, "category": label}
    if version < 4:
        box = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}
        objects = {"feature": inner | {"bbox": box}, "_type": "Sequence"}
    else:
        box = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "List"}
        objects = {key: {"feature": each, "_type": "List"} for key, each in (inner | {"bbox": box}).items()}
    return {"image_id": number, "image": {"_type": "Image"}, "objects": objects}


def save(path, images, classes, version=3, described=True, with_bytes=True, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, image in enumerate(images):
        content = {"bytes": image.path.read_bytes() if with_bytes else None, "path": image.name}
        rows.append(
            {"image": content}
            | row(
                image,
                number,
                classes,
                as_list=options.get("as_list", False),
                corners=options.get("corners", False),
                text=options.get("text", False),
            )
        )
    table = pyarrow.Table.from_pylist(rows)
    if described:
        content = json.dumps({"info": {"features": features(classes, version)}})
        table = table.replace_schema_metadata({"huggingface": content})
    parquet.write_table(table, path, row_group_size=2)
    return path


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        ("train/0000.parquet", "validation/0000.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet"),
        ("train.parquet", "val.parquet"),
    ],
)
def test_parquet(images, tmp_path, version, as_list, train, val):
    classes = ["never", *reversed(classes_of(images))]
    save(tmp_path / train, images[:3], classes, version, as_list=as_list)
    save(tmp_path / val, images[3:], classes, version, as_list=as_list)
    assert sorted(splits(tmp_path).values()) == [2, 3]
    for split, part in (("train", images[:3]), ("val", images[3:])):
        data = open_data(tmp_path, split, strict=True)
        assert (data.kind, data.class_names) == ("Hugging Face", tuple(classes))
        assert [data.image_id(i) for i in range(len(data))] == [100 + i for i in range(len(part))]
        for i, image in enumerate(part):
            assert data.path(i).read_bytes() == image.path.read_bytes()
        stems = {image.stem: data.path(i).stem for i, image in enumerate(part)}
        require_same(data, part, rename=stems.get)


def test_several_shards(images, tmp_path):
    classes = classes_of(images)
    save(tmp_path / "data/train-00000-of-00002.parquet", images[:3], classes)
    save(tmp_path / "data/train-00001-of-00002.parquet", images[3:], classes)
    data = open_data(tmp_path, "train", strict=True)
    assert len(data) == 5
    assert data.num_boxes == sum(len(image.boxes) for image in images)
    assert main(["data", str(tmp_path), "--images", "0"]) in (0, 1)


def test_images_are_extracted_once(images, tmp_path):
    classes = classes_of(images)
    file = save(tmp_path / "data.parquet", images, classes)
    data = open_data(file, "train")
    before = [data.path(i).stat().st_mtime_ns for i in range(5)]
    again = open_data(tmp_path, "val")
    assert [again.path(i).stat().st_mtime_ns for i in range(5)] == before
    save(file, images[::-1], classes)
    changed = open_data(tmp_path, "train")
    assert changed.path(0).read_bytes() == images[-1].path.read_bytes()


def test_a_file_with_other_images_is_extracted_anew(images, tmp_path):
    """Also where an image has another format now: the old one is not read."""
    classes = classes_of(images)
    open_data(save(tmp_path / "data.parquet", images, classes), "train")
    for image in images:
        image.path = put(tmp_path / "png" / f"{image.stem}.png", b"")
        Image.new("RGB", image.size[::-1], (9, 9, 9)).save(image.path)
    data = open_data(save(tmp_path / "data.parquet", images[:4], classes), "train")
    assert [data.path(i).suffix for i in range(len(data))] == [".png"] * 4
    assert all(int(data.read(i).max()) == 9 for i in range(4))


def test_an_interrupted_extraction_is_repeated(images, tmp_path):
    file = save(tmp_path / "data.parquet", images, classes_of(images))
    data = open_data(file, "train")
    (data.path(0).parent / "complete.json").unlink()
    data.path(1).write_bytes(b"half")
    assert len(open_data(file, "train", strict=True)) == 5


def test_paths_instead_of_bytes(images, tmp_path):
    for image in images:
        image.copy(tmp_path / "photos")
    save(tmp_path / "train.parquet", images, classes_of(images), with_bytes=False)
    require_same(open_data(tmp_path, "train", strict=True), images)


def test_numbers_and_texts_as_classes(images, tmp_path):
    classes = classes_of(images)
    save(tmp_path / "numbers/train.parquet", images, classes, described=False)
    save(tmp_path / "texts/train.parquet", images, classes, described=False, text=True)
    numbers, texts = (open_data(tmp_path / name, "train", strict=True) for name in ("numbers", "texts"))
    used = sorted({classes.index(box[0]) for image in images for box in image.boxes})
    assert numbers.class_names == tuple(map(str, used))
    assert texts.class_names == tuple(classes)
    assert any("called by their numbers" in note for note in numbers.report.notes)
    assert numbers.annotations.boxes.tolist() == texts.annotations.boxes.tolist()


def test_corners(images, tmp_path):
    """As detection-datasets/coco has them."""
    classes = classes_of(images)
    save(tmp_path / "train.parquet", images, classes, corners=True)
    data = open_data(tmp_path, "train", strict=True)
    stems = {image.stem: data.path(i).stem for i, image in enumerate(images)}
    require_same(data, images, rename=stems.get)
    assert any("as x, y, w, h they leave the images" in note for note in data.report.notes)


def test_without_pyarrow(images, tmp_path, refused, monkeypatch):
    file = save(tmp_path / "train.parquet", images, classes_of(images))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert refused(tmp_path, "train") == f"{file} needs pyarrow.parquet: pip install 'retinanet[parquet]'"


def test_damaged_parquet(images, tmp_path, refused):
    file = save(tmp_path / "train.parquet", images, classes_of(images))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert f"{file} is not Parquet" in refused(tmp_path, "train")
    file.write_bytes(content[:1000] + bytes(5000) + content[6000:])
    assert str(file) in refused(tmp_path, "train")


# -------------------------------------------------------------------------------------------------------- ImageFolder


def metadata(images, classes, **options):
    return "".join(
        json.dumps({"file_name": image.name} | row(image, number, classes, **options)) + "\n"
        for number, image in enumerate(images)
    )


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("folders", ["{}", "data/{}"])
def test_image_folder(images, tmp_path, as_list, folders):
    classes = classes_of(images)
    for split, part in {"train": images[:3], "validation": images[3:]}.items():
        for image in part:
            image.copy(tmp_path / folders.format(split))
        text = metadata(part, classes, text=True, as_list=as_list)
        put(tmp_path / folders.format(split) / "metadata.jsonl", text)
    train, val = (open_data(tmp_path, split, strict=True) for split in ("train", "val"))
    require_same(train, images[:3])
    require_same(val, images[3:])
    assert (train.kind, train.class_names) == ("Hugging Face", tuple(classes))


def test_one_folder_and_a_table(images, tmp_path):
    """metadata.csv has the objects as text."""
    classes = classes_of(images)
    lines = ["file_name,objects"]
    for number, image in enumerate(images):
        image.copy(tmp_path)
        objects = row(image, number, classes, text=True)["objects"]
        written = json.dumps(objects) if number % 2 else str(objects)
        lines.append(f'{image.name},"{written.replace(chr(34), 2 * chr(34))}"')
    file = put(tmp_path / "metadata.csv", "\n".join(lines))
    for place in (tmp_path, file):
        require_same(open_data(place, "val", strict=True), images)


def test_faults_name_the_row(images, tmp_path, refused):
    images[0].copy(tmp_path)
    images[1].copy(tmp_path)
    rows = [
        {"file_name": images[0].name, "objects": {"bbox": [[1, 2, 3, 4], [1, 2, 3]], "category": ["a", "a"]}},
        {"file_name": images[1].name, "objects": {"bbox": [[1, 2, 3, 4]], "category": ["a", "b"]}},
        {"file_name": images[1].name, "objects": {"bbox": [[1, 2, 3, 4]], "category": ["a"]}},
        {"file_name": "../secret.jpg", "objects": {"bbox": [], "category": []}},
        {"file_name": "gone.jpg", "objects": {"bbox": [], "category": []}},
        {"objects": {"bbox": [], "category": []}},
    ]
    file = put(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    data = open_data(tmp_path, "train")
    assert data.boxes(0).tolist() == [[1, 2, 4, 6]]
    assert fault_counts(data) == {
        "malformed annotation": (2, "left out"),
        "image listed twice": (1, "left out"),
        "path outside the data set": (1, "left out"),
        "missing image": (1, "left out"),
        "malformed image entry": (1, "left out"),
    }
    assert "metadata.jsonl line 1 object 1" in data.report.lines()[0]
    file.write_text(json.dumps(rows[0]) + "\n{")
    assert f"{file} line 2 is not valid JSON" in refused(tmp_path, "train")
