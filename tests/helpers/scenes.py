"""Images of a few boxes and detections, written by hand or drawn by hypothesis, and a plain reference for matching."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from retinanet.inference.detections import Detections

NAMES = ("a", "b", "c")


class Scenes:
    """As much of a data set as evaluation needs: of each image (label, x1, y1, x2, y2, crowd) for every box."""

    def __init__(self, truth, names=NAMES):
        self.truth, self.class_names = truth, names

    def __len__(self):
        return len(self.truth)

    def boxes(self, i):
        return np.array([row[1:5] for row in self.truth[i]], np.float32).reshape(-1, 4)

    def labels(self, i):
        return np.array([row[0] for row in self.truth[i]], np.int64)

    def crowd(self, i):
        return np.array([row[5] for row in self.truth[i]], bool)

    def areas(self, i):
        boxes = self.boxes(i).astype(np.float64)
        return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def detections(rows, names=NAMES):
    """(label, x1, y1, x2, y2, score) for every detection."""
    rows = sorted(rows, key=lambda row: -row[5])
    boxes = torch.tensor([row[1:5] for row in rows], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([row[5] for row in rows], dtype=torch.float32)
    return Detections(boxes, scores, torch.tensor([row[0] for row in rows], dtype=torch.int64), names)


def scene(*images, names=NAMES):
    """Of each image its boxes and its detections -> data, found."""
    data = Scenes([[(*row, False)[:6] for row in truth] for truth, _ in images], names)
    return data, {i: detections(rows, names) for i, (_, rows) in enumerate(images) if rows is not None}


@st.composite
def scenes(draw, classes=3):
    """Few places, sizes and scores, so that boxes overlap in every way, and overlaps and scores are often equal."""

    def box():
        x, y = draw(st.integers(0, 8)), draw(st.integers(0, 8))
        return x, y, x + draw(st.sampled_from((4, 6, 8))), y + draw(st.sampled_from((4, 8)))

    label, score = st.integers(0, classes - 1), st.integers(1, 16).map(lambda n: n / 16)
    images = []
    for _ in range(draw(st.integers(0, 3))):
        truth = [(draw(label), *box(), draw(st.integers(0, 4)) == 0) for _ in range(draw(st.integers(0, 4)))]
        rows = [(draw(label), *box(), draw(score)) for _ in range(draw(st.integers(0, 6)))]
        images.append((truth, rows if rows or draw(st.booleans()) else None))
    return scene(*images, names=NAMES[:classes])


def matched_by_hand(data, found, iou):
    """The plain definition of matching: of every detection (image, label, score, right, ignored), class by class.

    It shares no code with what is tested: one loop over detections, one over boxes.
    """
    rows = []
    for index, truth in enumerate(data.truth):
        image = found.get(index)
        columns = (image.labels, image.boxes, image.scores) if image else ()
        taken = set()
        for label, box, score in zip(*(column.tolist() for column in columns)):
            best, right, ignored = min(iou, 1 - 1e-10), None, False
            for j, (its_label, *corners, crowd) in enumerate(truth):
                overlap = overlap_by_hand(box, corners, crowd) if its_label == label else 0
                if crowd:
                    ignored |= overlap >= min(iou, 1 - 1e-10)
                elif j not in taken and overlap >= best:
                    best, right = overlap, j
            taken.add(right)
            rows.append((index, label, score, right is not None, ignored and right is None))
    return rows


def overlap_by_hand(box, other, crowd):
    width, height = (max(min(box[2 + k], other[2 + k]) - max(box[k], other[k]), 0) for k in (0, 1))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, other)]
    return width * height / (areas[0] if crowd else sum(areas) - width * height)
