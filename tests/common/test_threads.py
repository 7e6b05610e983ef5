"""Slices on threads: how many there are, that they end, and that what uses them gives the same results."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from retinanet.bench import torchvision_bench
from retinanet.common import threads
from retinanet.common.threads import map_slices, one_thread_each
from retinanet.inference import postprocessing_fast
from retinanet.losses import focal_cpu
from retinanet.ops import iou_assigner, iou_assigner_fast

SetThreads = Callable[[int], None]


def number_in_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_alone(set_threads: SetThreads) -> None:
    """Of the calling thread only: torch.set_num_threads would leave 1 to every thread that starts meanwhile."""
    set_threads(3)
    with one_thread_each() as number:
        assert number == 3
        assert torch.get_num_threads() == 1
        assert number_in_a_new_thread() == 3
        with one_thread_each() as inner:
            assert inner == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), one_thread_each():
        raise KeyError
    assert torch.get_num_threads() == 3


def test_other_devices_than_cpus_are_left_alone(set_threads: SetThreads) -> None:
    set_threads(3)
    with one_thread_each(torch.device("meta")) as number:
        assert (number, torch.get_num_threads()) == (1, 3)


def test_pytorch_with_other_threads_than_openmps(set_threads: SetThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    set_threads(3)
    monkeypatch.setattr(threads, "_setters", lambda: None)
    with one_thread_each() as number:
        assert (number, torch.get_num_threads()) == (1, 3)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_as_many_threads_as_pytorch_has(set_threads: SetThreads, number: int) -> None:
    """Each computes alone, in the modes of the caller."""
    set_threads(number)
    meet = threading.Barrier(number)  # passed only by so many threads at the same time

    def work(item: int) -> tuple[int, Any]:
        meet.wait(60)
        modes = torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return item, (threading.get_ident(), modes)

    for modes in (torch.inference_mode(), torch.no_grad(), torch.enable_grad()):
        with modes, one_thread_each() as count:
            expected = 1, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            results = map_slices(work, range(4 * number), count)
        assert [item for item, _ in results] == list(range(4 * number))
        assert {modes for _, (_, modes) in results} == {expected}
        assert len({thread for _, (thread, _) in results}) == number
    assert torch.get_num_threads() == number


def test_no_more_threads_than_slices(set_threads: SetThreads) -> None:
    set_threads(3)
    with one_thread_each() as count:
        assert map_slices(lambda item: threading.get_ident(), [0], count) == [threading.get_ident()]
        assert map_slices(lambda item: item, [], count) == []


@pytest.mark.parametrize("in_caller", [True, False])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_reaches_the_caller(set_threads: SetThreads, kind: type[BaseException], in_caller: bool) -> None:
    """Once no thread computes any more; what none had begun is left out."""
    set_threads(2)
    begun, ended = [], []
    meet = threading.Barrier(2)

    def work(item: int) -> None:
        begun.append(item)
        meet.wait(60)
        if (threading.current_thread() is caller) == in_caller:
            ended.append(item)
            raise kind("broken")
        time.sleep(0.1)  # the error comes first
        ended.append(item)

    caller = threading.current_thread()
    with pytest.raises(kind, match="broken"), one_thread_each() as count:
        map_slices(work, range(100), count)
    assert sorted(begun) == sorted(ended) == [0, 1]
    assert torch.get_num_threads() == 2


def test_a_system_that_grants_no_more_threads(set_threads: SetThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    set_threads(3)
    threads._helpers.cache_clear()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with one_thread_each() as count:
        assert map_slices(lambda item: 2 * item, range(5), count) == [0, 2, 4, 6, 8]


def test_helpers_that_have_not_begun_are_not_waited_for(set_threads: SetThreads) -> None:
    """Where all of them are busy, with other callers' slices, the caller does its share."""
    set_threads(2)
    released = threading.Event()
    busy = [threads._helpers().submit(released.wait, 60) for _ in range(threads.MOST - 1)]
    try:
        with one_thread_each() as count:
            results = map_slices(lambda item: (item, threading.get_ident()), range(5), count)
        assert results == [(item, threading.get_ident()) for item in range(5)]
    finally:
        released.set()
    assert all(future.result(60) for future in busy)


def works() -> list[torchvision_bench.Work]:
    return [
        torchvision_bench.focal_loss(5000, 20),
        torchvision_bench.box_matching(128, 160, boxes=9, batch=2),
        torchvision_bench.post_processing(256, 320, classes=20, batch=3),
    ]


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, iou_assigner.Targets):
        return [result.labels, result.indices, result.boxes, result.num_positives]
    return [result.clone()] if isinstance(result, Tensor) else [tensor for image in result for tensor in image]


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focal_cpu, "SLICE", 2000)
    monkeypatch.setattr(iou_assigner_fast, "CHUNK", 150)
    monkeypatch.setattr(iou_assigner_fast, "CACHED_OVERLAPS", 600)
    monkeypatch.setattr(postprocessing_fast, "SLICE", 3000)
    monkeypatch.setattr(postprocessing_fast, "LOGITS_PER_THREAD", 3000)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("place", range(3))
def test_the_number_of_threads_changes_no_result(set_threads: SetThreads, place: int) -> None:
    """Nor do several callers at the same time, each with threads of its own."""
    set_threads(1)
    expected = flat(works()[place].ours())
    assert all(len(tensor) for tensor in expected if tensor.dim())
    set_threads(3)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda work: flat(work.ours()), [works()[place] for _ in range(4)]):
            for ours, wanted in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-9)
    assert torch.get_num_threads() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="of GNU's OpenMP")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a forked process cannot go backward where CUDA was used")
def test_no_operation_waits_for_pytorchs_threads(set_threads: SetThreads) -> None:
    """In a forked process PyTorch's threads are missing: GNU's OpenMP waits for ever as soon as one is needed."""
    set_threads(2)
    large = [
        torchvision_bench.focal_loss(20_000),
        torchvision_bench.box_matching(320, 320, batch=2),
        torchvision_bench.post_processing(320, 320, batch=2),
    ]
    torch.rand(1 << 20).sigmoid()  # now there are threads to be missed, and helpers
    assert large[1].ours().labels.shape[0] == 2
    assert ends_when_forked(lambda: [work.ours() for work in large])
    assert not ends_when_forked(lambda: torch.rand(1 << 20).sigmoid(), seconds=1)  # or this test would see nothing


def ends_when_forked(run: Callable[[], Any], seconds: float = 60) -> bool:
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return True
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
