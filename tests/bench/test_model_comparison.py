"""Several models side by side."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import retinanet
from helpers.random_weights import scatter
from helpers.tiny_run import tiny
from retinanet.bench import model_comparison
from retinanet.cli import main
from retinanet.data.dataset import evenly
from retinanet.exporting.box_recall import recall_counts
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

NAMES = ("red", "green")


def make(names: tuple[str, ...] = NAMES, size: int = 64) -> Detector:
    torch.manual_seed(0)
    settings = tiny().model
    settings = dataclasses.replace(settings, preprocessing=dataclasses.replace(settings.preprocessing, size=size))
    model = RetinaNet(settings, len(names))
    scatter(model, 0.15, None, -2.0)
    return Detector(model, names)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same model twice, and one that looks at larger images."""
    folder = tmp_path_factory.mktemp("models")
    made = {"a": make(), "b": make(), "larger": make(size=96)}
    for name, detector in made.items():
        detector.save(folder / f"{name}.safetensors")
    return [str(folder / f"{name}.safetensors") for name in made]


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def load(source: str) -> Detector:
    return retinanet.load(source, "cpu", "fp32")


def test_rows(files: list[str]) -> None:
    said: list[tuple[int, int]] = []
    rows = model_comparison.compare(files, [image(64, 80), image(70, 64, 1)], load, 3, lambda *done: said.append(done))
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
    first, same, larger = (row.row() for row in rows)
    assert [row["model"] for row in (first, same, larger)] == files
    assert all(len(row.seconds) == 6 for row in rows)  # three rounds of two images
    assert first["boxes_of_first"] > 0
    assert first["agreement"] == same["agreement"] == 1.0
    assert larger["boxes_of_first"] == first["boxes_of_first"]
    assert larger["agreement"] < 1.0
    for row in (first, same, larger):
        assert row["kind"] == "PyTorch fp32"
        assert row["bytes"] == Path(row["model"]).stat().st_size
        assert 0 < row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
        assert row["images_per_second"] == pytest.approx(1 / row["seconds"])
        assert row["load_seconds"] > 0


def detections(boxes: list[list[float]], scores: list[float], labels: list[int], names=NAMES) -> Detections:
    return Detections(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(scores), torch.tensor(labels), names)


def test_found_again() -> None:
    first = detections([[0, 0, 100, 100], [50, 50, 90, 90], [0, 0, 10, 10]], [0.9, 0.5, 0.3], [0, 1, 0])
    assert recall_counts(first, first) == (2, 2)  # a score of just 0.3 is not above it
    moved = detections([[0, 0, 100, 95], [50, 50, 90, 85], [0, 0, 10, 10]], [0.9, 0.5, 0.3], [0, 1, 0])
    assert recall_counts(first, moved) == (2, 1)  # IoU 0.95 and 0.875
    turned = detections([[0, 0, 100, 100], [50, 50, 90, 90]], [0.1, 0.5], [1, 1], ("green", "red"))
    assert recall_counts(first, turned) == (2, 1)  # the same names under other numbers
    nothing = detections([], [], [])
    assert recall_counts(first, nothing) == (2, 0)
    assert recall_counts(nothing, first) == (0, 0)
    empty = detections([[5, 5, 5, 9]], [0.9], [0])
    assert recall_counts(empty, empty) == (0, 0)


def test_an_agreement_of_nothing_is_none() -> None:
    row = model_comparison.Row("m", "PyTorch fp32", 1, 0.1, [0.2])
    assert row.row()["agreement"] is None


def test_some() -> None:
    paths = [Path(str(i)) for i in range(100)]
    assert evenly(paths[:5], 12) == paths[:5]
    assert len(set(evenly(paths, 12))) == 12


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is not installed")
def test_an_openvino_folder(files: list[str], tmp_path: Path) -> None:
    from retinanet.exporting.openvino import openvino_export

    openvino_export.write(load(files[0]), tmp_path / "m")

    rows = model_comparison.compare([files[0], str(tmp_path / "m")], [image(64, 80)], load, 1)
    assert rows[1].kind == "OpenVINO fp32"
    assert rows[1].bytes == sum(path.stat().st_size for path in (tmp_path / "m").iterdir())
    assert rows[1].agreement == 1.0


def test_the_command(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(3):
        Image.fromarray(image(64, 80, seed).permute(1, 2, 0).numpy()).save(tmp_path / f"images/{seed}.png")
    command = ["bench", *files[::2], "--rounds", "2", "--images", str(tmp_path / "images"), "--device", "cpu"]
    assert main([*command, "--json", str(tmp_path / "result.json")]) == 0
    said = capsys.readouterr().out
    assert "3 images (80 x 64)" in said
    assert said.count("100.0 %") == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["model"] for row in result["models"]] == files[::2]
    assert result["rounds"] == 2
    assert len(result["images"]) == 3
    assert np.isfinite([row["seconds"] for row in result["models"]]).all()


def test_made_images(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", files[0], "--rounds", "1", "--device", "cpu", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"] == []
    assert "2 images (480 x 640, 640 x 480)" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "."], "--images is for comparing models"),
        (["--device", "cpu"], "--device is for comparing models"),
        (["{model}", "--images", "nowhere"], "there is no such folder"),
        (["{model}", "--images", "{empty}"], "there is no image in it"),
        (["{model}", "nowhere.safetensors"], "there is no model nowhere.safetensors"),
        (["{model}", "--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_wrong_requests(
    files: list[str], tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *(a.format(model=files[0], empty=tmp_path) for a in arguments)]) == 2
    assert message in capsys.readouterr().err
