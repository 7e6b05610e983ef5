"""Objects in videos, cameras and streams: an annotated video, and a JSON line for each frame."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from retinanet.common.arguments import whole
from retinanet.common.atomic_files import replacing, what_is_wrong
from retinanet.common.errors import WorkError
from retinanet.inference.detections import Detections
from retinanet.predict.frames import Frame, Frames, VideoError, require
from retinanet.predict.inputs import Video
from retinanet.predict.predictor import Callbacks, Pace, Predictor, chunked
from retinanet.predict.tracking import Tracks

CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has; the first two play in browsers
CLOCK = Fraction(1, 90_000)  # the unit of times in the written video, as fine as any source's


@dataclass(frozen=True)
class VideoOptions:
    """Options for videos only.

    Raises:
        RequestError: ``stride`` is out of range.
    """

    track: bool = False
    """Give each object a number that it keeps from frame to frame."""
    stride: int = 1
    """Detect in every n-th frame."""

    def __post_init__(self) -> None:
        whole("stride", self.stride)


@dataclass
class VideoResult:
    """What :func:`predict_video` did."""

    source: str
    """The video, camera or stream, as :attr:`Video.shown`."""
    live: bool
    """Whether it never ends by itself."""
    frames: int = 0
    """Number of frames that went through the network."""
    seconds: float = 0.0
    """Time of the last of them."""
    detections: Counter[str] = field(default_factory=Counter)
    """Number of detections of each class name."""
    objects: int | None = None
    """Number of different objects; None without tracking."""
    files: list[Path] = field(default_factory=list)
    problem: str | None = None
    """Why the result is not the whole video."""
    dropped: int = 0
    """Frames of a live source that came while the network was busy."""
    audio_dropped: bool = False
    stopped: bool = False
    """Whether a callback ended it."""


def predict_video(
    run: Predictor,
    video: Video,
    output: Path,
    draw: bool = True,
    options: VideoOptions | None = None,
    callbacks: Callbacks | None = None,
) -> VideoResult:
    """Detect objects in the frames of a video.

    Memory does not grow with its length. NAME.jsonl grows line by line, so that other programs can follow it.
    NAME.mp4 gets its name at the end. However the work ends, both are complete: the video plays, the lines are whole.

    Args:
        run: its batch size is that of frames; frames of a live source go one by one.
        output: an existing folder.
        draw: write the annotated video. It has the frames' own times, and no sound.

    Raises:
        VideoError: it cannot be opened, or has not one frame.
        WorkError: the output cannot be written.
    """
    options, callbacks = options or VideoOptions(), callbacks or Callbacks()
    result = VideoResult(video.shown, video.live)
    numbers: set[int] = set()
    started = time.monotonic()

    def report(total: int | None) -> None:
        rate = result.frames / max(1e-9, time.monotonic() - started)
        callbacks.on_frames(Pace(video, result.frames, total, rate))

    with ExitStack() as stack:
        frames = stack.enter_context(Frames(video, options.stride, 2 * run.options.batch_size, callbacks.stop))
        tracks = Tracks(frames.rate, run.threshold, run.detector.least_threshold) if options.track else None
        lines: _Lines | None = None
        for chunk in chunked(frames, 1 if frames.live else run.options.batch_size, lambda frame: frame.image.size // 3):
            results = run.predict([frame.image for frame in chunk], tracks.faint if tracks else None)
            if lines is None:  # not before the first frames, which tell the size
                path = output / f"{video.name}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = stack.enter_context(_Lines(path))
                film = stack.enter_context(_Film(path.with_suffix(".mp4"), frames)) if draw else None
                result.files = [path] if film is None else [film.path, path]
                result.audio_dropped = draw and frames.has_audio
            for frame, detections in zip(chunk, results, strict=True):
                ids = None
                if tracks:
                    detections, ids = tracks.update(detections, frame.time)
                    numbers.update(number for number in ids if number is not None)
                lines.add(frame, detections, ids)
                if film:
                    film.add(frame.time, detections.draw(frame.image, ids))
                result.frames += 1
                result.seconds = frame.time
                result.detections.update(detections.names)
            report(frames.total)
    if result.frames:
        report(result.frames)
    result.stopped = callbacks.stop()
    result.problem, result.dropped = frames.problem, frames.dropped
    result.objects = len(numbers) if options.track else None
    if not result.frames and not result.stopped:
        raise VideoError(video.shown, frames.problem or "there is no frame in it")
    return result


class _Lines:
    """NAME.jsonl. It has its name from the start, since lines are written whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self._file = open(self.path, "w", encoding="utf-8")
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def add(self, frame: Frame, detections: Detections, ids: Sequence[int | None] | None) -> None:
        """Write one line. ``ids`` has an object's number for each detection; None without tracking."""
        entries: list[dict[str, Any]] = [
            {"name": name, "label": label, "score": round(score, 4), "box": [round(side, 2) for side in box]}
            for name, label, score, box in detections.rows()
        ]
        for entry, number in zip(entries, ids or (), strict=ids is not None):
            entry["id"] = number
        line = {"frame": frame.number, "time": round(frame.time, 4), "detections": entries}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()


class _Film:
    """NAME.mp4. It gets its name when it is closed, also after an error or Ctrl-C: it is a valid video then."""

    def __init__(self, path: Path, frames: Frames) -> None:
        self.path = path
        self._av = require()
        self._frames = frames
        self._stack = ExitStack()
        self._last = -1
        self._failed = False

    def __enter__(self) -> Self:
        av, frames = self._av, self._frames
        temporary = self._stack.enter_context(replacing(self.path, av.FFmpegError))
        self._container = self._stack.enter_context(av.open(str(temporary), "w", format="mp4"))
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._stream = stream = self._container.add_stream(codec, rate=Fraction(frames.rate).limit_denominator(1001))
        # The colours are stored at half the size, so sides must be even. Otherwise one row or column is repeated.
        stream.width, stream.height = frames.width + frames.width % 2, frames.height + frames.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = CLOCK
        stream.codec_context.sample_aspect_ratio = frames.aspect
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "23"}
        else:
            stream.bit_rate = int(2 * frames.rate * stream.width * stream.height)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._failed:  # writing on after a failure crashes the process, so the file gets no name
            self._stack.__exit__(*error)
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
        """Write one frame; None writes the frames that the encoder still holds."""
        try:
            for packet in self._stream.encode(encoded):
                self._container.mux(packet)
        except self._av.FFmpegError as error:
            self._failed = True
            raise WorkError(f"cannot write {self.path}: {what_is_wrong(error)}") from error
