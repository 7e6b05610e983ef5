"""A detector over a data set, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from numpy.typing import NDArray

from retinanet.common.arguments import Nms, PredictOptions
from retinanet.data.loader import eval_batches
from retinanet.inference.detections import Detections

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detector import Detector

Arrays = tuple[int, NDArray, NDArray, NDArray]
"""Image index, boxes, scores, labels."""


def detect_all(
    detector: Detector,
    data: DetectionData,
    *,
    batch_size: int = 8,
    indices: Sequence[int] | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    threshold: float | None = None,
    nms: Nms | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, Detections]:
    """Detections in every image of a data set.

    With ``world`` processes each process takes every ``world``-th image, and all processes get the whole result. Every
    process must call this function, after ``torch.distributed`` is initialised.

    Args:
        batch_size: images of one forward pass, in each process.
        indices: the images of ``data`` to run on; all by default.
        workers: subprocesses that load images, for each process.
        rank, world: the number of this process, and how many there are.
        threshold: drop detections with this score or a lower one; the model's own setting by default.
        nms: "class" or "agnostic", see :meth:`Detector.predict`.
        on_progress: called with (images done, all images), both of this process.

    Returns:
        Image index in ``data`` -> detections, boxes in pixels of ``data.read``, in the order of ``indices``.
    """
    chosen = list(range(len(data))) if indices is None else list(dict.fromkeys(int(i) for i in indices))
    share = chosen[rank::world]
    options = PredictOptions(threshold, nms=nms)
    detector.require(options)
    detections: dict[int, Detections] = {}

    def batches() -> Iterator[tuple[Sequence[int], list[Detections]]]:
        for batch in eval_batches(data, detector.preprocessing, share, batch_size, workers) if share else ():
            yield batch.indices, detector.detect(batch, options)

    for batch_indices, results in batches():
        detections.update(zip(batch_indices, results, strict=True))
        if on_progress:
            on_progress(len(detections), len(share))
    if world > 1:
        detections = gather(detections, world, detector.class_names)
    return {index: detections[index] for index in chosen}


def gather(detections: dict[int, Detections], world: int, class_names: tuple[str, ...]) -> dict[int, Detections]:
    """The detections of all processes. Arrays are sent, because torch would share tensors through file handles."""
    share: list[Arrays] = [(i, d.boxes.numpy(), d.scores.numpy(), d.labels.numpy()) for i, d in detections.items()]
    shares: list[list[Arrays]] = [[]] * world
    dist.all_gather_object(shares, share)
    return {
        index: Detections(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), class_names)
        for each in shares
        for index, boxes, scores, labels in each
    }
