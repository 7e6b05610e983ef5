"""Counters of the server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = {
    200: "ok",
    408: "timeout",
    413: "too_large",
    499: "disconnected",
    500: "failed",
    503: "busy",
    504: "timeout",
}
"""Outcome of a request by its HTTP status; all others are "refused"."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Filled by the server's threads, read by ``/metrics``. Each server has a registry of its own."""

    def __init__(self, batch_size: int) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._outcomes("requests", "Requests to /predict", [*OUTCOMES.values(), "refused"])
        self._images = self._outcomes("images", "Images", ["ok", "refused"])
        self._seconds = Histogram(
            "retinanet_request_seconds",
            "Time from a request's headers to its response",
            registry=self._registry,
            buckets=SECONDS,
        )
        self._batches = Histogram(
            "retinanet_batch_images",
            "Images that went through the network together",
            registry=self._registry,
            buckets=sorted({1, *(n for n in (2, 4, 8, 16, 32, 64) if n < batch_size), batch_size}),
        )

    def _outcomes(self, name: str, text: str, outcomes: list[str]) -> Counter:
        counter = Counter(f"retinanet_{name}", f"{text} by outcome", ["outcome"], registry=self._registry)
        for outcome in outcomes:
            counter.labels(outcome)  # shown from the start, with 0
        return counter

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a value that is read each time ``/metrics`` is requested."""
        Gauge(f"retinanet_{name}", text, registry=self._registry).set_function(value)

    def count_request(self, status: int, seconds: float) -> None:
        """Count a request to ``/predict`` that was answered ``seconds`` after its headers arrived."""
        self._requests.labels(OUTCOMES.get(status, "refused")).inc()
        self._seconds.observe(seconds)

    def count_images(self, ok: int, refused: int) -> None:
        self._images.labels("ok").inc(ok)
        self._images.labels("refused").inc(refused)

    def count_batch(self, size: int) -> None:
        self._batches.observe(size)

    def text(self) -> bytes:
        """All values in Prometheus' text format."""
        return generate_latest(self._registry)
