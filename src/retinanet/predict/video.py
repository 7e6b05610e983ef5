"""Objects in videos, cameras and streams: an annotated video, and a JSON line for each frame."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinanet.common.atomic_files import replacing, what_is_wrong
from retinanet.common.errors import WorkError
from retinanet.inference.detections import Detections
from retinanet.predict.frames import Frame, Frames, VideoError, require
from retinanet.predict.inputs import Video
from retinanet.predict.tracking import Tracks

CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has; the first two play in browsers
CHUNK_PIXELS = 64e6  # frames that go through the network together hold no more
CLOCK = Fraction(1, 90_000)  # the unit of times in the written video, as fine as any source's

Look = Callable[[Sequence[NDArray[np.uint8]], float], Sequence[Detections]]
"""Frames (H, W, 3) RGB and a threshold -> what is found in each."""


@dataclass
class VideoMade:
    """What came of one video."""

    video: Video
    frames: int = 0
    """Frames looked at."""
    seconds: float = 0.0
    """Time of the last of them."""
    detections: Counter[str] = field(default_factory=Counter)
    objects: int | None = None
    """How many different numbers were given; None without tracking."""
    files: list[Path] = field(default_factory=list)
    problem: str | None = None
    """Why it is not all of the video."""
    dropped: int = 0
    """Frames of a live source that came while the network was busy."""
    audio_dropped: bool = False
    stopped: bool = False
    """Ended from outside."""


@dataclass
class Pace:
    """How far a video is, for a callback; at its end ``frames`` is ``total``."""

    video: Video
    frames: int
    total: int | None
    rate: float
    """Frames a second."""

    @property
    def seconds_left(self) -> float | None:
        return None if self.total is None or not self.rate else max(0, self.total - self.frames) / self.rate


def predict_video(
    look: Look,
    video: Video,
    output: Path,
    *,
    threshold: float,
    batch_size: int = 8,
    draw: bool = True,
    track: bool = False,
    least: float = 0.0,
    stride: int = 1,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Pace], None] | None = None,
) -> VideoMade:
    """Look at a video frame by frame.

    Memory does not grow with its length. NAME.jsonl grows line by line and can be followed; NAME.mp4 gets its name at
    the end. Whatever ends the work, both are finished: the video plays, the lines are whole.

    Args:
        look: finds objects, such as a detector's ``predict``.
        output: an existing folder.
        threshold: scores at or below it are left out.
        batch_size: frames that go through the network together; those of a live source go one by one.
        draw: write the annotated video. It has the frames' own times, and no sound.
        track: give objects numbers.
        least: the lowest threshold that ``look`` takes.
        stride: look at every so many frames only.
        stop: asked at each frame whether to end.

    Raises:
        VideoError: it cannot be opened, or holds not one frame.
        WorkError: the output cannot be written.
    """
    made = VideoMade(video)
    lines = output / f"{video.name}.jsonl"
    numbers: set[int] = set()
    started = time.monotonic()
    with ExitStack() as stack:
        frames = stack.enter_context(Frames(video, stride, 2 * batch_size, stop))
        tracks = Tracks(frames.rate, threshold, least) if track else None
        written: _Lines | None = None
        for chunk in _chunks(frames, 1 if frames.live else batch_size):
            found = look([one.image for one in chunk], tracks.faint if tracks else threshold)
            if written is None:
                lines.parent.mkdir(parents=True, exist_ok=True)
                written = stack.enter_context(_Lines(lines))
                film = stack.enter_context(_Film(lines.with_suffix(".mp4"), frames)) if draw else None
                made.files = [lines] if film is None else [film.path, lines]
                made.audio_dropped = draw and frames.has_audio
            for one, detections in zip(chunk, found, strict=True):
                ids: list[int | None] | None = None
                if tracks:
                    detections, ids = tracks.update(detections, one.time)
                    numbers.update(number for number in ids if number is not None)
                written.add(one, detections, ids)
                if film:
                    film.add(one.time, detections.draw(one.image, ids))
                made.frames += 1
                made.seconds = one.time
                made.detections.update(detections.names)
            if on_progress:
                rate = made.frames / max(1e-9, time.monotonic() - started)
                on_progress(Pace(video, made.frames, frames.total, rate))
    if on_progress and made.frames:
        on_progress(Pace(video, made.frames, made.frames, made.frames / max(1e-9, time.monotonic() - started)))
    made.stopped = stop()
    made.problem, made.dropped = frames.problem, frames.dropped
    made.objects = len(numbers) if track else None
    if not made.frames and not made.stopped:
        raise VideoError(video.shown, frames.problem or "there is no frame in it")
    return made


def _chunks(frames: Iterable[Frame], count: int) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    for one in frames:
        chunk.append(one)
        if len(chunk) == count or len(chunk) * one.image.size / 3 > CHUNK_PIXELS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Lines:
    """NAME.jsonl: it has its name from the start, as every line is whole when it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self._file = open(self.path, "w", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, one: Frame, found: Detections, ids: Sequence[int | None] | None) -> None:
        detections = []
        for i, (name, place, score, box) in enumerate(
            zip(found.names, found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        ):
            entry = {"name": name, "label": place, "score": round(score, 4), "box": [round(v, 2) for v in box]}
            detections.append(entry if ids is None else entry | {"id": ids[i]})
        line = {"frame": one.number, "time": round(one.time, 4), "detections": detections}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()


class _Film:
    """NAME.mp4, which gets its name when it is closed, after an error or Ctrl-C too: what is in it is sound."""

    def __init__(self, path: Path, frames: Frames) -> None:
        self.path = path
        self._av = require()
        self._frames = frames
        self._stack = ExitStack()
        self._last = -1
        self._failed = False

    def __enter__(self) -> Self:
        av, frames = self._av, self._frames
        place = self._stack.enter_context(replacing(self.path, av.FFmpegError))
        self._container = self._stack.enter_context(av.open(str(place), "w", format="mp4"))
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._stream = stream = self._container.add_stream(codec, rate=Fraction(frames.rate).limit_denominator(1001))
        # The colours are stored at half the size: sides must be even. One row or column is repeated for that.
        stream.width, stream.height = frames.width + frames.width % 2, frames.height + frames.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = CLOCK
        stream.codec_context.sample_aspect_ratio = frames.aspect
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "23"}
        else:
            stream.bit_rate = int(2 * frames.rate * stream.width * stream.height)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._failed:  # to write on after a failure kills the process; the half of a file gets no name
            self._stack.__exit__(kind, error, at)
            return
        with self._stack:
            self._write(None)

    def add(self, seconds: float, image: Image.Image) -> None:
        pixels = np.asarray(image)
        pad = [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)]
        encoded = self._av.VideoFrame.from_ndarray(np.pad(pixels, pad, mode="edge"), format="rgb24")
        self._last = max(self._last + 1, round(seconds / CLOCK))
        encoded.pts, encoded.time_base = self._last, CLOCK
        self._write(encoded)

    def _write(self, encoded: Any) -> None:
        """One frame; None for what the encoder still holds."""
        try:
            for packet in self._stream.encode(encoded):
                self._container.mux(packet)
        except self._av.FFmpegError as error:
            self._failed = True
            raise WorkError(f"cannot write {self.path}: {what_is_wrong(error)}") from error
