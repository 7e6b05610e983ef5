"""``retinanet.evaluate`` and ``retinanet.export`` as a user calls them, against the commands and the parts below."""

import json

import numpy as np
import pytest
import torch

import retinanet
from helpers.synthetic_data import bright_boxes
from helpers.tiny_run import TINY
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.common.fields import from_plain
from retinanet.config.settings import Settings
from retinanet.data import open_data
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.runner import detect_all
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return bright_boxes(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(3)
    model = RetinaNet(from_plain(Settings, TINY).model, 2)
    torch.nn.init.normal_(model.class_subnet.output.weight, std=0.2)
    torch.nn.init.zeros_(model.class_subnet.output.bias)
    return Detector(model, ("dog", "cat"))


def test_numbers_are_those_of_the_parts_below(detector, data):
    """The detector has the classes in another order than the data set."""
    result = retinanet.evaluate(detector, data, progress=False)
    images = open_data(data, "val", class_names=detector.class_names)
    detections = detect_all(detector, images)
    expected = coco_metrics.evaluate(images, detections)
    assert result.metrics == expected.stats
    assert result.per_class == [each.row() for each in expected.per_class]
    assert set(result.detections) == set(range(4))
    assert 0 <= result.threshold <= 1
    assert result.intervals == {}
    opened = retinanet.evaluate(detector, open_data(data, "val"), progress=False)  # cat, dog
    assert opened.metrics == pytest.approx(expected.stats)
    assert {row["name"]: row["AP"] for row in opened.per_class} == pytest.approx(
        {row["name"]: row["AP"] for row in result.per_class}
    )
    assert "AP" in repr(result)
    assert "<table>" in result._repr_html_()


def test_the_same_as_the_command(detector, data, tmp_path, capsys):
    detector.save(tmp_path / "model.safetensors")
    model = str(tmp_path / "model.safetensors")
    arguments = ["--resamples", "20", "--precision", "fp32", "--json", str(tmp_path / "result.json"), "-q"]
    assert main(["evaluate", model, str(data), "--split", "train", *arguments]) == 0
    command = json.loads((tmp_path / "result.json").read_text())
    result = retinanet.evaluate(model, data, "train", resamples=20, precision="fp32", progress=False)
    assert result.metrics == command["stats"]
    assert result.per_class == command["per_class"]
    assert result.threshold == command["threshold"]
    assert result.thresholds == command["thresholds"]
    assert result.intervals["AP"].low == pytest.approx(command["intervals"]["AP"]["low"], nan_ok=True)
    assert capsys.readouterr().out == ""


def test_progress_can_be_seen(detector, data, capfd):
    retinanet.evaluate(detector, data)
    assert "split val (COCO): 4 images" in capfd.readouterr().err
    retinanet.evaluate(detector, data, progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"data": 3}, "data must be a path"),
        ({"data": "nowhere"}, "there is no data set nowhere"),
        ({"split": "nothing"}, "nothing"),
        ({"split": None}, "split must be the name of one"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"resamples": 1.5}, "resamples must be a whole number"),
        ({"threshold": 2}, "threshold"),
        ({"device": "cpu"}, "detector.to(device)"),
    ],
)
def test_wrong_arguments(detector, data, arguments, fact):
    with pytest.raises(RequestError) as caught:
        retinanet.evaluate(**({"model": detector, "data": data, "progress": False} | arguments))
    assert fact in str(caught.value)


def test_data_opened_with_other_classes(detector, tmp_path):
    other = open_data(bright_boxes(tmp_path / "other", names=("cat", "horse")), "val")
    with pytest.raises(RequestError, match=r"class_names=detector\.class_names"):
        retinanet.evaluate(detector, other, progress=False)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"output": 3}, "output must be a path, not 3"),
        ({"output": "a\0.onnx"}, "null byte"),
        ({"calibrate": 3}, "calibrate must be a path"),
        ({"check": 3}, "check must be a list"),
        ({"check": ["a.jpg"]}, "image 0 of check must be"),
        ({"check": [torch.zeros(3, 9, 9)]}, "not torch.float32 (3, 9, 9)"),
    ],
)
def test_wrong_arguments_of_export(detector, arguments, fact, tmp_path):
    with pytest.raises(RequestError) as caught:
        retinanet.export(**({"model": detector, "output": tmp_path / "made.onnx", "progress": False} | arguments))
    assert fact in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_export_beside_the_model_and_of_a_detector(detector, tmp_path, monkeypatch, capfd):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    detector.save("mine.safetensors")
    path = retinanet.export("mine.safetensors", progress=False)
    assert str(path) == "mine.onnx"
    assert capfd.readouterr() == ("", "")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    ours, theirs = (each.predict(image, threshold=0.1, max_detections=5) for each in (detector, retinanet.load(path)))
    torch.testing.assert_close(theirs.boxes, ours.boxes, atol=0.1, rtol=0)
    assert theirs.names == ours.names
    assert len(ours) > 0
    other = retinanet.export(detector, output=tmp_path / "other.onnx", nms="agnostic", progress=False)
    assert retinanet.load(other).settings.postprocessing.nms == "agnostic"
    assert detector.settings.postprocessing.nms == "class"
    with pytest.raises(RequestError, match="exists"):
        retinanet.export("mine.safetensors", progress=False)
    with pytest.raises(RequestError, match="format must be one of"):
        retinanet.export(detector, "tflite", progress=False)
    with pytest.raises(RequestError, match="is an exported one"):
        retinanet.export(retinanet.load(path), output=tmp_path / "again.onnx", progress=False)
