"""How long each phase of a training run takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class StepTimer:
    """Sums the seconds of named phases, such as data, forward and backward.

    A GPU runs behind the CPU, so its phases are timed by events in its queue. An event is read once the GPU has passed
    it, so that the CPU never waits.

    Args:
        before: seconds of each phase in earlier sessions of the run.
    """

    def __init__(self, device: torch.device, before: Mapping[str, float] | None = None) -> None:
        self._event: Any = {"cuda": torch.cuda.Event, "mps": torch.mps.event.Event}.get(device.type)
        self._seconds = dict(before or {})
        self._events: deque[tuple[str, Any, Any]] = deque()

    @contextmanager
    def time(self, phase: str, on_device: bool = True) -> Iterator[None]:
        """Add the time of the block to ``phase``.

        Args:
            on_device: the device does the work; otherwise the CPU does it, as when images are loaded.
        """
        if self._event is not None and on_device:
            start, end = self._event(enable_timing=True), self._event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((phase, start, end))
            while self._events and self._events[0][2].query():
                self._read()
            return
        begin = time.perf_counter()
        yield
        self._add(phase, time.perf_counter() - begin)

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase so far. Waits for the events of a GPU."""
        while self._events:
            self._events[0][2].synchronize()
            self._read()
        return dict(self._seconds)

    def _read(self) -> None:
        phase, start, end = self._events.popleft()
        self._add(phase, start.elapsed_time(end) / 1000)

    def _add(self, phase: str, seconds: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
