"""Images that arrive together go through the network together: a bounded queue and the thread that empties it.

Who owns what, so that no cancellation can meet anybody half way:

- A job is owned by whoever took it out of the queue, under the lock: the thread, which computes it, or its request,
  which drops it. The owner alone settles its future, exactly once.
- A future cannot be cancelled: it is marked as running from the start. Whoever waits for one with
  ``asyncio.wrap_future`` may be cancelled at any moment, which ends the waiting and nothing else.
- A place belongs to the request that reserved it until its job leaves the queue, or the request ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from traceback import clear_frames, format_exception_only
from types import TracebackType
from typing import TYPE_CHECKING, Any

from retinanet.common.printable import printable

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.inference.detections import Detections

log = logging.getLogger("retinanet.serve")


class Full(Exception):
    """There is no place in the queue; nothing was taken."""


class Closed(Exception):
    """The queue takes nothing more: the server stops."""


class Dropped(Exception):
    """The request ended before its image was computed."""


class ModelFailed(Exception):
    """The model raised something, which is the cause of this.

    Whatever it was: as it is, SystemExit would end the event loop, TimeoutError would pass for a deadline,
    CancelledError for a client that left, and StopIteration cannot be put into a future of asyncio at all.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(_says(error))
        # The frames hold the batch, which holds the future that holds this: memory until the garbage collector runs.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        clear_frames(error.__traceback__)
        self.__cause__ = error


def _says(error: BaseException) -> str:
    """The kind of an exception and its first line, even where its own ``__str__`` raises."""
    return next(line for line in format_exception_only(error) if line[:1] != " ").splitlines()[0]


def _running() -> Future[Detections]:
    future: Future[Detections] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(eq=False, slots=True)
class Job:
    """One image, (3, H, W) uint8, with the threshold and limit of its request."""

    image: Tensor
    threshold: float
    max_detections: int
    future: Future[Detections] = field(default_factory=_running)
    arrived: float = field(default_factory=time.monotonic)


class Places:
    """Places in the queue that one request holds, as a context.

    When it is left, places that were not used are free again, and images that nobody has begun with are dropped: a
    request that ran out of time, or whose client has left, costs no more work.
    """

    def __init__(self, batcher: Batcher, count: int) -> None:
        self._batcher, self._left = batcher, count
        self._jobs: list[Job] = []

    def put(self, image: Tensor, threshold: float, max_detections: int) -> Future[Detections]:
        """Queue an image in one of the places.

        Args:
            image: (3, H, W) uint8.
            threshold: scores at or below it are dropped.
            max_detections: the most to return, the highest-scoring.

        Returns:
            A future that cannot be cancelled. It raises ModelFailed where the model raised anything, Dropped where the
            context was left first, and Closed where the thread ended.
        """
        assert self._left > 0, "one image for each place, and none after the end"
        job = Job(image, threshold, max_detections)
        self._left -= 1
        self._jobs.append(job)
        self._batcher._append(job)
        return job.future

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unused, self._left = self._left, 0
        self._batcher._drop(self._jobs, unused)


