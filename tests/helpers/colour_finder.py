"""A detector without a network: it detects red, green and blue rectangles by their pixels."""

from typing import Any, ClassVar

import numpy as np
import torch

from retinanet.config.model_settings import ModelSettings
from retinanet.data.image_io import to_tensor
from retinanet.inference.detections import Detections


class ColourFinder:
    """Each connected patch of bright red, green or blue is an object; its box is exact.

    The smaller a patch, the higher its score, so that a piece of an object would win over the whole.
    """

    class_names = ("red", "green", "blue")
    settings = ModelSettings()
    threshold = None
    computes = "fp32"
    least_threshold = 0.0
    about: ClassVar[dict[str, Any]] = {}
    device = torch.device("cpu")

    def __init__(self, smallest: int = 1) -> None:
        self.smallest = smallest  # pixels; video codecs leave specks
        self.calls: list[int] = []

    def predict(self, images: Any, *, threshold=None, max_detections=None, size=None, batch_size=8, nms=None):
        if not isinstance(images, list | tuple):
            return self.predict([images], threshold=threshold, max_detections=max_detections)[0]
        self.calls.append(len(images))
        return [self._detect(to_tensor(image).numpy(), threshold or 0.0, max_detections) for image in images]

    def _detect(self, image: np.ndarray, threshold: float, limit: int | None) -> Detections:
        from scipy.ndimage import find_objects, label

        found = []
        bright = image > 128
        for channel in range(3):
            mask = bright[channel] & (bright.sum(axis=0, dtype=np.uint8) == 1)
            for rows, columns in find_objects(label(mask, np.ones((3, 3)))[0]) if mask.any() else ():
                box = columns.start, rows.start, columns.stop, rows.stop
                area = (box[2] - box[0]) * (box[3] - box[1])
                score = 0.5 + 0.49 / (1 + area / 1000)
                if score > threshold and area >= self.smallest:
                    found.append((score, channel, box))
        found.sort(key=lambda entry: -entry[0])
        scores, labels, boxes = zip(*found[:limit]) if found else ((), (), ())
        return Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(labels, dtype=torch.int64),
            self.class_names,
        )


def draw(shape: tuple[int, int], rectangles: list[tuple[int, tuple[int, int, int, int]]]) -> np.ndarray:
    """A black image (H, W, 3) with rectangles: (channel, (x1, y1, x2, y2))."""
    image = np.zeros((*shape, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in rectangles:
        image[y1:y2, x1:x2, channel] = 230
    return image
