"""The frames of a video, camera or stream, decoded ahead in a thread, by PyAV.

PyAV itself and not supervision's reader: that one gives no times, which variable frame rates need, and ends at a
damaged frame without an error.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from queue import Empty, Full, Queue
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retinanet.common.errors import RequestError
from retinanet.predict.inputs import Video

AHEAD_BYTES = 128e6  # decoded frames that may wait
PATIENCE = (15.0, 30.0)  # seconds without an answer, and without a frame, after which a stream has failed
TICK = 0.2  # seconds between checks whether to stop


class VideoError(RequestError):
    """A video that cannot be read; ``reason`` is the message without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read the video {name}: {reason}")
        self.reason = reason


@dataclass
class Frame:
    """One frame, upright."""

    number: int
    """Index in the source, from 0; frames that ``stride`` skips count too."""
    time: float
    """Seconds since the first frame."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB; all frames have one size."""


def require() -> Any:
    """PyAV, which reads and writes videos.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise RequestError("videos, cameras and streams need PyAV: pip install 'retinanet[video]'") from None
    av.logging.set_level(av.logging.PANIC)  # errors are reported in our own messages
    return av


class Frames:
    """Iterates over the frames of a video; a context that closes it.

    Files are read as fast as the frames are taken. A live source, such as a camera, does not wait: its oldest waiting
    frames are dropped, so that the next one is always recent.

    Args:
        stride: take every n-th frame.
        ahead: how many frames may wait, fewer where they are large.
        stop: called now and then; iteration ends when it returns true.

    Attributes:
        width, height: size of the upright frames, known after the first.
        aspect: width of a pixel divided by its height, as the frames are stored.
        has_audio: whether there is sound, which is not read.
        rate: estimate of the taken frames a second; 30 where it is unknown.
        total: estimate of the number of frames from the file's header; None for a live source.
        problem: why fewer frames were read than expected; None without a problem.
        dropped: number of frames that were not taken in time.

    Raises:
        VideoError: it cannot be opened, or has no image track.
    """

    def __init__(self, video: Video, stride: int = 1, ahead: int = 8, stop: Callable[[], bool] = lambda: False) -> None:
        av = require()
        self.video, self.stride, self.stop = video, stride, stop
        self._errors: Any = av.FFmpegError
        try:
            self._container = _open(av, video)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(video.shown, _reason(error)) from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(video.shown, "it has no video track")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        # Read now what is used later: a stream must not be accessed after the thread has closed its container.
        self._expected = self._stream.frames
        self.aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.has_audio = bool(self._container.streams.audio)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) / stride if rate and 0 < rate < 1000 else 30.0
        # A container's duration is in microseconds.
        seconds = self._container.duration / 1e6 if self._container.duration else None
        frames = self._expected or (round(seconds * self.rate * stride) if seconds else 0)
        self.total = -(-frames // stride) if frames and not video.live else None
        self.live = video.live or (video.kind == "url" and seconds is None)
        self._drop = video.live or self._container.format.name == "mpjpeg"
        self._seconds = seconds
        self.problem: str | None = None
        self.dropped = 0
        self.width = self.height = 0
        self._size: tuple[int, int] | None = None  # of the first frame as it is stored
        size = max(1, self._stream.width * self._stream.height * 3)
        self._queue: Queue[Frame | None] = Queue(1 if self._drop else max(2, min(ahead, int(AHEAD_BYTES // size))))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="retinanet frames", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._closing.set()
        self._thread.join(2)  # a thread that waits for the network ends with the process

    def __iter__(self) -> Iterator[Frame]:
        while not self.stop():
            try:
                frame = self._queue.get(timeout=TICK)
            except Empty:
                continue
            if frame is None:
                return
            self.height, self.width = frame.image.shape[:2]
            yield frame

    def _read(self) -> None:
        """Put the frames into the queue, and None after the last; runs in the thread."""
        try:
            for frame in self._decoded():
                if self._closing.is_set():
                    return
                self._put(frame)
        except Exception as error:  # the thread must report every error, whatever the library raises
            self.problem = _reason(error)
        finally:
            self._put(None)
            self._container.close()

    def _put(self, frame: Frame | None) -> None:
        drop = self._drop and frame is not None
        while not self._closing.is_set():
            try:
                self._queue.put(frame, timeout=0.001 if drop else TICK)
                return
            except Full:
                with suppress(Empty):
                    if drop:
                        self._queue.get_nowait()
                        self.dropped += 1

    def _decoded(self) -> Iterator[Frame]:
        number, damaged, first, last = -1, 0, None, -1.0
        step = 1 / (self.rate * self.stride)
        started = time.monotonic()
        for packet in self._container.demux(self._stream):
            try:
                decoded = packet.decode()
            except self._errors:  # the next key frame is complete again
                damaged += 1
                continue
            for frame in decoded:
                number += 1
                now = frame.time
                if now is None:
                    now = time.monotonic() - started if self._drop else last + step
                first = now if first is None else first
                # Times always increase, even where a broken stream has other ones.
                last = now - first if now - first > last else last + step
                if number % self.stride == 0:
                    yield Frame(number, last, self._upright(frame))
        self._check_complete(number + 1, damaged, last + step)

    def _check_complete(self, count: int, damaged: int, seconds: float) -> None:
        """Set ``problem`` where frames are missing."""
        expected = self._expected
        if count == 0:
            self.problem = "not one frame of it can be decoded" if damaged or expected else "there is no frame in it"
        elif self.video.live:
            self.problem = "the sender ended it"
        elif expected and count < expected:
            self.problem = f"it is damaged or cut short: {count} of {expected} frames could be read"
        elif not expected and self._seconds and seconds < self._seconds - max(1.0, 0.05 * self._seconds):
            self.problem = f"it is damaged or cut short: {seconds:.1f} of {self._seconds:.1f} seconds could be read"
        elif damaged:
            self.problem = f"{damaged} damaged parts of it were skipped"

    def _upright(self, frame: Any) -> NDArray[np.uint8]:
        self._size = self._size or (frame.width, frame.height)  # later frames of a stream may have another size
        image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=self._size[0], height=self._size[1])
        # Phones store a rotated image and the angle, counterclockwise as in np.rot90.
        turns, rest = divmod(int(frame.rotation), 90)
        return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 and not rest else image


def _open(av: Any, video: Video) -> Any:
    if video.kind == "camera":
        return av.open(*_camera(video.source), timeout=PATIENCE)
    if video.kind == "url":
        options = {"rtsp_transport": "tcp"} if video.source.lower().startswith("rtsp") else {}
        return av.open(video.source, options=options, timeout=PATIENCE)
    # A file may be a playlist of URLs: nothing is fetched from the network because of it.
    return av.open(f"file:{os.path.abspath(video.source)}", options={"protocol_whitelist": "file"})


def _camera(name: str) -> tuple[str, str, str]:
    """Device, mode and format for av.open; each system has its own names."""
    systems = {"darwin": (name, "r", "avfoundation"), "win32": (f"video={name}", "r", "dshow")}
    linux = (f"/dev/video{name}" if name.isdigit() else name), "r", "v4l2"
    return systems.get(sys.platform, linux)


def _reason(error: BaseException) -> str:
    # str(error) of the library contains the URL, and so may contain a password.
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, TimeoutError) or text.startswith("Immediate exit"):
        return "no answer came in time"
    if isinstance(error, EOFError):
        return "it ends before its first frame"
    if "moov atom" in (log := str(getattr(error, "log", "") or "")) or text.startswith("Invalid data"):
        return "it is damaged, cut short or no video" + (" (its index is missing)" if "moov atom" in log else "")
    return " ".join(text.split())
