"""Detection in files: pictures, folders and patterns in; drawn pictures and result files out."""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from retinanet.data.listing import picture_files
from retinanet.data.pictures import PictureError, read
from retinanet.errors import RequestError, WorkError
from retinanet.files import replacing, require_new
from retinanet.result_files import FORMATS

if TYPE_CHECKING:
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
    """Result files, without the drawn pictures."""


def predict_files(
    detector: Detector,
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    threshold: float = THRESHOLD,
    max_detections: int | None = None,
    size: int | None = None,
    batch_size: int = 8,
    draw: bool = True,
    formats: Sequence[str] = ("json",),
    on_progress: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str, str], None] | None = None,
) -> Predicted:
    """Find objects in pictures and write down what was found.

    Memory does not grow with the number of pictures but for their names. A picture that cannot be read is reported and
    passed over. What was found until an interruption or an error is in the result files.

    Args:
        sources: pictures, folders (with their subfolders), and patterns such as ``holiday/**/*.jpg``. A file that is
            named twice is looked at once.
        output: a new or empty folder. A drawn picture gets the name it has below the folder that was given, or its bare
            name; where two would have the same name the later gets a number.
        threshold: scores at or below it are dropped.
        max_detections: the most per picture; the model's own setting by default.
        size: resize pictures to this instead of the model's size.
        batch_size: pictures that go through the network together.
        draw: whether to write the pictures with their detections drawn.
        formats: of the result files, see :mod:`retinanet.result_files`: json, csv, yolo.
        on_progress: called with (pictures done, pictures in all).
        on_problem: called with (file, reason) for each picture that cannot be read.

    Raises:
        RequestError: a source does not exist or holds no picture, or the output folder holds something.
        WorkError: not one picture could be read, or the output cannot be written.
    """
    output = Path(output)
    pictures = find_pictures(sources)
    require_new(output, "with --output")
    made = Predicted(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writers = [stack.enter_context(FORMATS[name](output, detector.class_names)) for name in formats]
            made.files = [writer.path for writer in writers]
            stack.callback(lambda: [writer.problems(made.unreadable) for writer in writers])
            for chunk in _chunks(_decoded(pictures), batch_size):
                images = [image for _, _, image in chunk if isinstance(image, Tensor)]
                found = detector.predict(
                    images, threshold=threshold, max_detections=max_detections, size=size, batch_size=batch_size
                )
                for path, name, image in chunk:
                    if isinstance(image, PictureError):
                        made.unreadable.append((str(path), image.reason))
                        if on_problem:
                            on_problem(str(path), image.reason)
                        continue
                    detections = found.pop(0)
                    made.pictures += 1
                    made.detections.update(detections.names)
                    for writer in writers:
                        writer.add(path, name, (image.shape[1], image.shape[2]), detections)
                    if draw:
                        _save(detections.draw(image), output / name)
                if on_progress:
                    on_progress(made.pictures + len(made.unreadable), len(pictures))
    except OSError as error:
        raise WorkError(f"cannot write into {output}: {error.strerror or error}") from error
    if not made.pictures:
        first, reason = made.unreadable[0]
        more = f" (and {len(pictures) - 1} more that cannot be read)" if len(pictures) > 1 else ""
        raise WorkError(f"no picture could be read: {first}: {reason}{more}")
    return made


def find_pictures(sources: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Every picture once, with the name of what is written for it, relative to the output folder.

    Raises:
        RequestError: a source that does not exist, matches nothing or holds no picture.
    """
    seen: set[str] = set()
    names: dict[str, int] = {}
    result = []
    for path, name in (found for source in sources for found in _expand(source)):
        absolute = os.path.abspath(path)
        if absolute not in seen:
            seen.add(absolute)
            result.append((path, _free(name, names)))
    if not result:
        raise RequestError("which pictures? give files, folders or patterns")
    return result


def _expand(source: str | Path) -> Iterator[tuple[Path, Path]]:
    """Files of one source, and their names below it."""
    path = Path(source)
    if path.is_dir():
        empty = True
        for file in picture_files(path):
            empty = False
            yield file, file.relative_to(path)
        if empty:
            raise RequestError(f"there is no picture in the folder {path} or its subfolders")
    elif path.is_file():
        yield path, Path(path.name)
    elif path.exists():
        raise RequestError(f"{path} is neither a file nor a folder")
    elif glob.has_magic(str(source)):
        empty = True
        for match in map(Path, sorted(glob.glob(str(source), recursive=True))):
            for file in picture_files(match) if match.is_dir() else [match]:
                empty = False
                yield file, file.relative_to(match if match.is_dir() else match.parent)
        if empty:
            raise RequestError(f"nothing matches the pattern {source}")
    else:
        raise RequestError(f"there is no picture or folder {source}")


def _free(name: Path, taken: dict[str, int]) -> str:
    """The name of the drawn picture: PNG stays PNG, all others become JPEG; numbered where it is taken."""
    suffix = name.suffix if name.suffix.lower() in (".jpg", ".jpeg", ".png") else ".jpg"
    # Without its ending, since YOLO's text files have another; file systems that ignore case take A and a for one.
    plain = name.with_suffix("")
    free, key = plain, str(plain).lower()
    while str(free).lower() in taken:
        taken[key] += 1
        free = plain.with_name(f"{plain.name}-{taken[key]}")
    taken[str(free).lower()] = 1
    return f"{free.as_posix()}{suffix}"


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
