"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Clock:
    """Sums the seconds of named parts of the work, such as data, forward and backward.

    A GPU works while the CPU goes on, so there the parts are marked in its queue. A mark is read once the GPU has
    passed it, without waiting for that.

    Args:
        before: what earlier sessions of the run took.
    """

    def __init__(self, device: torch.device, before: Mapping[str, float] | None = None) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = dict(before or {})
        self._marks: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def part(self, name: str, on_device: bool = True) -> Iterator[None]:
        """What runs within it counts as ``name``.

        Args:
            on_device: the work is the device's; otherwise it is the CPU's, as loading images is.
        """
        if self._cuda and on_device:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._marks.append((name, start, end))
            while self._marks and self._marks[0][2].query():
                self._read()
            return
        begin = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - begin)

    def seconds(self) -> dict[str, float]:
        """By name, so far. On a GPU this waits for what was marked."""
        while self._marks:
            self._marks[0][2].synchronize()
            self._read()
        return dict(self._seconds)

    def _read(self) -> None:
        name, start, end = self._marks.popleft()
        self._add(name, start.elapsed_time(end) / 1000)

    def _add(self, name: str, value: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + value
