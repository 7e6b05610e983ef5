"""The queue before the detector: batches, places, what is dropped, and the end."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from typing import Any

import pytest
import torch

from helpers import exported_models as models
from helpers.serving import Gated, small_detector, until
from retinanet.serve.batching import Batcher, Closed, Dropped, Full, ModelFailed
from retinanet.serve.limits import Refused, Room


def image(seed: int, height: int = 64, width: int = 96) -> Any:
    return models.make_image(height, width, seed)


def test_each_request_gets_what_it_would_get_alone() -> None:
    """One batch, many thresholds and limits: the parts are those of single calls."""
    detector, sizes = small_detector(), []
    asked = [(0.05, 100), (0.5, 100), (0.5, 3), (0.9, 1000), (0.0, 7), (0.3, 1)]
    images = [image(seed, 64, 96 - 8 * (seed % 2)) for seed in range(len(asked))]
    alone = [detector.predict(p, threshold=t, max_detections=m) for p, (t, m) in zip(images, asked)]
    batcher = Batcher(detector, batch_size=len(asked), wait=0, on_batch=sizes.append)
    with batcher.reserve(len(asked)) as places:
        futures = [places.put(p, t, m) for p, (t, m) in zip(images, asked)]
        batcher.start()
        found = [future.result(30) for future in futures]
    assert sizes == [len(asked)]
    assert [len(f) for f in found] == [len(a) for a in alone]
    assert len({len(f) for f in found}) > 3
    for a, b in zip(alone, found):
        assert a.labels.tolist() == b.labels.tolist()
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
    assert batcher.close(10)


def test_what_gathers_meanwhile_is_one_batch() -> None:
    detector = Gated()
    batcher = Batcher(detector, batch_size=4, wait=0)
    batcher.start()
    with batcher.reserve(7) as places:
        first = places.put(image(0), 0.3, 100)
        assert detector.begun.acquire(timeout=10)
        rest = [places.put(image(n), 0.3, 100) for n in range(1, 7)]
        assert batcher.waiting == 6
        detector.gate.set()
        wait([first, *rest], 30)
    assert detector.batches == [1, 4, 2]
    assert batcher.waiting == 0
    assert batcher.close(10)


def test_full() -> None:
    detector = Gated()
    batcher = Batcher(detector, batch_size=1, capacity=3, wait=0)
    batcher.start()
    with batcher.reserve(1) as working:
        future = working.put(image(0), 0.3, 100)
        assert detector.begun.acquire(timeout=10)  # what is worked on has left the queue
        with batcher.reserve(2):
            with pytest.raises(Full):
                batcher.reserve(2)
            with batcher.reserve(1), pytest.raises(Full):
                batcher.reserve(1)
        with batcher.reserve(3):  # all places are free again
            assert batcher.waiting == 3
        detector.gate.set()
        assert len(future.result(30)) > 0
    assert batcher.close(10)


def test_what_nobody_waits_for_is_dropped() -> None:
    detector = Gated()
    batcher = Batcher(detector, batch_size=2, wait=0)
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


def test_dropped_while_company_is_waited_for() -> None:
    """A batch that vanishes while it gathers is no batch, and no end of the thread."""
    detector = Gated()
    detector.gate.set()
    batcher = Batcher(detector, batch_size=2, wait=0.2)
    batcher.start()
    with batcher.reserve(1) as places:
        places.put(image(0), 0.3, 100)
    with batcher.reserve(1) as places:
        assert len(places.put(image(0), 0.3, 100).result(30)) > 0
    assert detector.batches == [1]
    assert batcher.close(10)


def test_closing_finishes_what_was_taken() -> None:
    detector = Gated()
    batcher = Batcher(detector, batch_size=2, wait=0)
    batcher.start()
    places = batcher.reserve(5)
    futures = [places.put(image(n), 0.3, 100) for n in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    until(lambda: not batcher.ready)
    with pytest.raises(Closed):
        batcher.reserve(1)
    detector.gate.set()
    assert all(len(future.result(30)) > 0 for future in futures)
    closing.join(30)
    assert not batcher.alive


def test_closing_waits_no_longer_than_it_is_told() -> None:
    detector = Gated()
    batcher = Batcher(detector, wait=0)
    batcher.start()
    future = batcher.reserve(1).put(image(0), 0.3, 100)
    assert detector.begun.acquire(timeout=10)
    assert not batcher.close(0.01)
    assert batcher.alive
    detector.gate.set()
    future.result(30)
    assert batcher.close(10)


def test_one_bad_image_does_not_spoil_the_batch() -> None:
    """Such as one that does not fit into memory: the others are worked on alone."""
    detector = small_detector()
    batcher = Batcher(detector, batch_size=3, wait=0)
    with batcher.reserve(3) as places:
        futures = [places.put(p, 0.3, 100) for p in (image(0), torch.zeros(4, 4), image(1))]
        batcher.start()
        assert len(futures[0].result(30)) > 0
        assert len(futures[2].result(30)) > 0
        with pytest.raises(ModelFailed, match="float32"):
            futures[1].result(30)
    with batcher.reserve(1) as places:
        assert len(places.put(image(2), 0.3, 100).result(30)) > 0
    assert batcher.close(10)


def test_room() -> None:
    room = Room(100)
    with room.share() as mine, room.share() as theirs:
        mine.take(60)
        with pytest.raises(Refused) as refused:
            theirs.take(50)
        assert (refused.value.status, refused.value.retry) == (503, 1)  # later there is room
        with pytest.raises(Refused) as refused:
            mine.take(50)
        assert refused.value.status == 413  # never
        mine.give(30)
        theirs.take(50)
        assert room.used == 80
    assert room.used == 0
    mine.give(10)  # a thread that comes late changes nothing
    assert room.used == 0
    with pytest.raises(Refused):
        mine.take(1)
