"""Work in slices, each of which runs whole on one thread.

PyTorch shares out every operation over its threads and waits for the last of them. Where other programs use the same
cores that thread is often not running: the wait takes milliseconds, many times the operation itself. Here a few threads
take whole slices, and wait for each other once.
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
    """Whether the CPU would have to wait for a result of this device."""
    return device.type != "cpu"


@contextmanager
def alone(device: torch.device = CPU) -> Iterator[int]:
    """Inside, the operations of the calling thread use no other thread. Yields the number of threads outside.

    On other devices than CPUs, and where PyTorch's threads are not OpenMP's, nothing is changed and the number is 1.
    """
    setters, threads = _setters(), torch.get_num_threads()  # which also gives a new thread PyTorch's number
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
    """What sets the number of threads of OpenMP and of MKL for the calling thread.

    ``torch.set_num_threads`` calls the same two, but leaves the number to every thread that starts later.
    """
    threads = torch.get_num_threads()
    try:
        library = ctypes.CDLL(torch._C.__file__)  # a symbol is also looked for in the libraries that this one needs
        openmp = library.omp_set_num_threads
    except (OSError, AttributeError):
        return None
    openmp(threads + 1)
    is_pytorchs = torch.get_num_threads() == threads + 1
    openmp(threads)
    return (openmp, getattr(library, "MKL_Set_Num_Threads_Local", lambda number: 0)) if is_pytorchs else None


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that wait for slices; they start when they are first wanted and end with the process."""
    return ThreadPoolExecutor(MOST - 1, thread_name_prefix="retinanet slices")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of its parent's threads


def map_slices(work: Callable[[Item], Result], slices: Sequence[Item], threads: int) -> list[Result]:
    """``[work(item) for item in slices]``, on the calling thread, which is :func:`alone`, and helpers.

    ``work`` is called from several threads, in any order, under the caller's gradient and inference modes. No helper
    still computes when the call ends, and none is waited for that has not begun: where the cores are busy the caller
    does its share. What ``work`` raises first is raised here; slices that no thread had begun by then are left out.

    Args:
        threads: how many may compute at the same time, which :func:`alone` tells.
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
            with alone(), torch.inference_mode(inference), torch.set_grad_enabled(grad):
                take()
        except BaseException as error:  # it goes to the caller, whatever it is
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
