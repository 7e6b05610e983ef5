"""The queue before the detector: batches, slots, dropped images, and the end."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from typing import Any

import pytest
import torch

from helpers import exported_models as models
from helpers.serving import Gated, small_detector, until
from retinanet.serve.batching import Batcher, Closed, Dropped, Full, ModelFailed, QueueOptions
from retinanet.serve.limits import Allocation, MemoryPool, Refused


def image(seed: int, height: int = 64, width: int = 96) -> Any:
    return models.make_image(height, width, seed)


@pytest.mark.parametrize("nms", [None, "agnostic"])
def test_each_request_gets_the_detections_of_a_batch_of_its_own(nms: str | None) -> None:
    """One batch, many thresholds and limits: the detections are those of single calls."""
    detector, sizes = small_detector(), []
    options = [(0.05, 100), (0.5, 100), (0.5, 3), (0.9, 1000), (0.0, 7), (0.3, 1)]
    images = [image(seed, 64, 96 - 8 * (seed % 2)) for seed in range(len(options))]
    alone = [detector.predict(p, threshold=t, max_detections=m, nms=nms) for p, (t, m) in zip(images, options)]
    batcher = Batcher(detector, QueueOptions(batch_size=len(options), wait=0, nms=nms), on_batch=sizes.append)
    with batcher.reserve(len(options)) as slots:
        futures = [slots.put(p, t, m) for p, (t, m) in zip(images, options)]
        batcher.start()
        found = [future.result(30) for future in futures]
    assert sizes == [len(options)]
    assert [len(f) for f in found] == [len(a) for a in alone]
    assert len({len(f) for f in found}) > 3
    for a, b in zip(alone, found):
        assert a.labels.tolist() == b.labels.tolist()
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
    assert batcher.close(10)


def test_images_that_arrive_during_a_batch_are_the_next_batch() -> None:
    detector = Gated()
    batcher = Batcher(detector, QueueOptions(batch_size=4, wait=0))
    batcher.start()
    with batcher.reserve(7) as slots:
        first = slots.put(image(0), 0.3, 100)
        assert detector.begun.acquire(timeout=10)
        rest = [slots.put(image(n), 0.3, 100) for n in range(1, 7)]
        assert batcher.waiting == 6
        detector.gate.set()
        wait([first, *rest], 30)
    assert detector.batches == [1, 4, 2]
    assert batcher.waiting == 0
    assert batcher.close(10)


def test_full() -> None:
    detector = Gated()
    batcher = Batcher(detector, QueueOptions(batch_size=1, capacity=3, wait=0))
    batcher.start()
    with batcher.reserve(1) as working:
        future = working.put(image(0), 0.3, 100)
        assert detector.begun.acquire(timeout=10)  # an image in a batch has left the queue
        with batcher.reserve(2):
            with pytest.raises(Full):
                batcher.reserve(2)
            with batcher.reserve(1), pytest.raises(Full):
                batcher.reserve(1)
        with batcher.reserve(3):  # all slots are free again
            assert batcher.waiting == 3
        detector.gate.set()
        assert len(future.result(30)) > 0
    assert batcher.close(10)


def test_images_of_requests_that_ended_are_dropped() -> None:
    detector = Gated()
    batcher = Batcher(detector, QueueOptions(batch_size=2, wait=0))
    batcher.start()
    with batcher.reserve(1) as first:
        begun = first.put(image(0), 0.3, 100)
        assert detector.begun.acquire(timeout=10)
        with batcher.reserve(3) as gone:
            dropped = [gone.put(image(1), 0.3, 100) for _ in range(2)]
        with batcher.reserve(1) as last:
            kept = last.put(image(2), 0.3, 100)
            assert batcher.waiting == 1
            detector.gate.set()
            assert len(kept.result(30)) > 0
            assert len(begun.result(30)) > 0
    assert detector.batches == [1, 1]
    for future in dropped:
        with pytest.raises(Dropped):
            future.result(0)
    assert batcher.close(10)


def test_dropped_while_a_batch_gathers() -> None:
    """A batch that loses all its images while it gathers is skipped, and the thread goes on."""
    detector = Gated()
    detector.gate.set()
    batcher = Batcher(detector, QueueOptions(batch_size=2, wait=0.2))
    batcher.start()
    with batcher.reserve(1) as slots:
        slots.put(image(0), 0.3, 100)
    with batcher.reserve(1) as slots:
        assert len(slots.put(image(0), 0.3, 100).result(30)) > 0
    assert detector.batches == [1]
    assert batcher.close(10)


def test_closing_finishes_the_queued_images() -> None:
    detector = Gated()
    batcher = Batcher(detector, QueueOptions(batch_size=2, wait=0))
    batcher.start()
    slots = batcher.reserve(5)
    futures = [slots.put(image(n), 0.3, 100) for n in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    until(lambda: not batcher.ready)
    with pytest.raises(Closed):
        batcher.reserve(1)
    detector.gate.set()
    assert all(len(future.result(30)) > 0 for future in futures)
    closing.join(30)
    assert not batcher.alive


def test_closing_waits_no_longer_than_its_timeout() -> None:
    detector = Gated()
    batcher = Batcher(detector, QueueOptions(wait=0))
    batcher.start()
    future = batcher.reserve(1).put(image(0), 0.3, 100)
    assert detector.begun.acquire(timeout=10)
    assert not batcher.close(0.01)
    assert batcher.alive
    detector.gate.set()
    future.result(30)
    assert batcher.close(10)


def test_one_bad_image_does_not_spoil_the_batch() -> None:
    """Such as one that does not fit into memory: the others are computed one by one."""
    detector = small_detector()
    batcher = Batcher(detector, QueueOptions(batch_size=3, wait=0))
    with batcher.reserve(3) as slots:
        futures = [slots.put(p, 0.3, 100) for p in (image(0), torch.zeros(4, 4), image(1))]
        batcher.start()
        assert len(futures[0].result(30)) > 0
        assert len(futures[2].result(30)) > 0
        with pytest.raises(ModelFailed, match="float32"):
            futures[1].result(30)
    with batcher.reserve(1) as slots:
        assert len(slots.put(image(2), 0.3, 100).result(30)) > 0
    assert batcher.close(10)


def test_requests_share_memory() -> None:
    pool = MemoryPool(100)
    with Allocation(pool) as first, Allocation(pool) as second:
        first.take(60)
        with pytest.raises(Refused) as refused:
            second.take(50)
        assert (refused.value.status, refused.value.retry) == (503, 1)  # possible later
        with pytest.raises(Refused) as refused:
            first.take(50)
        assert refused.value.status == 413  # never possible
        first.give_back(30)
        second.take(50)
        assert pool.used == 80
    assert pool.used == 0
    first.give_back(10)  # a late thread changes nothing
    assert pool.used == 0
    with pytest.raises(Refused):
        first.take(1)
