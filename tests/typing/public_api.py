"""A user's program, for type checkers alone: it never runs. ``mypy --strict`` knows the type of everything here.

A line that ends in ``# wrong`` is a mistake that a type checker must find.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

import retinanet
from retinanet.data import DetectionData
from retinanet.evaluation.detector_evaluation import DetectorEvaluation
from retinanet.inference.detections import Detection
from retinanet.losses import sigmoid_focal_loss
from retinanet.ops.boxes import decode, encode, iou
from retinanet.ops.network_outputs import Outputs

# Loading
detector = retinanet.load("runs/mine", device="cpu", precision="fp32")
assert_type(detector, retinanet.Detector)
retinanet.load(Path("a.pth"), device=torch.device("cuda"))
retinanet.load("a.pth", device=0)
retinanet.load("a.pth", precision="int4")  # wrong
retinanet.lode("a.pth")  # wrong

# The detector
assert_type(detector.class_names, tuple[str, ...])
assert_type(detector.device, torch.device)
assert_type(detector.threshold, float | None)
assert_type(detector.assumed, tuple[str, ...])
assert_type(detector.to("cpu"), retinanet.Detector)
detector.save("a.safetensors")


# One image gives one result, several give several
def images() -> Iterator[Path]:
    yield Path("a.jpg")


def predict(array: NDArray[np.uint8], tensor: Tensor, image: Image) -> None:
    assert_type(detector.predict(array), retinanet.Detections)
    assert_type(detector.predict(tensor, threshold=0.5), retinanet.Detections)
    assert_type(detector.predict(image, max_detections=10, size=800), retinanet.Detections)
    assert_type(detector.predict(["a.jpg", image]), list[retinanet.Detections])
    assert_type(detector.predict((array, tensor), batch_size=2), list[retinanet.Detections])
    assert_type(detector.predict(images()), Iterator[retinanet.Detections])
    detector.predict(image, treshold=0.5)  # wrong
    detector.predict(image, threshold="high")  # wrong


# What was found
def use(found: retinanet.Detections) -> None:
    assert_type(found.boxes, Tensor)
    assert_type(found.scores, Tensor)
    assert_type(found.labels, Tensor)
    assert_type(found.class_names, tuple[str, ...])
    assert_type(found.names, list[str])
    assert_type(len(found), int)
    assert_type(found[0], Detection)
    assert_type(found[1:3], retinanet.Detections)
    assert_type(found[found.scores > 0.5], retinanet.Detections)
    assert_type(found.above(0.5), retinanet.Detections)
    assert_type(found.first(3), retinanet.Detections)
    assert_type(found.of("cat", "dog"), retinanet.Detections)
    assert_type(found.to_coco(7), list[dict[str, Any]])
    assert_type(found.to_dict(), dict[str, Any])
    assert_type(found.to_json(), str)
    assert_type(found.draw(), Image)
    assert_type(found.save("a.jpg"), Path)
    for one in found:
        assert_type(one, Detection)
        assert_type(one.score, float)
        assert_type(one.name, str)
    use(found.bboxes)  # wrong
    found.above("high")  # wrong


# Data sets
data = retinanet.open_data("shapes", "train")
assert_type(data, DetectionData)
assert_type(len(data), int)
assert_type(data.class_names, tuple[str, ...])
assert_type(data.boxes(0), NDArray[np.float32])
assert_type(data.labels(0), NDArray[np.int64])
assert_type(data.read(0), Tensor)

# The network and its losses
settings = retinanet.Settings()
model = retinanet.RetinaNet(settings.model, num_classes=3)
assert_type(model.outputs(torch.zeros(1, 3, 64, 64)), Outputs)
assert_type(sigmoid_focal_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)), Tensor)
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
assert_type(iou(boxes, boxes), Tensor)
assert_type(decode(encode(boxes, boxes), boxes), Tensor)
retinanet.RetinaNet(settings, 3)  # wrong

# Training, evaluation and export
result = retinanet.train("shapes", budget="15m", output="runs/mine", lr=1e-3)
assert_type(result, retinanet.TrainResult)
assert_type(result.detector, retinanet.Detector)
assert_type(result.metrics, dict[str, float])
assert_type(result.path, Path)
retinanet.train("shapes", progress="no")  # wrong
retinanet.train("shapes", anchors="all")  # wrong
evaluation = retinanet.evaluate(result.detector, data)
assert_type(evaluation, DetectorEvaluation)
assert_type(evaluation.metrics["AP"], float)
assert_type(evaluation.threshold, float)
assert_type(retinanet.export("runs/mine", "openvino"), Path)
retinanet.export("runs/mine", "tflite")  # wrong
