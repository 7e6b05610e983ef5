"""A detector over a data set, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray

from retinanet.common.arguments import PredictOptions
from retinanet.inference.detections import Detections

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detector import Detector

Plain = tuple[int, NDArray, NDArray, NDArray]  # image, boxes, scores, labels


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
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, Detections]:
    """Detections in every image of a data set.

    With ``world`` processes each takes every ``world``-th image, none is taken twice, and all processes get the
    whole result; every one of them must call this (``torch.distributed`` is initialised already).

    Args:
        batch_size: images of one call of the network, in each process.
        indices: the images of ``data`` to look at; all by default.
        workers: processes that load images, for each process here.
        rank, world: which process this is, and of how many.
        threshold: scores at or below it are dropped; the model's own setting by default.
        on_progress: called with (images done, images in all), both of this process.

    Returns:
        Place in ``data`` -> detections, boxes in pixels of ``data.read``, in the order of ``indices``.
    """
    from retinanet.data.loader import eval_batches

    chosen = list(range(len(data))) if indices is None else list(dict.fromkeys(int(i) for i in indices))
    mine = chosen[rank::world]
    options = PredictOptions(threshold)
    detector.require(options)
    found: dict[int, Detections] = {}

    def results() -> Iterator[tuple[Sequence[int], list[Detections]]]:
        for batch in eval_batches(data, detector.preprocessing, mine, batch_size, workers) if mine else ():
            yield batch.indices, detector.detect(batch, options)

    for places, detections in results():
        found.update(zip(places, detections, strict=True))
        if on_progress:
            on_progress(len(found), len(mine))
    if world > 1:
        found = gather(found, world, detector.class_names)
    return {index: found[index] for index in chosen}


def gather(found: dict[int, Detections], world: int, class_names: tuple[str, ...]) -> dict[int, Detections]:
    """What all processes found; arrays travel instead of tensors, which torch would share through file handles."""
    import torch.distributed as dist

    mine: list[Plain] = [(i, d.boxes.numpy(), d.scores.numpy(), d.labels.numpy()) for i, d in found.items()]
    parts: list[list[Plain] | None] = [None] * world
    dist.all_gather_object(parts, mine)
    return {
        index: Detections(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), class_names)
        for part in parts
        for index, boxes, scores, labels in part or ()
    }
