"""The demonstration, shortened: few scenes and few seconds; everything else as users meet it."""

import json

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'retinanet[demo]'")

import retinanet
from retinanet.cli import demo_command, main
from retinanet.config import recipes
from retinanet.data import digits, open_data


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(demo_command, "SCENES", {"train": 6, "val": 3})


@pytest.mark.slow
def test_the_demo_leaves_scenes_a_detector_and_drawn_predictions(short, tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--output", str(folder), "--budget", "4s", "--json"]) == 0
    captured = capsys.readouterr()
    made = json.loads(captured.out)
    assert made["scenes"] == str(folder / "scenes")
    assert len(open_data(folder / "scenes", "train")) == 6
    assert made["steps"] >= 1
    assert [row["name"] for row in made["per_class"]] == list(digits.CLASSES)
    detector = retinanet.load(made["run"])
    assert detector.class_names == digits.CLASSES
    for name in ("validation.png", "metrics.csv", "settings.yaml"):
        assert (folder / "run" / name).stat().st_size > 0
    assert len(list((folder / "predictions").rglob("*.jpg"))) == 3
    assert "retinanet train DATA --budget 15m" in captured.err
    assert f"retinanet evaluate {folder}/run {folder}/scenes" in captured.err


def test_the_demo_leaves_a_folder_that_holds_something_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path} exists and is not empty" in line
    assert "--output" in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_mirrored_digits_are_not_digits():
    assert recipes.load(demo_command.RECIPE, None).data.augmentation.flip == 0
