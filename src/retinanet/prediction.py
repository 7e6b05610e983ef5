"""Detection in files: pictures and videos, folders and patterns in; drawn pictures, videos and result files out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from retinanet.data.pictures import PictureError, read
from retinanet.errors import WorkError
from retinanet.files import replacing, require_new
from retinanet.result_files import FORMATS
from retinanet.source_files import find_sources

if TYPE_CHECKING:
    from retinanet.deploy.video import Pace, VideoMade
    from retinanet.detections import Detections
    from retinanet.detector import Detector

THRESHOLD = 0.3
"""Score above which a detection is worth showing to people; measuring wants all of them."""
READERS = 4  # threads that decode ahead of the network; Pillow decodes outside of Python's lock
CHUNK_PIXELS = 64e6  # decoded pictures kept at a time: about 200 MB, whatever the batch


@dataclass
class Predicted:
    """What came of it."""

    output: Path
    pictures: int = 0
    """Pictures looked at."""
    detections: Counter[str] = field(default_factory=Counter)
    """How many of each class name."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """File and reason."""
    files: list[Path] = field(default_factory=list)
    """Result files and annotated videos, without the drawn pictures."""
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
    track: bool = False,
    stride: int = 1,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] | None = None,
    on_frames: Callable[[Pace], None] | None = None,
    on_problem: Callable[[str, str], None] | None = None,
) -> Predicted:
    """Find objects in pictures and videos and write down what was found.

    Memory does not grow with the number of pictures but for their names, nor with the length of videos. What cannot be
    read is reported and passed over. What was found until an interruption or an error is in the result files.

    Args:
        sources: pictures, videos, folders (with their subfolders), patterns such as ``holiday/**/*.jpg``, ``camera:0``
            and URLs. A file that is named twice is looked at once.
        output: a new or empty folder. A drawn picture gets the name it has below the folder that was given, or its bare
            name; where two would have the same name the later gets a number.
        threshold: scores at or below it are dropped.
        max_detections: the most per picture; the model's own setting by default.
        size: resize pictures to this instead of the model's size.
        batch_size: pictures that go through the network together.
        slices, overlap, whole: look at pictures in tiles, see :func:`retinanet.slicing.predict_sliced`.
        draw: whether to write the pictures and videos with their detections drawn.
        formats: of the result files of pictures, see :mod:`retinanet.result_files`: json, csv, yolo. Videos have lines
            of JSON always, see :mod:`retinanet.deploy.video`.
        track, stride: of videos: numbers for objects that stay; look at every so many frames.
        stop: asked between batches; ends the work early when true. In the midst of pictures it raises
            KeyboardInterrupt, a video is ended.
        on_progress: called with (pictures done, pictures in all).
        on_frames: called with how far a video is.
        on_problem: called with (file, reason) for each picture or video that cannot be read.

    Raises:
        RequestError: a source does not exist or holds nothing to look at, the output folder holds something, or a
            package is missing that videos need.
        WorkError: not one picture or video could be read, or the output cannot be written.
    """
    output = Path(output)
    found = find_sources(sources)
    if found.videos:
        require_video(track)
    require_new(output, "with --output")
    made = Predicted(output)

    def look(images: Sequence[Any], threshold: float) -> list[Detections]:
        given: dict[str, Any] = {"max_detections": max_detections, "size": size, "batch_size": batch_size}
        if slices is None:
            return detector.predict(list(images), threshold=threshold, **given)
        from retinanet.slicing import predict_sliced

        given |= {"whole": whole, "threshold": threshold}
        return [predict_sliced(detector, image, slices, overlap, **given) for image in images]

    def problem(name: str, reason: str) -> None:
        made.unreadable.append((name, reason))
        if on_problem:
            on_problem(name, reason)

    def pictures() -> None:
        with ExitStack() as stack:
            writers = [stack.enter_context(FORMATS[name](output, detector.class_names)) for name in formats]
            made.files = [writer.path for writer in writers]
            stack.callback(lambda: [writer.problems(made.unreadable) for writer in writers])
            for chunk in _chunks(_decoded(found.pictures), batch_size):
                if stop():
                    raise KeyboardInterrupt
                results = iter(look([image for _, _, image in chunk if isinstance(image, Tensor)], threshold))
                for path, name, image in chunk:
                    if isinstance(image, PictureError):
                        problem(str(path), image.reason)
                        continue
                    detections = next(results)
                    made.pictures += 1
                    made.detections.update(detections.names)
                    for writer in writers:
                        writer.add(path, name, (image.shape[1], image.shape[2]), detections)
                    if draw:
                        _save(detections.draw(image), output / name)
                if on_progress:
                    on_progress(made.pictures + len(made.unreadable), len(found.pictures))

    def videos() -> None:
        from retinanet.deploy.frames import VideoError
        from retinanet.deploy.video import predict_video

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

    try:
        output.mkdir(parents=True, exist_ok=True)
        if found.pictures:
            pictures()
        if found.videos:
            videos()
    except OSError as error:
        raise WorkError(f"cannot write into {output}: {error.strerror or error}") from error
    if made.unreadable and not made.pictures and not made.videos:
        first, reason = made.unreadable[0]
        count = len(made.unreadable) - 1
        more = f" (and {count} more that cannot be read)" if count else ""
        raise WorkError(f"no {'picture' if found.pictures else 'video'} could be read: {first}: {reason}{more}")
    return made


def usual_threshold(detector: Detector) -> float:
    """Where nobody says: the one with the best F1, ``THRESHOLD`` where it is not known, no lower than the model can."""
    return max(THRESHOLD if detector.threshold is None else detector.threshold, detector.least_threshold)


def require_video(track: bool = False) -> None:
    """
    Raises:
        RequestError: a package is missing that videos, or tracking in them, need.
    """
    from retinanet.deploy import frames, tracking

    frames.require()
    if track:
        tracking.require_trackers()


Decoded = tuple[Path, str, "Tensor | PictureError"]


def _decoded(pictures: Iterable[tuple[Path, str]]) -> Iterator[Decoded]:
    """Pictures in their order, decoded in threads a few ahead."""

    def decode(path: Path) -> Tensor | PictureError:
        try:
            return read(path)
        except PictureError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[tuple[Path, str, Future[Any]]] = deque()
        for path, name in pictures:
            ahead.append((path, name, pool.submit(decode, path)))
            if len(ahead) > READERS:
                path, name, future = ahead.popleft()
                yield path, name, future.result()
        for path, name, future in ahead:
            yield path, name, future.result()


def _chunks(decoded: Iterable[Decoded], count: int) -> Iterator[list[Decoded]]:
    """Some pictures at a time: ``count``, or fewer where they are large."""
    chunk: list[Decoded] = []
    pixels = 0.0
    for item in decoded:
        chunk.append(item)
        pixels += item[2].shape[1] * item[2].shape[2] if isinstance(item[2], Tensor) else 0
        if len(chunk) == count or pixels > CHUNK_PIXELS:
            yield chunk
            chunk, pixels = [], 0.0
    if chunk:
        yield chunk


def _save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place:
        image.save(place, **({} if path.suffix.lower() == ".png" else {"quality": 92}))
