"""Detections that are equal up to rounding: the ones may come from a batch, the others from an image alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from retinanet.config.model_settings import PostprocessingSettings
from retinanet.exporting.detector_agreement import Agreement
from retinanet.inference.detections import Detections


def assert_agree(found: Detections, expected: Detections, settings: PostprocessingSettings) -> None:
    """The same, but for rounding in float32 and what it decides at a limit of ``settings``."""
    together = Agreement()
    together.add(found, expected, settings)
    assert together.good, together
    assert together.pixels < 0.01, together
    assert together.score < 1e-4, together


def from_coco(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Detections:
    """Detections of one image from its records in a COCO file whose category ids begin with 1."""
    x, y, w, h = torch.tensor([record["bbox"] for record in records]).reshape(-1, 4).unbind(dim=1)
    labels = [record["category_id"] - 1 for record in records]
    return _detections(torch.stack((x, y, x + w, y + h), dim=1), labels, records, names)


def from_reply(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Detections:
    """Detections of one image from what the server answers."""
    boxes = torch.tensor([entry["box"] for entry in entries]).reshape(-1, 4)
    return _detections(boxes, [entry["label"] for entry in entries], entries, names)


def _detections(
    boxes: torch.Tensor, labels: list[int], records: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Detections:
    scores = torch.tensor([record["score"] for record in records], dtype=torch.float32)
    return Detections(boxes, scores, torch.tensor(labels, dtype=torch.int64), tuple(names))
