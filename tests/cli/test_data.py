"""retinanet data: what a user reads of a data set, and what is written."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.synthetic_data import rectangles
from retinanet.cli import main
from retinanet.data import open_data, splits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return rectangles(tmp_path_factory.mktemp("data") / "tiny")


def test_what_is_there(data, capsys):
    assert main(["data", str(data)]) == 0
    printed = capsys.readouterr().out
    assert all("…" not in line or line.strip() == "…" for line in printed.splitlines()), (
        "the tables fit into a terminal"
    )
    for part in ("tiny (COCO)", "train", "val", "red", "green", "What RetinaNet will see of train",
                 "the paper's anchors cover", "the anchors here cover 100.0% of the boxes"):  # fmt: skip
        assert part in printed


def test_json(data, capsys):
    assert main(["data", str(data), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"data", "kind", "splits", "findings", "coverage", "choices"}
    assert result["splits"]["train"]["images"] == 10
    assert result["coverage"]["the anchors here"]["share"] == 1.0
    assert {"code", "severity", "split", "count", "text", "remedy", "examples"} == set(result["findings"][0])


@pytest.mark.slow
def test_a_leak_is_named_with_its_images_and_strict_exits_with_1(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "leaking")
    shutil.copy(data / "train" / "2.png", tmp_path / "leaking" / "val" / "2.png")
    annotations = [json.loads((data / "annotations" / f"instances_{s}.json").read_text()) for s in ("train", "val")]
    size = next(image for image in annotations[0]["images"] if image["id"] == 2)
    annotations[1]["images"] = [size if image["id"] == 2 else image for image in annotations[1]["images"]]
    annotations[1]["annotations"] = [a for a in annotations[1]["annotations"] if a["image_id"] != 2]
    path = tmp_path / "leaking" / "annotations" / "instances_val.json"
    path.write_text(json.dumps(annotations[1]))
    assert main(["data", str(tmp_path / "leaking")]) == 0
    printed = capsys.readouterr().out
    assert "error: splits.leak (val): 1 image" in printed
    assert "val/2.png = train/2.png" in printed
    assert main(["data", str(tmp_path / "leaking"), "--strict"]) == 1
    assert "--strict allows none" in capsys.readouterr().err
    assert main(["data", str(tmp_path / "leaking"), "--images", "0"]) == 0
    assert "splits.leak" not in capsys.readouterr().out


def test_anchors_that_cover_little_are_named_with_a_remedy(data, capsys):
    """A recipe's anchors are judged as they are."""
    large = ["--model.anchors.sizes", "128", "256", "--model.preprocessing.size", "64"]
    assert main(["data", str(data), *large]) == 0
    printed = capsys.readouterr().out
    assert "warning: the anchors cover 0.0% of the boxes" in printed
    assert "--anchors auto would cover 100.0%" in printed


@pytest.mark.slow
def test_page(data, tmp_path, capsys):
    page = tmp_path / "data.html"
    assert main(["data", str(data), "--report", str(page), "--quiet"]) == 0
    text = page.read_text()
    assert "green" in text
    assert "data:image/jpeg;base64," in text
    assert 'src="http' not in text


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
def test_convert(data, tmp_path, capsys, layout):
    assert main(["data", str(data), "--convert", layout, str(tmp_path / layout)]) == 0
    assert f"retinanet train {tmp_path / layout}" in capsys.readouterr().out
    for name in splits(data):
        assert open_data(tmp_path / layout, name).num_boxes == open_data(data, name).num_boxes


def test_split_what_has_no_splits(data, tmp_path, capsys):
    one = tmp_path / "one"
    shutil.copytree(data, one)
    shutil.rmtree(one / "val")
    (one / "annotations" / "instances_val.json").unlink()
    assert main(["data", str(one), "--convert", "yolo", str(tmp_path / "two"), "--split", "0.8"]) == 0
    assert splits(tmp_path / "two") == {"train": 8, "val": 2}
    assert "train: 8 images" in capsys.readouterr().out
    assert main(["data", str(one), "--convert", "yolo", str(tmp_path / "again"), "--split", "0.8"]) == 0
    names = [sorted(p.name for p in (tmp_path / n / "images" / "val").iterdir()) for n in ("two", "again")]
    assert names[0] == names[1], "the same seed gives the same splits"


def test_near_duplicates_stay_in_one_split(tmp_path, capsys):
    """Each image four times: as it is, a copy, and saved anew with noise."""
    random = np.random.default_rng(0)
    root = tmp_path / "video"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for scene in range(5):
        cells = random.integers(40, 216, (8, 8, 3)).repeat(12, 0).repeat(12, 1)
        for frame in range(4):
            noise = random.integers(-4, 5, cells.shape) if frame > 1 else 0
            Image.fromarray((cells + noise).astype(np.uint8)).save(root / f"images/{frame}-{scene}.png")
            (root / f"labels/{frame}-{scene}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "classes.txt").write_text("cell\n")
    command = ["data", str(root), "--split", "0.6", "--convert", "yolo"]
    assert main([*command, str(tmp_path / "parts")]) == 0
    assert "20 images are near-duplicates, in 5 groups" in capsys.readouterr().out
    scenes = [{p.stem[-1] for p in (tmp_path / "parts/images" / part).iterdir()} for part in ("train", "val")]
    assert list(map(len, scenes)) == [3, 2]
    assert not scenes[0] & scenes[1]
    assert main([*command, str(tmp_path / "single"), "--images", "0"]) == 0
    assert splits(tmp_path / "single") == {"train": 12, "val": 8}
    for path in root.glob("*/*-[1-4].*"):
        path.unlink()
    assert main([*command, str(tmp_path / "one")]) == 2
    assert "all 4 images" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--split", "0.8"], "--convert"),
        (["--convert", "yolo", "{out}", "--split", "0.8"], "splits train, val"),
        (["--convert", "yolo", "{data}"], "not empty"),
        (["--report", "x.txt"], ".html"),
        (["--report", "{out}/no/x.html"], "--report"),
        (["--images", "-1"], "--images"),
        (["--train.steps", "3"], "Unknown option"),
        (["--model.anchors.size", "3"], "Did you mean"),
    ],
)
def test_wrong_requests_are_one_line(data, tmp_path, capsys, arguments, fact):
    filled = [argument.format(out=tmp_path / "out", data=data) for argument in arguments]
    assert main(["data", str(data), *filled]) == 2
    error = capsys.readouterr().err.strip()
    assert fact in error
    assert "\n" not in error


def test_no_data(tmp_path, capsys):
    assert main(["data", str(tmp_path / "none")]) == 2
    assert "there is no data set" in capsys.readouterr().err
    assert main(["data", str(tmp_path)]) == 2
    assert "is an empty folder" in capsys.readouterr().err
