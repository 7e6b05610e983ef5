"""Detection in files: images and videos, folders and patterns in; drawn images, videos and result files out."""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.atomic_files import only_this, replacing, what_is_wrong
from retinanet.common.errors import WorkError
from retinanet.data.image_io import ImageError, opened, pixels, read
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.inference.image_saving import encode
from retinanet.predict import frames, tracking
from retinanet.predict.inputs import Sources, find_sources
from retinanet.predict.outputs import FORMATS, OutputOptions, Writer
from retinanet.predict.predictor import CHUNK_PIXELS, Callbacks, Predictor, Tiling, chunked
from retinanet.predict.video import VideoOptions, VideoResult, predict_video

THRESHOLD = 0.3
"""Default threshold for results that people look at; an evaluation needs all detections."""
READERS = 4  # threads that decode ahead of the network; Pillow decodes without Python's lock


@dataclass
class FilesResult:
    """What :func:`predict_files` did."""

    output: Path
    images: int = 0
    """Number of images."""
    detections: Counter[str] = field(default_factory=Counter)
    """Number of detections of each class name."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be read, and why."""
    unwritten: list[tuple[str, str]] = field(default_factory=list)
    """Images whose drawing or label file could not be written because of its name or size, and why."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Files in the folders that are not an image or video, or cannot be used, and why."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Changes that reading made (scaled, ignored or left out), and the files of each."""
    files: list[Path] = field(default_factory=list)
    """Result files and annotated videos, without the drawn images."""
    videos: list[VideoResult] = field(default_factory=list)
    """One for each video, camera and stream that could be read."""


def predict_files(
    detector: Detector,
    sources: Sources | str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    tiling: Tiling | None = None,
    outputs: OutputOptions | None = None,
    videos: VideoOptions | None = None,
    callbacks: Callbacks | None = None,
    **options: Any,
) -> FilesResult:
    """Detect objects in images and videos, and write the results into a folder.

    Memory does not grow with the number of images, except for their names, or with the length of videos. Files that
    cannot be read are reported and skipped. After an interruption or an error the result files hold all detections
    so far; where there are none, no folder is left.

    Args:
        sources: images, videos, folders (with their subfolders), patterns such as ``holiday/**/*.jpg``, ``camera:0``
            and URLs; or what :func:`retinanet.predict.inputs.find_sources` returned for them.
        output: a new or empty folder, or any folder with ``OutputOptions(overwrite=True)``. A drawn image has its name
            below the given folder, or its bare name. Where two would have the same name, the later one gets a number.
        tiling: detect in overlapping tiles.
        options: threshold (by default that of the best F1 where it is known, else 0.3), max_detections, size,
            batch_size and nms, as of :meth:`Detector.predict`.

    Raises:
        RequestError: a source does not exist or holds no image and no video, the output folder is not empty, a number
            is out of range, or a package is missing that videos need.
        WorkError: not one image or video could be read, or the output cannot be written.
    """
    output = Path(output)
    if options.get("threshold") is None:
        options["threshold"] = usual_threshold(detector)
    run = Predictor(detector, PredictOptions(**options), tiling)
    outputs, videos, callbacks = outputs or OutputOptions(), videos or VideoOptions(), callbacks or Callbacks()
    found = sources if isinstance(sources, Sources) else find_sources(sources)
    if found.videos:
        require_video(videos.track)
    outputs.require_folder(output)
    outputs.keep_sources(output, found)
    result = FilesResult(output, skipped=found.skipped)
    with nullcontext() if outputs.overwrite else _removed_if_empty(result):
        try:
            output.mkdir(parents=True, exist_ok=True)
            if found.images:
                _predict_images(run, found, result, outputs, callbacks)
            _predict_videos(run, found, result, outputs.draw, videos, callbacks)
        except OSError as error:
            raise WorkError(f"cannot write into {output}: {what_is_wrong(error)}") from error
        if result.unreadable and not result.images and not result.videos:
            raise _nothing_read("image" if found.images else "video", result.unreadable)
    return result


def _predict_images(
    run: Predictor, found: Sources, result: FilesResult, outputs: OutputOptions, callbacks: Callbacks
) -> None:
    def tiles_done(done: int, total: int) -> None:
        if callbacks.stop():
            raise KeyboardInterrupt
        callbacks.on_tiles(done, total)

    with ExitStack() as stack:
        writers: list[Writer] = [
            stack.enter_context(FORMATS[name](result.output, run.detector.class_names)) for name in outputs.formats
        ]
        result.files = [writer.path for writer in writers]
        for writer in writers:
            stack.callback(writer.problems, result.unreadable)
        done = 0
        for chunk in chunked(_decode_ahead(found), run.options.batch_size, lambda item: item.pixels):
            if callbacks.stop():
                raise KeyboardInterrupt
            images = [item.image for item in chunk if isinstance(item.image, Tensor)]
            detections = iter(run.predict(images, on_tiles=tiles_done))
            for item in chunk:
                if isinstance(item.image, ImageError):
                    result.unreadable.append((str(item.path), item.image.reason))
                    callbacks.on_problem(*result.unreadable[-1])
                else:
                    _write(item, item.image, next(detections), result, writers, outputs.draw)
            done += len(chunk)
            callbacks.on_images(done, len(found.images))


