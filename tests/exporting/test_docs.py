"""The commands that the pages on deployment show are run, one after the other as a reader would, on a small model."""

from __future__ import annotations

import copy
import json
import re
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import exported_models as models
from helpers.synthetic_data import sound, write
from retinanet.cli import main
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

DOCS = Path(__file__).parents[2] / "docs"
ELSEWHERE = ("camera", "://")  # what needs a camera or another host


def needs(module: str, extra: str) -> None:
    if find_spec(module) is None:  # importing openvino alone would already tell its makers
        pytest.skip(f"the extra [{extra}] is not installed")


def shown(page: str, language: str, starts: str) -> list[str]:
    """The lines of a page's blocks that begin so, without comments."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    found = [line for line in lines if line.startswith(starts)]
    assert found
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages take for granted: a trained model, images, a data set, and to be where they are."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    detector = models.make()
    detector.save(tmp_path / "runs" / "mine" / "best.safetensors")
    data = write(tmp_path / "DATA", "yolo", sound(train=12, val=4), detector.class_names)
    (tmp_path / "more").mkdir()
    for place, name in enumerate(("holiday", "images")):
        (tmp_path / name).mkdir()
        for source in sorted((data / "images" / "val").iterdir())[2 * place : 2 * place + 2]:
            Image.open(source).save(tmp_path / name / source.name)
            Image.open(source).save(tmp_path / "more" / f"{source.stem}.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)).save(tmp_path / "aerial.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exports of one page hold the same network, and tracing it takes up to ten seconds."""
    from retinanet.exporting.onnx import onnx_export
    from retinanet.exporting.openvino import openvino_export

    trace, convert = onnx_export.trace, openvino_export.convert
    traced: list[Any] = []
    converted: list[Any] = []

    def trace_once(network: RetinaNet) -> Any:
        traced.extend([] if traced else [trace(network)])
        return copy.deepcopy(traced[0])

    def convert_once(detector: Detector, openvino: Any) -> Any:
        converted.extend([] if converted else [convert(detector, openvino)])
        return converted[0].clone()

    monkeypatch.setattr(onnx_export, "trace", trace_once)
    monkeypatch.setattr(openvino_export, "convert", convert_once)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize(
    ("page", "module", "extra", "made"),
    [
        (
            "export",
            "onnxruntime",
            "onnx",
            ["runs/mine.onnx", "network.onnx", "mine.pt2", "repository/street/config.pbtxt"],
        ),
        ("openvino", "openvino", "openvino", ["mine-fp32", "mine-bf16", "mine-int8"]),
        ("predict", "av", "video", ["found/detections.json", "film/street.mp4", "runs/predict-4/street.jsonl"]),
    ],
)
def test_commands(page: str, module: str, extra: str, made: list[str], folder: Path) -> None:
    needs(module, extra)
    if page == "predict":
        from helpers.moving_images import make_video, moving

        needs("trackers", "video")
        make_video(folder / "street.mp4", list(moving(6)))
    for command in shown(page, "sh", "retinanet "):
        if not any(word in command for word in ELSEWHERE):
            assert main(shlex.split(command)[1:]) == 0, command
    assert [name for name in made if not (folder / name).exists()] == []


@pytest.mark.slow
def test_serving(folder: Path) -> None:
    """A server as the page starts it, asked as the page asks it, and stopped."""
    needs("fastapi", "serve")
    if which("curl") is None:
        pytest.skip("curl is not installed")
    for seed, name in enumerate(("a.jpg", "b.png")):
        Image.fromarray(models.make_image(64, 96, seed).permute(1, 2, 0).numpy()).save(name)
    (start,) = (line for line in shown("serve", "sh", "retinanet serve") if "--port 0" in line)
    server = subprocess.Popen([sys.executable, "-m", *shlex.split(start)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        assert server.stdout.readline().startswith("serving mine on http://127.0.0.1:")
        url = json.loads(Path("server.json").read_text(encoding="utf-8"))["url"]
        for line in shown("serve", "bash", "curl "):
            asked = subprocess.run(
                ["curl", "--silent", "--fail", *shlex.split(line.replace("http://127.0.0.1:8000", url))[1:]],
                capture_output=True,
                check=True,
            )
            entries = json.loads(asked.stdout)["images"]
            assert all(set(entry) == {"file", "width", "height", "detections"} for entry in entries)
            assert len(entries) == line.count("@")
        program = "".join(re.findall(r"^```text\n(import json.*?)^```$", (DOCS / "serve.md").read_text(), re.M | re.S))
        asked = subprocess.run(
            [sys.executable, "-c", program.replace("http://127.0.0.1:8000", url)], capture_output=True, check=True
        )
        assert re.fullmatch(rb"(class \d [\d.]+ \[.*\]\n)+", asked.stdout)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        server.stdout.close()
