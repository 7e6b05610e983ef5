"""Batches of images for training and for evaluation, loaded by worker processes or by the calling process.

Training images come as an endless stream of epochs, each in a new seeded order, cut into global batches. An epoch has
every image once, or more often where :mod:`retinanet.data.sampler` repeats it. The stream depends on neither workers
nor processes and can be entered at any step, so a run can be resumed exactly.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import AuthenticationError
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.fields import shown
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.config.settings import Settings
from retinanet.data import augment
from retinanet.data.dataset import DetectionData
from retinanet.data.sampler import Repeats, repeat_factors
from retinanet.ops.image_batch import ImageBatch, batch_size_of, batches_by_size, prepare_image
from retinanet.ops.resize import pad_batch, padded_size

Transform = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(image (3, H, W) uint8, boxes (n, 4) float32, labels (n,) int64, -2 to ignore) -> the same, of the same H and W."""
KEPT_ORDERS = 4  # epochs whose order is kept: a batch may reach into several
T = TypeVar("T")
Item_co = TypeVar("Item_co", covariant=True)


@dataclass
class Batch:
    """Images to train on."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB, padded with zeros on the right and below."""
    sizes: Tensor
    """(B, 2) int64, height and width of each image within its padding."""
    boxes: list[Tensor]
    """B times (n, 4) float32 in the pixels of ``images``."""
    labels: list[Tensor]
    """B times (n,) int64; -2 is a region to ignore."""
    indices: list[int]
    """Indices of the images in the data set."""
    draws: list[int]
    """A number for each image that seeds its augmentation: the epoch, unless images are repeated."""

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from directly; called by torch's loader."""
        return replace(self, images=self.images.pin_memory(), sizes=self.sizes.pin_memory())


@dataclass
class EvalBatch(ImageBatch):
    """Images to run the detector on, all of one padded size."""

    indices: list[int]
    """Indices of the images in the data set."""


class Source(Protocol[Item_co]):
    """A function of an index, as a loader process needs it."""

    def __getitem__(self, key: int, /) -> Item_co: ...


