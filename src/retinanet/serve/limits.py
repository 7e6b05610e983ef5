"""Limits of a request (bytes, pixels, images, time), and the memory and connections that all requests share."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from retinanet.common.printable import printable
from retinanet.data.image_io import DECODING

DECODED = 3  # bytes of a pixel after decoding
SHARED_BYTES = 1024 * 10**6


class Refused(Exception):
    """A request, or one of its images, that is not served.

    Attributes:
        status: the HTTP status.
        reason: one printable line for the client, also where it quotes the request.
        retry: seconds after which another try makes sense, or None.
    """

    def __init__(self, status: int, reason: str, retry: int | None = None) -> None:
        self.status, self.reason, self.retry = status, printable(reason), retry
        super().__init__(self.reason)


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of the number of connections."""

    megabytes: float = 20.0
    """Size of the body."""
    megapixels: float = 50.0
    """Size of an image, read from its header before it is decoded."""
    images: int = 16
    seconds: float = 30.0
    """Time from a request's headers to its response."""
    connections: int = 256
    """Open connections of all clients."""

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        return int(self.megapixels * 1e6)

    @property
    def shared_bytes(self) -> int:
        """Memory for the bodies and decoded images of all requests; more than 1 GB only where one request needs it."""
        return max(SHARED_BYTES, 2 * (self.bytes + DECODING * self.pixels))


class MemoryPool:
    """Memory that all requests share. Used by several threads."""

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self.lock = threading.Lock()


class Allocation:
    """The memory of one request, as a context: at its end everything is given back to the pool."""

    def __init__(self, pool: MemoryPool) -> None:
        self._pool, self._taken, self._open = pool, 0, True

    def take(self, count: int) -> None:
        """Take ``count`` more bytes.

        Raises:
            Refused: 413 where this request alone needs more than the pool has, 503 where others have it now.
        """
        with self._pool.lock:
            if not self._open:
                raise Refused(503, "the request has ended")
            if self._taken + count > self._pool.size:
                raise Refused(413, "the images of this request need too much memory: send fewer at a time")
            if self._pool.used + count > self._pool.size:
                raise Refused(503, "there is no memory for more images at the moment: try again", 1)
            self._add(count)

    def give_back(self, count: int) -> None:
        with self._pool.lock:
            if self._open:
                self._add(-count)

    def _add(self, count: int) -> None:
        self._taken += count
        self._pool.used += count

    def __enter__(self) -> Allocation:
        return self

    def __exit__(self, *error: Any) -> None:
        with self._pool.lock:
            self._open = False
            self._add(-self._taken)