class Batcher:
    """Runs ``detector.predict`` in a thread of its own, on what arrived together.

    Requests with different thresholds share a batch: it is predicted at the lowest of them and with the largest limit,
    and each request gets the part that it asked for. That is what it would have got alone, as suppression inspects the
    highest-scoring boxes first, and those below a threshold come after all above it.

    Args:
        detector: has ``predict(images, threshold=, max_detections=, batch_size=)``.
        batch_size: the most images of a batch.
        capacity: the most images that may wait; more are refused with :class:`Full`.
        wait: seconds that the first image of a batch waits for company. While a batch is computed the next one gathers,
            so this is spent by an idle server alone.
        on_batch: called with the number of images of each batch.
    """

    def __init__(
        self,
        detector: Any,
        *,
        batch_size: int = 8,
        capacity: int = 64,
        wait: float = 0.005,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.batch_size, self.capacity, self.wait = batch_size, capacity, wait
        self._detector, self._on_batch = detector, on_batch
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._taken: list[Job] = []  # out of the queue and not settled; the thread's alone
        self._held = 0  # places given out whose image nobody has begun with
        self._closing = False
        self.failed = False
        """Whether the thread ended by a fault of its own, rather than by :meth:`close`."""
        self._began: float | None = None  # when the batch that is computed now was taken
        self._pace = 0.0  # seconds an image, averaged over the latest batches
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether images are taken, and somebody computes them."""
        return self.alive and not self._closing

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy_for(self) -> float:
        """Seconds since the batch was taken that is computed now; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def waiting(self) -> int:
        """Places that are taken."""
        return self._held

    @property
    def seconds_to_wait(self) -> float:
        """About how long what waits now will take."""
        return self._pace * (self._held + self.batch_size)

    def reserve(self, count: int) -> Places:
        """Places for the images of a request, all or none.

        Raises:
            Full: there are not as many. Closed: the server stops.
        """
        with self._changed:
            if self._closing:
                raise Closed("the server stops")
            if self._held + count > self.capacity:
                raise Full
            self._held += count
        return Places(self, count)

    def close(self, timeout: float | None = None) -> bool:
        """Take nothing more, finish what is queued; whether that was done within ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _append(self, job: Job) -> None:
        with self._changed:
            if self.failed:  # nobody will take it out any more
                self._held -= 1
                job.future.set_exception(Closed("the thread that runs the model has ended"))
                return
            self._jobs.append(job)
            self._changed.notify_all()

    def _drop(self, jobs: list[Job], unused: int) -> None:
        with self._changed:
            mine = [job for job in jobs if job in self._jobs]
            for job in mine:
                self._jobs.remove(job)
            self._held -= unused + len(mine)
            self._changed.notify_all()
        for job in mine:
            job.future.set_exception(Dropped("the request ended"))

    def _run(self) -> None:
        try:
            while jobs := self._next():
                self._began = begin = time.monotonic()
                self._work(jobs)
                self._began = None
                pace = (time.monotonic() - begin) / len(jobs)
                self._pace = 0.7 * self._pace + 0.3 * pace if self._pace else pace
                del jobs
                self._taken = []  # images are not kept while the thread waits for others
        except BaseException as error:  # whatever it is, nobody may wait for this thread any longer
            log.critical("the thread that runs the model has ended: %s", printable(_says(error)))
            self._fail()

    def _fail(self) -> None:
        with self._changed:
            self.failed = self._closing = True
            left = [*self._taken, *self._jobs]
            self._held -= len(self._jobs)
            self._jobs.clear()
        for job in left:
            if not job.future.done():
                job.future.set_exception(Closed("the thread that runs the model has ended"))
        self._taken = []

    def _next(self) -> list[Job]:
        """The next batch; none when closed and empty."""
        with self._changed:
            while True:
                while not self._jobs:
                    if self._closing and not self._held:
                        return []
                    self._changed.wait()
                until = self._jobs[0].arrived + self.wait
                while 0 < len(self._jobs) < self.batch_size and not self._closing:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if self._jobs:  # they may have been dropped meanwhile
                    break
            self._taken = list(islice(self._jobs, self.batch_size))
            for _ in self._taken:
                self._jobs.popleft()
            self._held -= len(self._taken)
            return self._taken

    def _work(self, jobs: list[Job]) -> None:
        """Compute and settle these jobs."""
        found = self._predict(jobs)
        if not isinstance(found, ModelFailed):
            for job, detections in zip(jobs, found, strict=True):
                job.future.set_result(detections)
            if self._on_batch:
                self._on_batch(len(jobs))
        elif len(jobs) == 1:
            jobs[0].future.set_exception(found)
        else:
            del found
            for job in jobs:  # one image must not spoil those of others; and a batch may need too much memory
                self._work([job])

    def _predict(self, jobs: list[Job]) -> list[Detections] | ModelFailed:
        """What each job asked for, or what the model raised."""
        try:
            found = self._detector.predict(
                [job.image for job in jobs],
                threshold=min(job.threshold for job in jobs),
                max_detections=max(job.max_detections for job in jobs),
                batch_size=self.batch_size,
            )
            return [
                detections.above(job.threshold).first(job.max_detections)
                for job, detections in zip(jobs, found, strict=True)
            ]
        except BaseException as error:
            return ModelFailed(error)
