"""Detection in files: images and videos, folders and patterns in; drawn images, videos and result files out."""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.arguments import whole as whole_number
from retinanet.common.atomic_files import only_this, replacing, require_new, what_is_wrong
from retinanet.common.errors import RequestError, WorkError
from retinanet.data.image_io import ImageError, opened, pixels, read
from retinanet.inference.tiling import predict_sliced, shared_pixels
from retinanet.predict.inputs import Sources, find_sources
from retinanet.predict.outputs import FORMATS

if TYPE_CHECKING:
    from retinanet.inference.detections import Detections
    from retinanet.inference.detector import Detector
    from retinanet.predict.video import Pace, VideoMade

THRESHOLD = 0.3
"""Score above which a detection is worth showing to people; measuring wants all of them."""
READERS = 4  # threads that decode ahead of the network; Pillow decodes outside of Python's lock
CHUNK_PIXELS = 64e6  # decoded images kept at a time: about 200 MB, whatever the batch


@dataclass
class Predicted:
    """What came of it."""

    output: Path
    images: int = 0
    """Images looked at."""
    detections: Counter[str] = field(default_factory=Counter)
    """How many of each class name."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be read, and why."""
    unwritten: list[tuple[str, str]] = field(default_factory=list)
    """Images whose drawing or label file could not be written, because of its name or size, and why."""
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    """What in the folders was neither image nor video, or not to be used, and why."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """What was scaled, ignored or left out of images, and the files of each kind."""
    files: list[Path] = field(default_factory=list)
    """Result files and annotated videos, without the drawn images."""
    videos: list[VideoMade] = field(default_factory=list)
    """What came of each video, camera and stream that could be read."""


def predict_files(
    detector: Detector,
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    threshold: float = THRESHOLD,
    max_detections: int | None = None,
    size: int | None = None,
    batch_size: int = 8,
    slices: int | None = None,
    overlap: float = 0.2,
    whole: bool = True,
    draw: bool = True,
    formats: Sequence[str] = ("json",),
    max_pixels: int | None = None,
    track: bool = False,
    stride: int = 1,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] | None = None,
    on_frames: Callable[[Pace], None] | None = None,
    on_tiles: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str, str], None] | None = None,
) -> Predicted:
    """Find objects in images and videos and write down what was found.

    Memory does not grow with the number of images but for their names, nor with the length of videos. What cannot be
    read is reported and passed over. What was found until an interruption or an error is in the result files; where
    that is nothing, no folder is left.

    Args:
        sources: images, videos, folders (with their subfolders), patterns such as ``holiday/**/*.jpg``, ``camera:0``
            and URLs. A file that is named twice is looked at once.
        output: a new or empty folder. A drawn image gets the name it has below the folder that was given, or its bare
            name; where two would have the same name the later gets a number.
        threshold: scores at or below it are dropped.
        max_detections: the most per image; the model's own setting by default.
        size: resize images to this instead of the model's size.
        batch_size: images that go through the network together.
        slices, overlap, whole: look at images in tiles, see :func:`retinanet.inference.tiling.predict_sliced`.
        max_pixels: images of more pixels are not read, see :func:`retinanet.data.image_io.pixel_limit`.
        draw: whether to write the images and videos with their detections drawn.
        formats: of the result files of images, see :mod:`retinanet.predict.outputs`: json, csv, yolo. Videos have
            lines of JSON always, see :mod:`retinanet.predict.video`.
        track, stride: of videos: numbers for objects that stay; look at every so many frames.
        stop: asked between batches; ends the work early when true. In the midst of images it raises
            KeyboardInterrupt, a video is ended.
        on_progress: called with (images done, images in all).
        on_frames: called with how far a video is.
        on_tiles: called with (tiles done, tiles of the image) for each image that is predicted in several tiles.
        on_problem: called with (file, reason) for each image or video that cannot be read.

    Raises:
        RequestError: a source does not exist or holds nothing to look at, the output folder holds something, a number
            is out of range, or a package is missing that videos need.
        WorkError: not one image or video could be read, or the output cannot be written.
    """
    output = Path(output)
    threshold = THRESHOLD if threshold is None else threshold
    PredictOptions(threshold, max_detections, size, batch_size)
    shared_pixels(1 if slices is None else slices, overlap)
    whole_number("stride", stride)
    if max_pixels is not None:
        whole_number("max_pixels", max_pixels)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise RequestError(f"there is no format {unknown[0]}: give {', '.join(FORMATS)}")
    found = find_sources(sources)
    if found.videos:
        require_video(track)
    require_new(output, "with --output")
    made = Predicted(output, passed_over=found.passed_over)

    def tiles_done(done: int, total: int) -> None:
        if stop():
            raise KeyboardInterrupt
        if on_tiles:
            on_tiles(done, total)

    def look(
        images: Sequence[Any], threshold: float, tiles: Callable[[int, int], None] | None = None
    ) -> list[Detections]:
        given: dict[str, Any] = {"max_detections": max_detections, "size": size, "batch_size": batch_size}
        if slices is None:
            return detector.predict(list(images), threshold=threshold, **given)
        given |= {"whole": whole, "threshold": threshold, "on_progress": tiles}
        return [predict_sliced(detector, image, slices, overlap, **given) for image in images]

    def problem(name: str, reason: str) -> None:
        made.unreadable.append((name, reason))
        if on_problem:
            on_problem(name, reason)

    def predict_images() -> None:
        with ExitStack() as stack:
            writers = [stack.enter_context(FORMATS[name](output, detector.class_names)) for name in formats]
            made.files = [writer.path for writer in writers]
            stack.callback(lambda: [writer.problems(made.unreadable) for writer in writers])
            done = 0
            for chunk in _chunks(_decoded(found.images, max_pixels), batch_size):
                if stop():
                    raise KeyboardInterrupt
                images = [image for _, _, image, _ in chunk if isinstance(image, Tensor)]
                results = iter(look(images, threshold, tiles_done))
                for path, name, image, notes in chunk:
                    if isinstance(image, ImageError):
                        problem(str(path), image.reason)
                        continue
                    detections = next(results)
                    made.images += 1
                    made.detections.update(detections.names)
                    for note in notes:
                        made.notes.setdefault(note, []).append(str(path))
                    with _noted(path, made.unwritten):
                        for writer in writers:
                            writer.add(path, name, (image.shape[1], image.shape[2]), detections)
                        if draw:
                            _save(detections.draw(image), output / name)
                done += len(chunk)
                if on_progress:
                    on_progress(done, len(found.images))

    def videos() -> None:
        from retinanet.predict.frames import VideoError
        from retinanet.predict.video import predict_video

        options: dict[str, Any] = {
            "threshold": threshold,
            "least": detector.least_threshold,
            "batch_size": batch_size,
            "draw": draw,
            "track": track,
            "stride": stride,
            "stop": stop,
            "on_progress": on_frames,
        }
        for video in found.videos:
            if stop():
                break
            try:
                done = predict_video(look, video, output, **options)
            except VideoError as error:
                problem(video.shown, error.reason)
            else:
                made.videos.append(done)
                made.files += done.files
                made.detections.update(done.detections)

    with _kept_where_used(output, made):
        try:
            output.mkdir(parents=True, exist_ok=True)
            if found.images:
                predict_images()
            if found.videos:
                videos()
        except OSError as error:
            raise WorkError(f"cannot write into {output}: {what_is_wrong(error)}") from error
        if made.unreadable and not made.images and not made.videos:
            raise _nothing_read("image" if found.images else "video", made.unreadable)
    return made


def require_readable(found: Sources, max_pixels: int | None = None) -> None:
    """Open images up to the first that is one, which takes milliseconds: a model takes seconds to load.

    Raises:
        WorkError: there are images only, and none can be read.
    """
    unreadable: list[tuple[str, str]] = []
    for path, _ in found.images:
        try:
            with opened(path, max_pixels):
                return
        except ImageError as error:
            unreadable.append((str(path), error.reason))
    if unreadable and not found.videos:
        raise _nothing_read("image", unreadable)


def _nothing_read(kind: str, unreadable: Sequence[tuple[str, str]]) -> WorkError:
    first, reason = unreadable[0]
    more = f" (and {len(unreadable) - 1} more that cannot be read)" if len(unreadable) > 1 else ""
    return WorkError(f"no {kind} could be read: {first}: {reason}{more}")


@contextmanager
def _kept_where_used(output: Path, made: Predicted) -> Iterator[None]:
    """A context that, left by an error or an interruption before the first result, leaves no files of images.

    The same command can then run again. ``output`` was new or empty before.
    """
    existed = output.exists()
    try:
        yield
    except BaseException:
        if not made.images and not made.videos:
            for path in (*made.files, output / "classes.txt"):
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not existed:
                with suppress(OSError):  # the files of an interrupted video stay, and their folder
                    output.rmdir()
        raise


def usual_threshold(detector: Detector) -> float:
    """Where nobody says: the one with the best F1, ``THRESHOLD`` where it is not known, no lower than the model can."""
    return max(THRESHOLD if detector.threshold is None else detector.threshold, detector.least_threshold)


def require_video(track: bool = False) -> None:
    """
    Raises:
        RequestError: a package is missing that videos, or tracking in them, need.
    """
    from retinanet.predict import frames, tracking

    frames.require()
    if track:
        tracking.require_trackers()


Decoded = tuple[Path, str, "Tensor | ImageError", "list[str]"]


def _decoded(images: Iterable[tuple[Path, str]], max_pixels: int | None = None) -> Iterator[Decoded]:
    """Images in their order with the notes on each, decoded in threads: a few ahead, or one where they are large."""

    def decode(path: Path) -> tuple[Tensor | ImageError, list[str]]:
        notes: list[str] = []
        try:
            return read(path, notes=notes, max_pixels=max_pixels), notes
        except ImageError as error:
            return error, notes

    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[tuple[Path, str, int, Future[Any]]] = deque()
        for path, name in images:
            size = pixels(path, max_pixels)
            while ahead and (len(ahead) >= READERS or size + sum(item[2] for item in ahead) > CHUNK_PIXELS):
                waited, its_name, _, future = ahead.popleft()
                yield waited, its_name, *future.result()
            ahead.append((path, name, size, pool.submit(decode, path)))
        for path, name, _, future in ahead:
            yield path, name, *future.result()


def _chunks(decoded: Iterable[Decoded], count: int) -> Iterator[list[Decoded]]:
    """Some images at a time: ``count``, or fewer where they are large."""
    chunk: list[Decoded] = []
    total = 0.0
    for item in decoded:
        chunk.append(item)
        total += item[2].shape[1] * item[2].shape[2] if isinstance(item[2], Tensor) else 0
        if len(chunk) == count or total > CHUNK_PIXELS:
            yield chunk
            chunk, total = [], 0.0
    if chunk:
        yield chunk


@contextmanager
def _noted(path: Path, unwritten: list[tuple[str, str]]) -> Iterator[None]:
    """A context in which a file that cannot be written is noted, where all others can be (see :func:`only_this`)."""
    try:
        yield
    except WorkError as error:
        if not only_this(error.__cause__):
            raise
        unwritten.append((str(path), str(error)))


def _save(image: Any, path: Path) -> None:
    with replacing(path) as place:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, **({} if path.suffix.lower() == ".png" else {"quality": 92}))