def _write(
    item: Decoded, image: Tensor, detections: Detections, result: FilesResult, writers: Sequence[Writer], draw: bool
) -> None:
    """Write and count one image's detections. A file that alone cannot be written is noted (see :func:`only_this`)."""
    result.images += 1
    result.detections.update(detections.names)
    for note in item.notes:
        result.notes.setdefault(note, []).append(str(item.path))
    try:
        for writer in writers:
            writer.add(item.path, item.name, (image.shape[1], image.shape[2]), detections)
        if draw:
            _save(detections.draw(image), result.output / item.name)
    except WorkError as error:
        if not only_this(error.__cause__):
            raise
        result.unwritten.append((str(item.path), str(error)))


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(image, temporary, "PNG" if path.suffix.lower() == ".png" else "JPEG")


def _predict_videos(
    run: Predictor, found: Sources, result: FilesResult, draw: bool, options: VideoOptions, callbacks: Callbacks
) -> None:
    for video in found.videos:
        if callbacks.stop():
            break
        try:
            made = predict_video(run, video, result.output, draw, options, callbacks)
        except frames.VideoError as error:
            result.unreadable.append((video.shown, error.reason))
            callbacks.on_problem(video.shown, error.reason)
        else:
            result.videos.append(made)
            result.files += made.files
            result.detections.update(made.detections)


@contextmanager
def _removed_if_empty(result: FilesResult) -> Iterator[None]:
    """A context that, after an error or an interruption before the first result, removes the files of images.

    The same command can then run again. The output folder was new or empty before.
    """
    existed = result.output.exists()
    try:
        yield
    except BaseException:
        if not result.images and not result.videos:
            for path in (*result.files, result.output / "classes.txt"):
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not existed:
                with suppress(OSError):  # the files of an interrupted video stay, and so their folder
                    result.output.rmdir()
        raise


def require_readable(found: Sources) -> None:
    """Check that one image can be opened. This takes milliseconds, where loading a model takes seconds.

    Raises:
        WorkError: there are only images, and none can be read.
    """
    unreadable: list[tuple[str, str]] = []
    for path, _ in found.images:
        try:
            with opened(path, found.max_pixels):
                return
        except ImageError as error:
            unreadable.append((str(path), error.reason))
    if unreadable and not found.videos:
        raise _nothing_read("image", unreadable)


def _nothing_read(kind: str, unreadable: Sequence[tuple[str, str]]) -> WorkError:
    first, reason = unreadable[0]
    more = f" (and {len(unreadable) - 1} more that cannot be read)" if len(unreadable) > 1 else ""
    return WorkError(f"no {kind} could be read: {first}: {reason}{more}")


def require_video(track: bool = False) -> None:
    """Check the packages for videos.

    Raises:
        RequestError: a package is missing that videos, or tracking in them, need.
    """
    frames.require()
    if track:
        tracking.require_trackers()


def usual_threshold(detector: Detector) -> float:
    """The default threshold: that of the best F1, or ``THRESHOLD`` where it is unknown, and not below the model's."""
    return max(THRESHOLD if detector.threshold is None else detector.threshold, detector.least_threshold)


@dataclass
class Decoded:
    """An image file after decoding, and what was changed in it; or why it cannot be read."""

    path: Path
    name: str
    image: Tensor | ImageError
    notes: list[str]

    @property
    def pixels(self) -> int:
        return self.image.shape[1] * self.image.shape[2] if isinstance(self.image, Tensor) else 0


def _decode_ahead(found: Sources) -> Iterator[Decoded]:
    """The images in their order, decoded in threads: a few ahead, or only one where they are large."""

    def decode(path: Path, name: str) -> Decoded:
        notes: list[str] = []
        try:
            return Decoded(path, name, read(path, notes=notes, max_pixels=found.max_pixels), notes)
        except ImageError as error:
            return Decoded(path, name, error, notes)

    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[tuple[int, Future[Decoded]]] = deque()
        for path, name in found.images:
            size = pixels(path, found.max_pixels)
            while ahead and (len(ahead) >= READERS or size + sum(s for s, _ in ahead) > CHUNK_PIXELS):
                yield ahead.popleft()[1].result()
            ahead.append((size, pool.submit(decode, path, name)))
        while ahead:
            yield ahead.popleft()[1].result()
