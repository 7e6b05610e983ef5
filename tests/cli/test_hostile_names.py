"""Names of files, classes and splits that a terminal, a spreadsheet or a list would obey, through the command line."""

import csv
import json
import os

import pytest
import yaml
from PIL import Image

from helpers.colour_finder import ColourFinder, draw
from helpers.hostile_names import NAMES, obeyed
from helpers.synthetic_data import bright_boxes
from retinanet.cli import main
from retinanet.data import open_data
from retinanet.inference.drawing import draw_boxes
from retinanet.inference.image_sheet import Row, sheet
from retinanet.predict.files import predict_files
from retinanet.predict.outputs import OutputOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A COCO data set in which everything that has a name has a hostile one."""
    root = bright_boxes(tmp_path_factory.mktemp("data") / "s\x1b[31m<et>[red]", ("train", "val"), NAMES)
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for number, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = 7 + number % len(NAMES)
        names = ("\x1b[31m\n\u202e", "=1+1", "\udcff\udcfe", "[red]:car:")
        for image, name in zip(content["images"], names):
            (root / split / image["file_name"]).rename(root / split / f"{name}.png")
            image["file_name"] = f"{name}.png"
        path.write_text(json.dumps(content))
    return root


def test_data_shows_names_and_obeys_none(data, tmp_path, capsys):
    assert (
        main(["data", str(data), "--report", str(tmp_path / "data.html"), "--json", str(tmp_path / "data.json")]) == 0
    )
    shown = "".join(capsys.readouterr())
    assert obeyed(shown) == set()
    for text in (r"s\x1b[31m<et>[red]", "[red]x[/red][/]", ":car:", r"\x1b]0;title\x07", "classes.unprintable"):
        assert text in shown
    result = json.loads((tmp_path / "data.json").read_text())
    assert result["data"] == str(data)
    assert obeyed((tmp_path / "data.html").read_text()) == set()


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_a_copy_keeps_names_as_they_are(data, tmp_path, capsys, layout):
    assert main(["data", str(data), "--convert", layout, str(tmp_path / "copy")]) == 0
    assert obeyed("".join(capsys.readouterr())) == set()
    copy, own = open_data(tmp_path / "copy", "train"), open_data(data, "train")
    assert copy.class_names == own.class_names
    assert copy.num_boxes == own.num_boxes == 8
    if layout == "yolo":
        text = (tmp_path / "copy" / "data.yaml").read_text()
        assert "\x1b" not in text
        assert yaml.safe_load(text)["names"] == list(own.class_names)


@pytest.mark.parametrize(
    "arguments", [["data", "no\x1b[31m\n\u202e"], ["evaluate", "no\x1b]0;x\x07", "no"], ["train", "x", "--no\x1b[2J"]]
)
def test_errors_show_what_was_typed(capsys, arguments):
    assert main([*arguments, "--debug"]) == 2
    assert obeyed("".join(capsys.readouterr())) == set()


class Hostile(ColourFinder):
    class_names = ("=1+1", "two\nlines\x1b[31m", "red")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """The result files of two images, and the folder they came from."""
    folder = tmp_path_factory.mktemp("images")
    image = Image.fromarray(draw((60, 80), [(0, (5, 5, 25, 25)), (1, (40, 10, 60, 40))]))
    for name in ("@x.png", "\x1b[31m\n\udcff.png"):
        image.save(folder / os.fsdecode(os.fsencode(name)))
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.mp4")
    here = os.getcwd()
    os.chdir(folder)
    try:
        made = predict_files(
            Hostile(), ["*.png", "*.mp4"], "found", outputs=OutputOptions(formats=("json", "csv", "yolo"))
        )
    finally:
        os.chdir(here)
    return folder, made


def test_pipes_are_not_waited_for(predicted):
    assert sorted(name for name, _ in predicted[1].unreadable) == ["pipe.mp4", "pipe.png"]
    assert all("a pipe" in reason for _, reason in predicted[1].unreadable)


def test_a_spreadsheet_calculates_nothing(predicted):
    folder, _ = predicted
    with open(folder / "found/detections.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} == {"'=1+1", "two\nlines\x1b[31m"}
    assert {row["image"] for row in rows} == {"./@x.png", "\x1b[31m\n\udcff.png"}
    assert all((folder / row["image"]).exists() for row in rows)
    assert all(value[0] not in "=+-@\t\r" for row in rows for value in row.values())


def test_json_and_lists_keep_their_form(predicted):
    folder, _ = predicted
    text = (folder / "found/detections.json").read_text()
    assert obeyed(text) == set()
    assert [one["name"] for one in json.loads(text)["categories"]] == list(Hostile.class_names)
    assert (folder / "found/classes.txt").read_text().splitlines() == ["=1+1", r"two\nlines\x1b[31m", "red"]


@pytest.mark.parametrize("name", [*NAMES, "x" * 2_000_000, "\u202e" * 10_000, "\ud800", "e" + "\u0301" * 1000])
def test_any_name_can_be_drawn(name):
    image = Image.new("RGB", (90, 70))
    assert draw_boxes(image, [[10, 10, 50, 50]], [name], [0.5]).size == (90, 70)
    sheet([Row(image, ([[10, 10, 50, 50]], [name]), ([], [], None), name)])
