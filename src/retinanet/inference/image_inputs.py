"""The images of one call of :meth:`Detector.predict`: what was given becomes images, and each image a tensor."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from PIL import Image
from torch import Tensor

from retinanet.common.arguments import Nms
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.printable import listed
from retinanet.data.image_download import download, is_url, shown_url
from retinanet.data.image_io import ImageError, to_tensor
from retinanet.data.image_sources import expand, is_pattern
from retinanet.inference.detections import Detections
from retinanet.ops.image_batch import PreparedImage, batches_by_size

OnError = Literal["raise", "skip"]
SHOWN = 3  # images named in a message


class Given(NamedTuple):
    """What a caller gave."""

    form: Literal["one", "list", "stream"]
    images: Iterable[Any]


class PredictArguments(TypedDict, total=False):
    """The options of :meth:`Detector.predict`, for type checkers."""

    threshold: float | None
    max_detections: int | None
    size: int | None
    batch_size: int
    nms: Nms | None
    bgr: bool
    on_error: OnError


class Loaded(NamedTuple):
    """A decoded image."""

    pixels: Tensor
    """(3, H, W) uint8 RGB."""
    source: Any
    """What :attr:`Detections.source` is: a path, a URL, or the image itself."""
    content: bytes | None = None
    """The file behind a URL."""


def given_images(images: Any) -> Given:
    """One image, the images of a folder, a pattern, a list or a tuple, or those of any other iterable, lazily.

    Raises:
        RequestError: a folder or pattern holds no image, or it is an open file, whose lines would be images.
    """
    if isinstance(images, list | tuple):
        return Given("list", images)
    if isinstance(images, str | os.PathLike) and not is_url(images):
        name = os.fspath(images)
        if isinstance(name, str) and "\0" not in name and (os.path.isdir(name) or is_pattern(name)):
            return Given("list", [path for path, _ in expand(name, [])])
    if isinstance(images, bytearray | memoryview):
        return Given("one", [bytes(images)])
    if hasattr(images, "read") and not isinstance(images, Image.Image):
        raise RequestError(f"an open file is no image: give its path or its content, file.read(), not {shown(images)}")
    single = isinstance(images, str | bytes | os.PathLike | Image.Image | np.ndarray | Tensor | Mapping)
    return Given("one", [images]) if single or not isinstance(images, Iterable) else Given("stream", images)


def load_image(image: Any, notes: list[str] | None = None, bgr: bool = False) -> Loaded:
    """Decode one image of any kind.

    Args:
        image: as :meth:`Detector.predict` takes it.
        notes: what was scaled, ignored or left out of the image is added to this list.
        bgr: the channels of arrays are blue, green, red.

    Raises:
        ImageError: it cannot be read, or downloaded.
    """
    if is_url(image):
        content = download(image)
        try:
            return Loaded(to_tensor(content, notes), shown_url(image), content)
        except ImageError as error:
            raise type(error)(shown_url(image), error.reason) from error.__cause__
    if bgr and isinstance(image, np.ndarray) and image.ndim == 3:
        image = image[..., ::-1]
    if bgr and isinstance(image, Tensor):
        raise ImageError("given", "bgr is for arrays (H, W, 3), as OpenCV makes them: turn the tensor with flip(0)")
    return Loaded(to_tensor(image, notes), image)


class Reader:
    """Decodes the images of one call, and counts what there is to report.

    Args:
        form: of what was given.
        on_error: "raise", or "skip" to leave out images that cannot be read, with one warning at the end.
        bgr: the channels of arrays are blue, green, red.

    Raises:
        RequestError: ``on_error`` or ``bgr`` is something else.
    """

    def __init__(self, form: str = "one", on_error: OnError = "raise", bgr: bool = False) -> None:
        if on_error not in ("raise", "skip"):
            raise RequestError(f'on_error must be "raise" or "skip", not {shown(on_error)}')
        if not isinstance(bgr, bool):
            raise RequestError(f"bgr must be True or False, not {shown(bgr)}")
        self.many, self.skips, self.bgr = form != "one", on_error == "skip", bgr
        self.count = 0
        self.notes: Counter[str] = Counter()
        self.unread: list[str] = []

    def read(self, image: Any) -> Loaded | None:
        """The decoded image; None where it is skipped."""
        number, notes = self.count, list[str]()
        self.count += 1
        try:
            loaded = load_image(image, notes, self.bgr)
        except ImageError as error:
            if not self.many:
                raise
            which = f"image {number} (from 0)" if error.name == "given" else error.name
            if not self.skips:
                where = f"; it is image {number} (from 0)" if error.name == "given" else ""
                reason = f'{error.reason}{where}; on_error="skip" leaves such images out'
                raise type(error)(error.name, reason) from error.__cause__
            self.unread.append(f"{which}: {error.reason}")
            return None
        self.notes.update(notes)
        return loaded

    def read_all(self, images: Iterable[Any]) -> Iterator[Loaded]:
        """The decoded images one after the other, without those that are skipped."""
        return (loaded for image in images if (loaded := self.read(image)))

    def report(self) -> None:
        """Warn once for each kind of data that was scaled, ignored or left out, and once for the skipped images."""
        for note, count in self.notes.items():
            warn(f"{count} of {self.count} images: {note}")
        if self.unread:
            warn(
                f"{len(self.unread)} of {self.count} images cannot be read and are left out: "
                f"{listed(self.unread, SHOWN)}"
            )
        self.notes, self.unread = Counter(), []


def detect_in_batches(
    images: Iterable[Loaded],
    prepare: Callable[[Tensor], PreparedImage],
    detect: Callable[[Sequence[PreparedImage]], list[Detections]],
    batch_size: int,
) -> list[Detections]:
    """The detections of each image in order, computed in batches of one padded size.

    Args:
        images: read one after the other; their pixels are not kept.
        prepare: makes an image ready for the network.
        detect: the network and what follows, on images of one padded size.
    """
    sources: list[tuple[Any, bytes | None]] = []

    def prepared() -> Iterator[tuple[int, PreparedImage]]:
        for i, image in enumerate(images):
            sources.append((image.source, image.content))
            yield i, prepare(image.pixels)

    results: dict[int, Detections] = {}
    for group in batches_by_size(prepared(), lambda item: item[1].padded, batch_size):
        indices, batch = zip(*group, strict=True)
        for i, found in zip(indices, detect(batch), strict=True):
            source, content = sources[i]
            results[i] = replace(found, source=source, content=content)
    return [results[i] for i in range(len(sources))]


def in_windows(
    images: Iterable[Any], count: int, detect: Callable[[list[Any]], list[Detections]], finish: Callable[[], None]
) -> Iterator[Detections]:
    """The detections of an endless or long iterable, ``count`` images at a time; ``finish`` is called at the end."""
    waiting = iter(images)
    try:
        while some := list(islice(waiting, count)):
            yield from detect(some)
    finally:
        finish()


def warn(text: str) -> None:
    """Warn at the line outside of this package that called it."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("retinanet."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
