"""Images that arrive at about the same time go through the network together: a bounded queue and a thread.

Ownership is simple, so that a cancellation at any moment is safe:

- A job belongs to whoever took it out of the queue, under the lock: the thread, which computes it, or its request,
  which drops it. Only the owner sets the result of its future, exactly once.
- A future cannot be cancelled: it is marked as running from the start. A coroutine that waits for it with
  ``asyncio.wrap_future`` may be cancelled at any moment, which ends the waiting and nothing else.
- A slot in the queue belongs to the request that reserved it until its job leaves the queue, or the request ends.
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
from typing import Any

from torch import Tensor

from retinanet.common.arguments import Nms
from retinanet.common.printable import printable
from retinanet.inference.detections import Detections

log = logging.getLogger("retinanet.serve")


class Full(Exception):
    """The queue has not enough free slots; nothing was taken."""


class Closed(Exception):
    """The queue takes nothing more: the server is stopping."""


class Dropped(Exception):
    """The request ended before its image was computed."""


class ModelFailed(Exception):
    """The model raised an exception, which is the cause of this one.

    It is wrapped whatever it was: SystemExit would end the event loop, TimeoutError would pass for a deadline,
    CancelledError for a client that left, and asyncio does not allow StopIteration in a future.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(_describe(error))
        # The frames hold the batch, which holds the future that holds this: memory until the garbage collector runs.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        clear_frames(error.__traceback__)
        self.__cause__ = error


def _describe(error: BaseException) -> str:
    """The type of an exception and its first line, even where its own ``__str__`` raises."""
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


class Reservation:
    """Slots in the queue that one request holds, as a context.

    At its end unused slots are free again, and images that are still in the queue are dropped. So a request that ran
    out of time, or whose client has left, costs no more work.
    """

    def __init__(self, batcher: Batcher, count: int) -> None:
        self._batcher, self._unused = batcher, count
        self._jobs: list[Job] = []

    def put(self, image: Tensor, threshold: float, max_detections: int) -> Future[Detections]:
        """Queue an image in one of the slots.

        Args:
            image: (3, H, W) uint8.
            threshold: scores at or below it are dropped.
            max_detections: the most to return, the highest-scoring.

        Returns:
            A future that cannot be cancelled. It raises ModelFailed where the model raised anything, Dropped where the
            context ended first, and Closed where the thread ended.
        """
        assert self._unused > 0, "one image for each slot, and none after the end"
        job = Job(image, threshold, max_detections)
        self._unused -= 1
        self._jobs.append(job)
        self._batcher._append(job)
        return job.future

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *error: Any) -> None:
        unused, self._unused = self._unused, 0
        self._batcher._drop(self._jobs, unused)


@dataclass(frozen=True)
class QueueOptions:
    """How images are gathered into batches, and predicted."""

    batch_size: int = 8
    """The most images of a batch."""
    capacity: int = 64
    """The most images that may wait; more are refused with :class:`Full`."""
    wait: float = 0.005
    """Seconds that the first image of a batch waits for others. Only an idle server spends this time: while a batch is
    computed the next one gathers."""
    nms: Nms | None = None
    """Of :meth:`retinanet.Detector.predict`."""


