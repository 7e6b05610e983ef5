"""The detections of one image: the result type of everything that predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from retinanet.common.arguments import real, whole
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class Detections:
    """Objects found in one image, the highest-scoring first.

    Attributes:
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the image as it was given.
        scores: (n,) float32 in 0..1, descending.
        labels: (n,) int64, indices into ``class_names``.
        class_names: one name a class of the detector.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def above(self, threshold: float) -> Detections:
        """The detections with a score above ``threshold``, in [0, 1]: a threshold of 1 leaves none.

        Raises:
            RequestError: it is no number, or out of that range.
        """
        if not 0 <= (value := real("threshold", threshold)) <= 1:
            raise RequestError(f"threshold must be in [0, 1], not {value}")
        keep = self.scores > value
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], self.class_names)

    def first(self, count: int) -> Detections:
        """The ``count`` highest-scoring detections, or as many as there are.

        Raises:
            RequestError: it is no whole number, or negative.
        """
        count = whole("count", count, least=0)
        return Detections(self.boxes[:count], self.scores[:count], self.labels[:count], self.class_names)

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | Mapping[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """COCO's result format.

        Args:
            image_id: of the image.
            category_ids: the category id of each label, such as ``DetectionData.category_ids``; the label itself by
                default.

        Returns:
            One dict a detection: image_id, category_id, bbox [x, y, width, height] in pixels, score.
        """
        boxes = self.boxes.double()
        return [
            {
                "image_id": image_id,
                "category_id": label if category_ids is None else category_ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(
                boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """A ``supervision.Detections``, with the names under ``data["class_name"]``, for trackers and annotators.

        Raises:
            RequestError: the package supervision is not installed.
        """
        import numpy as np

        try:
            import supervision
        except ImportError:
            raise RequestError(
                "to_supervision needs the package supervision, which is not installed: pip install supervision"
            ) from None
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy().astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def draw(self, image: Any, numbers: Sequence[int | None] | None = None) -> Image:
        """A copy of the image with the detections drawn in it.

        Args:
            image: a path, a PIL image, an RGB array (H, W, 3) uint8 or a tensor (3, H, W) uint8: the image that
                the detections were found in.
            numbers: of objects that are followed through a video; None for one without.
        """
        from retinanet.inference.drawing import draw_boxes

        return draw_boxes(image, self.boxes, self.names, self.scores, class_names=self.class_names, numbers=numbers)