def choose_workers(world: int = 1) -> int:
    """How many loader processes each of ``world`` processes on this machine gets, from the CPUs that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // world - 1)) if cores > 1 else 0


def train_batches(
    data: DetectionData,
    settings: Settings,
    *,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    transform: Transform | None = None,
) -> Iterator[list[Batch]]:
    """The endless sequence of training steps.

    Step s takes the images s * B to (s + 1) * B of the stream, where B is ``train.batch_size``. Process ``rank`` gets
    every ``world``-th of them, in ``train.accumulate`` micro-batches. All micro-batches of all processes are padded to
    the size of the global batch: the loss depends neither on the number of processes nor on that of micro-batches.

    Args:
        start_step: the first step of the iterator.
        workers: loader processes; 0 loads in the calling process, -1 chooses from the number of CPUs.
        transform: a callable for further augmentation, which runs after decoding and before the augmentation of the
            settings. It gets (image (3, H, W) uint8, boxes (n, 4) float32, labels (n,) int64 with -2 for regions to
            ignore) and returns the same three; the image must keep its size. Torch's random numbers are seeded for
            each call from (seed, draw, image), so transforms that use them, as torchvision's do, are repeatable.

    Returns:
        An iterator over steps; each is a list of ``accumulate`` batches.

    Raises:
        RequestError: at once, where a process would get fewer images than it has micro-batches.
        WorkError: while iterating, where an image cannot be decoded.
    """
    train = settings.train
    share = train.batch_size // world
    if not 0 <= rank < world:
        raise RequestError(f"process {rank} of {world}: processes count from 0 to {world - 1}")
    if share < train.accumulate:
        raise RequestError(
            f"train.batch_size {train.batch_size} is too small for {world} processes with {train.accumulate} "
            f"micro-batches each (train.accumulate): it must be at least {world * train.accumulate}"
        )
    augmentation = settings.data.augmentation
    if settings.model.preprocessing.resize == "none" and (augmentation.sizes or augmentation.zoom != (1.0, 1.0)):
        raise RequestError(
            "data.augmentation.sizes and zoom have no effect while model.preprocessing.resize is none: choose another"
        )
    steps = TrainingSteps(data, settings, rank, world, transform)
    return _load(steps, itertools.count(start_step), choose_workers(world) if workers < 0 else workers)


@dataclass
class TrainingSteps:
    """``steps[s]`` is one process's share of step s, as a list of micro-batches."""

    data: DetectionData
    settings: Settings
    rank: int = 0
    world: int = 1
    transform: Transform | None = None
    _repeats: Repeats = field(init=False, repr=False)
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        threshold = self.settings.data.repeat_threshold
        factors = repeat_factors(self.data, threshold) if threshold > 0 else np.ones(len(self.data))
        self._repeats = Repeats.of(factors, self.settings.train.seed)

    def images(self, step: int) -> list[tuple[int, int]]:
        """(number of the draw, image) of the global batch; see :meth:`Repeats.drawn`."""
        count, total = self.settings.train.batch_size, self._repeats.draws
        chosen = []
        for position in range(step * count, (step + 1) * count):
            epoch, within = divmod(position, total)
            image, number = self._order(epoch)[:, within].tolist()
            chosen.append((number, image))
        return chosen

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """(2, T) the images of an epoch in order, and the numbers of their draws."""
        if epoch not in self._orders:
            if len(self._orders) >= KEPT_ORDERS:
                self._orders.clear()
            train, drawn = self.settings.train, np.stack(self._repeats.drawn(epoch))
            shown = order(train.seed, epoch, self.data.portrait()[drawn[0]], train.batch_size)
            self._orders[epoch] = drawn[:, shown]
        return self._orders[epoch]

    def draw(self, number: int, image: int) -> augment.Drawn:
        """The augmentation of one draw of an image."""
        data, settings = self.data, self.settings
        boxes = data.boxes(image)[~data.crowd(image)]
        return augment.draw(
            settings.train.seed,
            number,
            image,
            data.size(image),
            boxes,
            settings.data.augmentation,
            settings.model.preprocessing,
        )

    def __getitem__(self, step: int) -> list[Batch]:
        chosen = self.images(step)
        drawn = [self.draw(*draw) for draw in chosen]
        padded = padded_size((d.size for d in drawn), self.settings.model.preprocessing)
        share = list(zip(chosen, drawn))[self.rank :: self.world]
        count = self.settings.train.accumulate
        bounds = [len(share) * i // count for i in range(count + 1)]
        return [self._micro_batch(share[start:end], padded) for start, end in itertools.pairwise(bounds)]

    def _micro_batch(self, share: list[tuple[tuple[int, int], augment.Drawn]], padded: tuple[int, int]) -> Batch:
        interpolation = self.settings.model.preprocessing.interpolation
        images, boxes, labels = zip(
            *(augment.apply(*self._labelled(*chosen), drawn, interpolation) for chosen, drawn in share)
        )
        sizes = torch.tensor([drawn.size for _, drawn in share])
        draws, indices = zip(*(chosen for chosen, _ in share))
        return Batch(pad_batch(images, padded), sizes, list(boxes), list(labels), list(indices), list(draws))

    def _labelled(self, number: int, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """One decoded image, its boxes and labels, after the user's own transform."""
        image = self.data.read(index)
        boxes = torch.from_numpy(self.data.boxes(index).copy())
        labels = torch.from_numpy(self.data.training_labels(index))
        if self.transform is None:
            return image, boxes, labels
        shape = image.shape
        with torch.random.fork_rng(devices=[]):
            seed = int(augment.rng(2, self.settings.train.seed, number, index).integers(1 << 62))
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's too
            image, boxes, labels = _transformed(self.transform(image, boxes, labels))
        if image.dtype != torch.uint8 or image.shape != shape:
            kind = str(image.dtype).removeprefix("torch.")
            raise RequestError(
                f"the transform returned a {kind} image of shape {tuple(image.shape)} from one of {tuple(shape)}; "
                "it must keep uint8 and the size"
            )
        return image.as_subclass(Tensor), boxes.as_subclass(Tensor).float(), labels.as_subclass(Tensor).long()


def _transformed(result: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What a user's own transform returned.

    Raises:
        RequestError: it is no image, boxes and labels that belong together.
    """
    if not isinstance(result, tuple | list) or len(result) != 3 or not all(isinstance(x, Tensor) for x in result):
        raise RequestError(f"the transform must return three tensors (image, boxes, labels), not {shown(result)}")
    image, boxes, labels = result
    if boxes.shape != (len(boxes), 4) or labels.shape != boxes.shape[:1]:
        raise RequestError(
            f"the transform returned boxes of shape {tuple(boxes.shape)} and labels of shape {tuple(labels.shape)}; "
            "they must be (n, 4) and (n,)"
        )
    if not torch.isfinite(boxes).all():
        raise RequestError("the transform returned boxes that are not finite; leave out boxes that it cannot move")
    return image, boxes, labels


def order(seed: int, epoch: int, portrait: NDArray[np.bool_], batch_size: int) -> NDArray[np.int64]:
    """The order of an epoch's draws: a permutation (T,).

    A batch has either portrait or landscape images, because a batch of both is padded to a square and costs half as
    much again. Only the rest, less than a batch of either, is mixed.

    Args:
        portrait: (T,) whether a draw is of an image that is higher than wide.
    """
    rng, total = augment.rng(3, seed, epoch), len(portrait)
    drawn = rng.permutation(total)
    carry_over = -epoch * total % batch_size  # images that fill the last batch of the previous epoch
    first, rest = drawn[:carry_over], drawn[carry_over:]
    kinds = [rest[portrait[rest] == kind] for kind in (False, True)]
    left = np.concatenate([kind[len(kind) // batch_size * batch_size :] for kind in kinds])
    whole = [kind[: len(kind) // batch_size * batch_size].reshape(-1, batch_size) for kind in kinds]
    mixed = len(left) // batch_size * batch_size
    batches = np.concatenate([*whole, left[:mixed].reshape(-1, batch_size)])
    return np.concatenate([first, rng.permutation(batches).reshape(-1), left[mixed:]])


def eval_batches(
    data: DetectionData,
    preprocessing: PreprocessingSettings | None,
    indices: Iterable[int],
    batch_size: int = 8,
    workers: int = 0,
) -> Iterator[EvalBatch]:
    """Batches of the images, each once, resized for the model and not augmented.

    A batch only has images of one padded size, as in ``Detector.predict``, so that the detections of an image do not
    depend on the others. The order of the batches is not that of ``indices``. Without ``preprocessing`` images are
    neither resized nor padded.

    Raises:
        WorkError: while iterating, where an image cannot be decoded.
    """
    batches = list(batches_by_size(indices, lambda i: batch_size_of(data.size(i), preprocessing), batch_size))
    workers = choose_workers() if workers < 0 else workers
    return _load(EvaluationBatches(data, preprocessing, batches), range(len(batches)), min(workers, len(batches)))


@dataclass
class EvaluationBatches:
    """``batches[i]`` holds the images ``batches.chosen[i]``."""

    data: DetectionData
    preprocessing: PreprocessingSettings | None
    chosen: Sequence[list[int]]

    def __getitem__(self, number: int) -> EvalBatch:
        indices = self.chosen[number]
        images = [prepare_image(self.data.read(index), self.preprocessing) for index in indices]
        return EvalBatch.stack(images, indices=indices)


def _load(source: Source[T], keys: Iterable[int], workers: int) -> Iterator[T]:
    """``source[key]`` for every key, in order, made ahead of time by worker processes."""
    from torch.utils.data import DataLoader

    loader: Iterable[Any] = DataLoader(
        ErrorsAsValues(source),  # type: ignore[arg-type]
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=_identity,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # DataLoader draws a seed for its workers, which must not change training's draws
        multiprocessing_context=_start_method() if workers else None,
    )
    try:
        for item in loader:
            if isinstance(item, Exception):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "ErrorsAsValues" in str(error):
            raise
        script = "" if _start_method() == "fork" else ', or a script without if __name__ == "__main__"'
        raise WorkError(
            f"a process that loads images died ({first_line(error)}): too little memory, or shared memory "
            f"(/dev/shm) as in containers{script}; use fewer with --data.workers, 0 loads without them"
        ) from error


def _start_method() -> str | None:
    """How a worker starts: as the program has chosen, else "fork" on Linux; None is the system's default.

    A forked process shares the annotations. Others get them pickled, once, when they start.
    """
    return multiprocessing.get_start_method(allow_none=True) or ("fork" if sys.platform == "linux" else None)


@dataclass
class ErrorsAsValues:
    """Returns errors that are meant for the user as values: torch would wrap those of a worker in its traceback."""

    source: Source[Any]

    def __getitem__(self, key: int) -> Any:
        try:
            return self.source[key]
        except (RequestError, WorkError) as error:
            return error


def _identity(item: T) -> T:
    return item


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    sys.excepthook = _hide_lost_connections
    torch.set_num_threads(1)


def _hide_lost_connections(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print no traceback when the parent ends while a thread of this worker hands over tensors."""
    if not issubclass(kind, OSError | EOFError | AuthenticationError):
        sys.__excepthook__(kind, error, trace)
