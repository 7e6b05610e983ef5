"""What a request may cost: bytes, pixels, images, time, and the memory and connections of all requests together."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

from retinanet.common.printable import printable
from retinanet.data.image_io import DECODING

DECODED = 3
MEMORY = 1024 * 10**6  # of all requests together, where one alone does not need more


class Refused(Exception):
    """A request, or one of its images, that is not served.

    Attributes:
        status: of HTTP.
        reason: one line for the client, printable whatever it repeats of the request.
        retry: seconds after which it is worth another try, or None.
    """

    def __init__(self, status: int, reason: str, retry: int | None = None) -> None:
        self.status, self.reason, self.retry = status, printable(reason), retry
        super().__init__(self.reason)


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    megabytes: float = 20.0
    """Of the body."""
    megapixels: float = 50.0
    """Of an image, read from its header before it is decoded."""
    images: int = 16
    seconds: float = 30.0
    """From a request's headers to its answer."""
    connections: int = 256
    """Open at a time, of all clients."""

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        return int(self.megapixels * 1e6)

    @property
    def memory(self) -> int:
        """Bytes that bodies and decoded images of all requests may take together."""
        return max(MEMORY, 2 * (self.bytes + DECODING * self.pixels))


class Room:
    """Memory that requests share. Used by several threads."""

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self._lock = threading.Lock()

    def share(self) -> Share:
        return Share(self)


class Share:
    """What one request has of the room, as a context: all of it is given back in the end."""

    def __init__(self, room: Room) -> None:
        self._room, self._own, self._open = room, 0, True

    def take(self, count: int) -> None:
        """
        Raises:
            Refused: 413 where the request alone needs more than there is, 503 where others have it now.
        """
        with self._room._lock:
            if not self._open:
                raise Refused(503, "the request is over")
            if self._own + count > self._room.size:
                raise Refused(413, "the images of this request need too much memory together: send fewer at a time")
            if self._room.used + count > self._room.size:
                raise Refused(503, "there is no memory for more images at the moment: try again", 1)
            self._own += count
            self._room.used += count

    def give(self, count: int) -> None:
        with self._room._lock:
            if self._open:
                self._own -= count
                self._room.used -= count

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._room._lock:
            self._open = False
            self._room.used -= self._own
            self._own = 0
