"""Counters of the server, in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

OUTCOMES = {200: "ok", 408: "late", 413: "too_large", 499: "left", 500: "failed", 503: "busy", 504: "late"}
"""Of a request, by its HTTP status; others are "refused"."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Histogram:
    """Counts of values up to each of ``bounds``."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        lines, below = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*lines, f"{name}_sum {self.total:.6f}", f"{name}_count {below}"]


class Metrics:
    """Filled by the server's threads, read by ``/metrics``."""

    def __init__(self, batch_size: int) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter(dict.fromkeys((*OUTCOMES.values(), "refused"), 0))
        self._images: Counter[str] = Counter(found=0, refused=0)
        self._seconds = Histogram(SECONDS)
        self._batches = Histogram(sorted({1, *(n for n in (2, 4, 8, 16, 32, 64) if n < batch_size), batch_size}))

    def request(self, status: int, seconds: float) -> None:
        """A request to ``/predict`` that was answered, ``seconds`` after its headers were there."""
        with self._lock:
            self._requests[OUTCOMES.get(status, "refused")] += 1
            self._seconds.add(seconds)

    def images(self, found: int, refused: int) -> None:
        with self._lock:
            self._images["found"] += found
            self._images["refused"] += refused

    def batch(self, size: int) -> None:
        with self._lock:
            self._batches.add(size)

    def text(self, waiting: int, capacity: int, memory: int) -> str:
        """
        Args:
            waiting: images that hold a place in the queue. capacity: places that there are. memory: bytes of bodies
                and decoded images.
        """
        with self._lock:
            parts = [
                ("requests_total", "counter", "Requests to /predict by outcome", _labelled(self._requests)),
                ("images_total", "counter", "Images by outcome", _labelled(self._images)),
                ("request_seconds", "histogram", "Time from a request's headers to its answer", self._seconds),
                ("batch_images", "histogram", "Images that went through the network together", self._batches),
                ("queue_images", "gauge", "Places taken in the queue", waiting),
                ("queue_capacity", "gauge", "Places in the queue", capacity),
                ("memory_bytes", "gauge", "Bodies and decoded images in memory", memory),
            ]
            lines = []
            for short, kind, says, value in parts:
                name = f"retinanet_{short}"
                lines += [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]
                if isinstance(value, Histogram):
                    lines += value.lines(name)
                elif isinstance(value, dict):
                    lines += [f"{name}{labels} {count}" for labels, count in value.items()]
                else:
                    lines.append(f"{name} {value}")
        return "\n".join(lines) + "\n"


def _labelled(counts: Counter[str]) -> dict[str, int]:
    return {f'{{outcome="{outcome}"}}': count for outcome, count in counts.items()}
