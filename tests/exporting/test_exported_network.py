"""What is set of the network itself reaches exported files and the fused network: the order of colours, box weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import retinanet
from helpers import exported_models as models
from retinanet.common.errors import RequestError
from retinanet.exporting.detector_agreement import Agreement
from retinanet.exporting.exporter import export
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet


@pytest.fixture(scope="module")
def detector() -> Detector:
    """A network as Detectron2's can be."""
    plain = models.make()
    head = replace(plain.settings.head, box_weights=(10.0, 10.0, 5.0, 4.0))
    images = replace(plain.settings.preprocessing, channels="bgr", mean=(0.6, 0.5, 0.3), std=(0.2, 0.3, 0.4))
    model = RetinaNet(replace(plain.settings, head=head, preprocessing=images), 3)
    model.load_state_dict(plain.model.state_dict())
    with torch.no_grad():
        model.box_subnet.output.weight.mul_(7)
    return Detector(model, plain.class_names)


def test_what_the_settings_mean(detector: Detector) -> None:
    plain = RetinaNet(replace(detector.settings, head=models.make().settings.head), 3).eval()
    plain.load_state_dict(detector.model.state_dict())
    plain.settings = replace(plain.settings, preprocessing=replace(plain.settings.preprocessing, channels="rgb"))
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = detector.model(images), plain(images[:, [2, 1, 0]])
    weights = torch.tensor(detector.settings.head.box_weights)
    for a, b, c, d in zip(ours.logits, theirs.logits, ours.deltas, theirs.deltas):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(c * weights, d)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch"])
def test_exported(kind: Any, detector: Detector, tmp_path: Path) -> None:
    if kind != "torch":
        pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    place = tmp_path / {"onnx": "m.onnx", "openvino": "m", "torch": "m.pt2"}[kind]
    export(detector, kind, place)  # compares what was written with the model, or fails
    if kind != "torch":
        assert_same(retinanet.load(place), detector)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_agnostic_suppression_is_written_into_the_export(kind: Any, detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    place, image = tmp_path / ("m.onnx" if kind == "onnx" else "m"), models.make_image(50, 90)
    export(detector, kind, place, nms="agnostic")
    exported = retinanet.load(place)
    assert exported.settings.postprocessing.nms == "agnostic"
    assert detector.settings.postprocessing.nms == detector.model.settings.postprocessing.nms == "class"
    expected = detector.predict(image, nms="agnostic")
    for found in (exported.predict(image), exported.predict(image, nms="agnostic")):
        together = Agreement()
        together.add(found, expected, exported.settings.postprocessing)
        assert together.good
        assert together.detections > 20
    other = Agreement()
    other.add(expected, detector.predict(image), detector.settings.postprocessing)
    assert not other.good  # the two rules tell apart here
    if kind == "onnx":  # suppression is in the file
        with pytest.raises(RequestError, match=r'by itself, with nms "agnostic": .* export it with --nms class'):
            exported.predict(image, nms="class")
    else:
        assert exported.predict(image, nms="class").labels.tolist() == detector.predict(image).labels.tolist()


def test_fused(detector: Detector) -> None:
    fused = Detector(detector.model, detector.class_names)
    fused.fuse()
    assert_same(fused, detector)


def assert_same(found: Detector, expected: Detector) -> None:
    together = Agreement()
    for shape in ((50, 90), (128, 214)):
        image = models.make_image(*shape)
        together.add(found.predict(image), expected.predict(image), expected.settings.postprocessing)
    assert together.detections > 20
    assert together.others == 0
