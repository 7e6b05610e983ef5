"""What images and videos share: the detector with the options of one call, callbacks, and chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from retinanet.common.arguments import PredictOptions
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.inference.tiling import predict_sliced, shared_pixels
from retinanet.predict.inputs import Video

CHUNK_PIXELS = 64e6  # decoded pixels in memory at a time, some 200 MB, whatever the batch size
Item = TypeVar("Item")


@dataclass(frozen=True)
class Tiling:
    """Options of :func:`retinanet.inference.tiling.predict_sliced`, for small objects in large images.

    Raises:
        RequestError: a number is out of range.
    """

    slices: int = 640
    """Side of a tile in pixels of the image."""
    overlap: float = 0.2
    """Part of a tile that its neighbours share."""
    whole: bool = True
    """Whether to run on the whole image too, for objects larger than the overlap."""

    def __post_init__(self) -> None:
        shared_pixels(self.slices, self.overlap)


@dataclass
class Pace:
    """Progress in a video. At its end ``frames`` is ``total``."""

    video: Video
    frames: int
    total: int | None
    rate: float
    """Frames a second."""

    @property
    def seconds_left(self) -> float | None:
        return None if self.total is None or not self.rate else max(0, self.total - self.frames) / self.rate


@dataclass(frozen=True)
class Callbacks:
    """Functions that a long prediction calls."""

    stop: Callable[[], bool] = lambda: False
    """Called between batches and frames. Where it returns true, a video ends early and is complete so far, and images
    end with KeyboardInterrupt."""
    on_images: Callable[[int, int], None] = lambda done, total: None
    """Called with (images done, all images)."""
    on_tiles: Callable[[int, int], None] = lambda done, total: None
    """Called with (tiles done, all tiles of the image) for each image of several tiles."""
    on_frames: Callable[[Pace], None] = lambda pace: None
    """Called with the progress in a video."""
    on_problem: Callable[[str, str], None] = lambda file, reason: None
    """Called with (file, reason) for each image or video that cannot be read."""


@dataclass(frozen=True)
class Predictor:
    """A detector with the options of one call."""

    detector: Detector
    options: PredictOptions
    tiling: Tiling | None = None

    @property
    def threshold(self) -> float:
        own: float = self.detector.settings.postprocessing.threshold
        return own if self.options.threshold is None else self.options.threshold

    def predict(
        self,
        images: Sequence[Any],
        threshold: float | None = None,
        on_tiles: Callable[[int, int], None] | None = None,
    ) -> list[Detections]:
        """Detections of each image.

        Args:
            threshold: instead of the predictor's own.
            on_tiles: called with (tiles done, all tiles of the image).
        """
        options = asdict(self.options)
        if threshold is not None:
            options["threshold"] = threshold
        if self.tiling is None:
            return self.detector.predict(list(images), **options)
        tiling = self.tiling
        options |= {"whole": tiling.whole, "on_progress": on_tiles}
        return [predict_sliced(self.detector, image, tiling.slices, tiling.overlap, **options) for image in images]


def chunked(items: Iterable[Item], count: int, pixels: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Lists of ``count`` items, or of fewer where their pixels exceed ``CHUNK_PIXELS``."""
    chunk: list[Item] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += pixels(item)
        if len(chunk) == count or total > CHUNK_PIXELS:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk
