"""The frames of a video, camera or stream, decoded ahead in a thread, by PyAV.

PyAV itself and not supervision's reader over it: that one gives no times, which variable frame rates need, and ends at
a damaged frame without a word.
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
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retinanet.common.errors import RequestError
from retinanet.predict.inputs import Video

AHEAD_BYTES = 128e6  # decoded frames that may wait
PATIENCE = (15.0, 30.0)  # seconds without an answer, and without a frame, after which a stream has failed
TICK = 0.2  # seconds between looks at whether to stop


class VideoError(RequestError):
    """A video that cannot be read; ``reason`` is the message without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read the video {name}: {reason}")
        self.reason = reason


@dataclass
class Frame:
    """One frame, upright."""

    number: int
    """From 0, in the source: frames that were passed over count too."""
    time: float
    """Seconds since the first frame."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB, all frames of one size."""


def require() -> Any:
    """PyAV, which reads and writes videos.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise RequestError("videos, cameras and streams need PyAV: pip install 'retinanet[video]'") from None
    av.logging.set_level(av.logging.PANIC)  # what is wrong is told in our words
    return av


class Frames:
    """Iterates over the frames of a video; a context that closes it.

    Files are read as fast as they are taken. Of what does not wait, such as a camera, the oldest waiting frames are
    dropped where they are not taken in time, so that what is seen is never old.

    Args:
        stride: take every so many frames.
        ahead: how many frames may wait, fewer where they are large.
        stop: asked now and then; iteration ends when it is true.

    Attributes:
        width, height: of the upright frames, once there was one.
        aspect: width of a pixel over its height, as the frames are stored.
        has_audio: whether there is sound, which is not read.
        rate: frames a second that are taken, an estimate; 30 where nothing is known.
        total: how many frames there will be, an estimate from the file's head; None for what has no end.
        problem: why less was read than there should be; None if nothing went wrong.
        dropped: frames that were not taken in time.

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
            raise VideoError(video.shown, "there is no image track in it")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        # All that is asked later is read now: a stream must not be touched once the thread has closed its container.
        self._promised = self._stream.frames
        self.aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.has_audio = bool(self._container.streams.audio)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) / stride if rate and 0 < rate < 1000 else 30.0
        # A container's duration is in microseconds.
        seconds = self._container.duration / 1e6 if self._container.duration else None
        frames = self._promised or (round(seconds * self.rate * stride) if seconds else 0)
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join(2)  # one that hangs in the network is left to the end of the process

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
        """The thread: frames into the queue, None after the last."""
        try:
            for frame in self._decoded():
                if self._closing.is_set():
                    return
                self._put(frame)
        except Exception as error:  # the thread must not end without a word, whatever the library raises
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
            except self._errors:  # the next key frame brings the image back
                damaged += 1
                continue
            for frame in decoded:
                number += 1
                now = frame.time
                if now is None:
                    now = time.monotonic() - started if self._drop else last + step
                first = now if first is None else first
                # Times never go back or stand still, whatever a broken stream says.
                last = now - first if now - first > last else last + step
                if number % self.stride == 0:
                    yield Frame(number, last, self._upright(frame))
        self._judge(number + 1, damaged, last + step)

    def _judge(self, count: int, damaged: int, seconds: float) -> None:
        """Whether that was all."""
        promised = self._promised
        if count == 0:
            self.problem = "not one frame of it can be decoded" if damaged or promised else "there is no frame in it"
        elif self.video.live:
            self.problem = "the other side ended it"
        elif promised and count < promised:
            self.problem = f"it is damaged or cut short: {count} of {promised} frames could be read"
        elif not promised and self._seconds and seconds < self._seconds - max(1.0, 0.05 * self._seconds):
            self.problem = f"it is damaged or cut short: {seconds:.1f} of {self._seconds:.1f} seconds could be read"
        elif damaged:
            self.problem = f"{damaged} parts of it are damaged and were passed over"

    def _upright(self, frame: Any) -> NDArray[np.uint8]:
        self._size = self._size or (frame.width, frame.height)  # later frames of a stream may have another size
        image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=self._size[0], height=self._size[1])
        # Phones store a turned image and the angle, counted against the clock as np.rot90 does.
        turns, rest = divmod(int(frame.rotation), 90)
        return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 and not rest else image


def _open(av: Any, video: Video) -> Any:
    if video.kind == "camera":
        return av.open(*_camera(video.address), timeout=PATIENCE)
    if video.kind == "url":
        options = {"rtsp_transport": "tcp"} if video.address.lower().startswith("rtsp") else {}
        return av.open(video.address, options=options, timeout=PATIENCE)
    # A file may be a list of addresses: nothing is fetched from the network because of it.
    return av.open(f"file:{os.path.abspath(video.address)}", options={"protocol_whitelist": "file"})


def _camera(name: str) -> tuple[str, str, str]:
    """What av.open takes: device, mode, format; the devices of each system are named otherwise."""
    if sys.platform == "darwin":
        return name, "r", "avfoundation"
    if sys.platform == "win32":
        return f"video={name}", "r", "dshow"
    return (f"/dev/video{name}" if name.isdigit() else name), "r", "v4l2"


def _reason(error: BaseException) -> str:
    # The text of a library's error repeats the address, with a password that may be in it.
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, TimeoutError) or text.startswith("Immediate exit"):
        return "no answer came in time"
    if isinstance(error, EOFError):
        return "it ends before its first frame"
    if "moov atom" in (log := str(getattr(error, "log", "") or "")) or text.startswith("Invalid data"):
        return "it is damaged, cut short or no video" + (" (its index is missing)" if "moov atom" in log else "")
    return " ".join(text.split())