class Batcher:
    """Runs ``detector.predict`` in its own thread on batches of images from all requests.

    Requests with different thresholds share a batch. It is predicted at the lowest threshold and with the largest
    limit, and each request gets the detections within its own. They are those of a batch of its own: suppression
    takes the highest-scoring boxes first, so boxes below a threshold never remove boxes above it.

    Args:
        detector: has ``predict(images, threshold=, max_detections=, batch_size=, nms=)``.
        on_batch: called with the number of images of each batch.
    """

    def __init__(
        self,
        detector: Any,
        options: QueueOptions | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.options = options or QueueOptions()
        self._detector, self._on_batch = detector, on_batch
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._taken: list[Job] = []  # out of the queue and without a result; only for the thread
        self._reserved = 0  # slots given out whose image is not in a batch yet
        self._closing = False
        self.failed = False
        """Whether the thread ended because of an error, not because of :meth:`close`."""
        self._began: float | None = None  # start of the batch that is computed now
        self._seconds_per_image = 0.0  # average over the latest batches
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the thread runs and images are accepted."""
        return self.alive and not self._closing

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy_for(self) -> float:
        """Seconds that the current batch has been computed for; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def waiting(self) -> int:
        """Slots that are reserved."""
        return self._reserved

    @property
    def seconds_to_wait(self) -> float:
        """About how long the images that wait now will take."""
        return self._seconds_per_image * (self._reserved + self.options.batch_size)

    def reserve(self, count: int) -> Reservation:
        """Slots for all images of a request.

        Raises:
            Full: there are not enough.
            Closed: the server is stopping.
        """
        with self._changed:
            if self._closing:
                raise Closed("the server is stopping")
            if self._reserved + count > self.options.capacity:
                raise Full
            self._reserved += count
        return Reservation(self, count)

    def close(self, timeout: float | None = None) -> bool:
        """Accept no more images and finish the queued ones; returns whether ``timeout`` seconds were enough."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _append(self, job: Job) -> None:
        with self._changed:
            if self.failed:  # no thread will take it out any more
                self._reserved -= 1
                job.future.set_exception(Closed("the thread that runs the model has ended"))
                return
            self._jobs.append(job)
            self._changed.notify_all()

    def _drop(self, jobs: list[Job], unused: int) -> None:
        with self._changed:
            queued = [job for job in jobs if job in self._jobs]
            for job in queued:
                self._jobs.remove(job)
            self._reserved -= unused + len(queued)
            self._changed.notify_all()
        for job in queued:
            job.future.set_exception(Dropped("the request ended"))

    def _run(self) -> None:
        try:
            while jobs := self._next():
                self._began = begin = time.monotonic()
                self._compute(jobs)
                self._began = None
                latest = (time.monotonic() - begin) / len(jobs)
                average = self._seconds_per_image or latest
                self._seconds_per_image = 0.7 * average + 0.3 * latest
                del jobs
                self._taken = []  # images are not kept while the thread waits for others
        except BaseException as error:  # whatever it is, no request may wait for this thread any longer
            log.critical("the thread that runs the model has ended: %s", printable(_describe(error)))
            self._fail()

    def _fail(self) -> None:
        with self._changed:
            self.failed = self._closing = True
            unfinished = [*self._taken, *self._jobs]
            self._reserved -= len(self._jobs)
            self._jobs.clear()
        for job in unfinished:
            if not job.future.done():
                job.future.set_exception(Closed("the thread that runs the model has ended"))
        self._taken = []

    def _next(self) -> list[Job]:
        """The next batch; empty when the queue is closed and empty."""
        with self._changed:
            while True:
                while not self._jobs:
                    if self._closing and not self._reserved:
                        return []
                    self._changed.wait()
                until = self._jobs[0].arrived + self.options.wait
                while 0 < len(self._jobs) < self.options.batch_size and not self._closing:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if self._jobs:  # requests may have dropped them meanwhile
                    break
            self._taken = list(islice(self._jobs, self.options.batch_size))
            for _ in self._taken:
                self._jobs.popleft()
            self._reserved -= len(self._taken)
            return self._taken

    def _compute(self, jobs: list[Job]) -> None:
        """Set the results of these jobs."""
        results = self._predict(jobs)
        if not isinstance(results, ModelFailed):
            for job, detections in zip(jobs, results, strict=True):
                job.future.set_result(detections)
            if self._on_batch:
                self._on_batch(len(jobs))
        elif len(jobs) == 1:
            jobs[0].future.set_exception(results)
        else:
            del results
            for job in jobs:  # one image must not fail those of others; and a batch may need too much memory
                self._compute([job])

    def _predict(self, jobs: list[Job]) -> list[Detections] | ModelFailed:
        """The detections of each job, or what the model raised."""
        try:
            results = self._detector.predict(
                [job.image for job in jobs],
                threshold=min(job.threshold for job in jobs),
                max_detections=max(job.max_detections for job in jobs),
                batch_size=self.options.batch_size,
                nms=self.options.nms,
            )
            return [
                detections.above(job.threshold).first(job.max_detections)
                for job, detections in zip(jobs, results, strict=True)
            ]
        except BaseException as error:
            return ModelFailed(error)
