"""Pictures that arrive together go through the network together: a bounded queue and the thread that empties it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.detections import Detections


class Full(Exception):
    """There is no place in the queue; nothing was taken."""


class Closed(Exception):
    """The queue takes nothing more, as the server stops."""


@dataclass(eq=False, slots=True)
class Job:
    """One picture, (3, H, W) uint8, with the threshold and limit of its request."""

    picture: Tensor
    threshold: float
    max_detections: int
    future: Future[Detections] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Places:
    """Places in the queue that one request holds, as a context.

    When it is left, places that were not used are free again, and pictures that nobody has begun with are dropped: a
    request that ran out of time, or whose client has left, costs no more work.
    """

    def __init__(self, batcher: Batcher, count: int) -> None:
        self._batcher, self._left = batcher, count
        self._jobs: list[Job] = []

    def put(self, picture: Tensor, threshold: float, max_detections: int) -> Future[Detections]:
        """Queue a picture in one of the places.

        Args:
            picture: (3, H, W) uint8.
            threshold: scores at or below it are dropped. max_detections: the most to be given, the surest.
        """
        assert self._left > 0, "one picture for each place"
        job = Job(picture, threshold, max_detections)
        self._left -= 1
        self._jobs.append(job)
        self._batcher._append(job)
        return job.future

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher._drop(self._jobs, self._left)
        self._left = 0


class Batcher:
    """Runs ``detector.predict`` in a thread of its own, on what arrived together.

    Requests with different thresholds share a batch: it is predicted at the lowest of them and with the largest limit,
    and each request gets the part that it asked for. That is what it would have got alone, as suppression looks at the
    surest boxes first, and those below a threshold come after all above it.

    Args:
        detector: has ``predict(pictures, threshold=, max_detections=, batch_size=)``.
        batch_size: the most pictures of a batch.
        capacity: the most pictures that may wait; more are refused with :class:`Full`.
        wait: seconds that the first picture of a batch waits for company. While a batch is being worked on the next one
            gathers, so this is spent by an idle server alone.
        on_batch: called with the number of pictures of each batch.
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
        self._held = 0  # places given out whose picture nobody has begun with
        self._closing = False
        self._pace = 0.0  # seconds a picture, averaged over the latest batches
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether pictures are taken, and somebody works on them."""
        return self.alive and not self._closing

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Places that are taken."""
        return self._held

    @property
    def seconds_to_wait(self) -> float:
        """About how long what waits now will take."""
        return self._pace * (self._held + self.batch_size)

    def reserve(self, count: int) -> Places:
        """Places for the pictures of a request, all or none.

        Raises:
            Full: there are not as many. Closed: the server stops.
        """
        with self._changed:
            if self._closing:
                raise Closed
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
            self._jobs.append(job)
            self._changed.notify_all()

    def _drop(self, jobs: list[Job], unused: int) -> None:
        with self._changed:
            self._held -= unused
            for job in jobs:
                if job.future.cancel():  # what has begun cannot be cancelled
                    self._jobs.remove(job)
                    self._held -= 1

    def _run(self) -> None:
        while jobs := self._next():
            begin = time.monotonic()
            self._work(jobs)
            pace = (time.monotonic() - begin) / len(jobs)
            self._pace = 0.7 * self._pace + 0.3 * pace if self._pace else pace

    def _next(self) -> list[Job]:
        """The next batch; none when closed and empty."""
        with self._changed:
            while True:
                while not self._jobs:
                    if self._closing and not self._held:
                        return []
                    # Who holds a place may still be decoding; that it was given back is looked for now and then.
                    self._changed.wait(0.05 if self._closing else None)
                until = self._jobs[0].arrived + self.wait
                while 0 < len(self._jobs) < self.batch_size and not self._closing:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if self._jobs:  # they may have been dropped meanwhile
                    break
            jobs = [self._jobs.popleft() for _ in range(min(self.batch_size, len(self._jobs)))]
            self._held -= len(jobs)
            for job in jobs:
                job.future.set_running_or_notify_cancel()  # under the lock: now or never
            return jobs

    def _work(self, jobs: list[Job]) -> None:
        try:
            found = self._detector.predict(
                [job.picture for job in jobs],
                threshold=min(job.threshold for job in jobs),
                max_detections=max(job.max_detections for job in jobs),
                batch_size=self.batch_size,
            )
            for job, detections in zip(jobs, found, strict=True):
                job.future.set_result(_part(detections, job))
        except Exception as error:
            unfinished = [job for job in jobs if not job.future.done()]
            if len(jobs) == 1:
                unfinished[0].future.set_exception(error)
                return
            for job in unfinished:  # one picture must not spoil those of others; and a batch may need too much memory
                self._work([job])
            return
        if self._on_batch:
            self._on_batch(len(jobs))


def _part(found: Detections, job: Job) -> Detections:
    return found.above(job.threshold).first(job.max_detections)
