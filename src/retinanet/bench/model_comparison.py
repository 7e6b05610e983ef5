"""Several files of one model, or several models, side by side on this machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from retinanet.bench.torchvision_bench import frozen_heap
from retinanet.checkpoints.fetch import find
from retinanet.exporting.box_recall import recall_counts
from retinanet.exporting.openvino import openvino_runtime
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector

MOST = 12
"""The most images that are used, evenly spread over those that are given."""


@dataclass
class Row:
    """Measurements of one model."""

    model: str
    kind: str
    """The runtime and precision, such as "OpenVINO int8"."""
    bytes: int
    """On disk."""
    load_seconds: float
    seconds: list[float] = field(default_factory=list)
    """Of each image and round, from pixels to boxes, one image at a time."""
    wanted: int = 0
    """Boxes of the first model above ``box_recall.SCORE``..."""
    found: int = 0
    """...and how many of them this model has too."""

    @property
    def agreement(self) -> float | None:
        return self.found / self.wanted if self.wanted else None

    def row(self) -> dict[str, Any]:
        median = statistics.median(self.seconds)
        return {
            "model": self.model,
            "kind": self.kind,
            "bytes": self.bytes,
            "load_seconds": self.load_seconds,
            "seconds": median,
            "seconds_low": min(self.seconds),
            "seconds_high": max(self.seconds),
            "images_per_second": 1 / median,
            "boxes_of_first": self.wanted,
            "found_again": self.found,
            "agreement": self.agreement,
        }


def compare(
    models: Sequence[str],
    images: Sequence[Tensor],
    load: Callable[[str], Detector],
    rounds: int = 5,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Load all models, then predict every image with each in turn, ``rounds`` times after one that is not counted.

    Args:
        models: whatever ``load`` takes.
        images: (3, H, W) uint8.
        load: such as :func:`retinanet.load`.
        on_progress: called with (rounds done, rounds in all).
    """
    import timm  # noqa: F401 (its import takes seconds, which are not to count for the first checkpoint)

    rows, detectors = [], []
    for model in models:
        begin = time.perf_counter()
        detector = load(model)
        rows.append(Row(model, kind_of(model, detector), size_on_disk(model), time.perf_counter() - begin))
        detectors.append(detector)
    with frozen_heap():
        for number in range(rounds + 1):
            for image in images:
                first: Detections | None = None
                for row, detector in zip(rows, detectors):
                    gc.collect()
                    begin = time.perf_counter()
                    (found,) = detector.detect_each([image])
                    seconds = time.perf_counter() - begin
                    first = found if first is None else first
                    if number:
                        row.seconds.append(seconds)
                    else:  # the first round warms up, and its boxes are compared
                        wanted, recalled = recall_counts(first, found)
                        row.wanted, row.found = row.wanted + wanted, row.found + recalled
            if on_progress:
                on_progress(number + 1, rounds + 1)
    return rows


def kind_of(model: str, detector: Detector) -> str:
    path = Path(model)
    if openvino_runtime.recognises(path):
        return f"OpenVINO {openvino_runtime.read_about(openvino_runtime.folder_of(path))[3]}"
    if path.suffix.lower() == ".onnx":
        return "ONNX Runtime"
    precision = getattr(detector, "precision", "")
    return f"PyTorch {precision}".rstrip()


def size_on_disk(model: str) -> int:
    """Bytes of a model's file, or of the files in an OpenVINO folder."""
    path = Path(model)
    if openvino_runtime.recognises(path):
        folder = openvino_runtime.folder_of(path)
        return sum(
            (folder / name).stat().st_size
            for name in (openvino_runtime.NETWORK, openvino_runtime.WEIGHTS, openvino_runtime.ABOUT)
        )
    return find(model).stat().st_size
