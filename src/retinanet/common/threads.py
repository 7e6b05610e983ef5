"""Parallel work in slices, each of which runs on one thread.

PyTorch splits every operation over its threads and waits for the last of them. If other programs use the same cores,
that thread is often not running, and the wait takes much longer than the operation. Here each thread takes whole
slices, and the threads wait for each other only once.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

CPU = torch.device("cpu")
MOST = 16  # threads; more would wait for Python's lock longer than they compute


def asynchronous(device: torch.device) -> bool:
    """Whether the CPU has to wait for results of this device."""
    return device.type != "cpu"


@contextmanager
def one_thread_each(device: torch.device = CPU) -> Iterator[int]:
    """A block in which operations of the calling thread use no other threads. Yields the number of threads
    that PyTorch has outside of the block.

    On other devices, and if PyTorch does not use OpenMP's threads, nothing changes and the number is 1.
    """
    setters, threads = _setters(), torch.get_num_threads()  # also sets up a new thread
    if setters is None or device.type != "cpu":
        yield 1
        return
    openmp, mkl = setters
    before = mkl(1)
    try:
        openmp(1)
        yield threads
    finally:
        openmp(threads)
        mkl(before)


@cache
def _setters() -> tuple[Callable[[int], Any], Callable[[int], int]] | None:
    """The functions that set the number of OpenMP's and of MKL's threads for the calling thread.

    ``torch.set_num_threads`` calls the same functions, but also changes the number for threads that start later.
    """
    threads = torch.get_num_threads()
    try:
        library = ctypes.CDLL(torch._C.__file__)  # this also finds symbols of the libraries that it needs
        openmp = library.omp_set_num_threads
    except (OSError, AttributeError):
        return None
    openmp(threads + 1)
    is_pytorchs = torch.get_num_threads() == threads + 1
    openmp(threads)
    return (openmp, getattr(library, "MKL_Set_Num_Threads_Local", lambda number: 0)) if is_pytorchs else None


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that wait for slices. They start when they are first needed, and end with the process."""
    return ThreadPoolExecutor(MOST - 1, thread_name_prefix="retinanet slices")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of its parent's threads


def map_slices(work: Callable[[Item], Result], slices: Sequence[Item], threads: int) -> list[Result]:
    """``[work(item) for item in slices]``, computed by the calling thread and helper threads.

    The caller must be in :func:`one_thread_each`. ``work`` runs in several threads, in any order, with the caller's
    gradient and inference modes. Helpers that have not started when the caller is done are cancelled, so on busy cores
    the caller does their work. The first error of ``work`` is raised here; slices that no thread has begun are skipped.

    Args:
        threads: the number of threads that may compute at the same time; :func:`one_thread_each` yields it.
    """
    results: list[Any] = [None] * len(slices)
    waiting, errors = deque(enumerate(slices)), deque[BaseException]()
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def take() -> None:
        while True:
            try:
                index, item = waiting.popleft()
            except IndexError:
                return
            results[index] = work(item)

    def help_out(begun: Future[None]) -> None:
        if not begun.set_running_or_notify_cancel():
            return
        try:
            with one_thread_each(), torch.inference_mode(inference), torch.set_grad_enabled(grad):
                take()
        except BaseException as error:  # the caller raises it
            errors.append(error)
            waiting.clear()
        finally:
            begun.set_result(None)

    helpers: list[Future[None]] = []
    try:
        for _ in range(min(threads, MOST, len(slices)) - 1):
            helpers.append(Future())
            try:
                _helpers().submit(help_out, helpers[-1])
            except RuntimeError:  # the system grants no more threads, or the process ends
                break
        take()
    finally:
        waiting.clear()
        wait([helper for helper in helpers if not helper.cancel()])
    if errors:
        raise errors[0]
    return results
