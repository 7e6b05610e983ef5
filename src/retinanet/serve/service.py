"""What happens to a request to ``/predict``: read, decode, queue, respond."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import ClientDisconnect, Request
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import RequestError
from retinanet.common.version import __version__
from retinanet.inference.class_colours import colour, hexadecimal
from retinanet.inference.detections import Detections
from retinanet.predict.files import usual_threshold
from retinanet.serve.batching import Batcher, Closed, Full, QueueOptions, Reservation
from retinanet.serve.bodies import Upload, read_uploads
from retinanet.serve.decoding import decode
from retinanet.serve.limits import Allocation, Limits, MemoryPool, Refused
from retinanet.serve.metrics import Metrics
from retinanet.serve.schema import MAX_DETECTIONS, Options

STUCK_FACTOR = 3
"""A batch that takes longer than this many times ``Limits.seconds`` is stuck: all its requests have timed out."""
DECODERS = min(4, os.cpu_count() or 1)


class Service:
    """A detector with its queue, limits, memory and metrics.

    Args:
        name: the model's name, for people.
    """

    def __init__(self, detector: Any, name: str, limits: Limits, queue: QueueOptions) -> None:
        self.detector, self.name, self.limits = detector, name, limits
        self.threshold = usual_threshold(detector)
        self.max_detections = min(MAX_DETECTIONS, detector.settings.postprocessing.max_detections)
        self.memory = MemoryPool(limits.shared_bytes)
        self.metrics = Metrics(queue.batch_size)
        self.batcher = Batcher(detector, queue, self.metrics.count_batch)
        self.metrics.gauge("queue_images", "Reserved slots in the queue", lambda: self.batcher.waiting)
        self.metrics.gauge("queue_capacity", "Slots in the queue", lambda: queue.capacity)
        self.metrics.gauge("memory_bytes", "Bodies and decoded images in memory", lambda: self.memory.used)
        self.stop_at_once = False
        """Whether the end waits for no request."""
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self._decoding = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Finish the queued images and stop the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self.batcher.close(0 if self.stop_at_once else self.limits.seconds)

    def busy(self) -> bool:
        """Whether a thread still works."""
        return self._decoding > 0 or self.batcher.alive

    @property
    def status(self) -> str:
        """The status of /health; all but "ready" are 503."""
        if self.batcher.failed:
            return "failed"
        if self.batcher.busy_for > STUCK_FACTOR * self.limits.seconds:
            return "stuck"
        return "ready" if self.batcher.ready else "not ready"

    def health(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "model": self.name,
            "classes": list(self.detector.class_names),
            "colours": [hexadecimal(colour(label)) for label in range(len(self.detector.class_names))],
            "computes": self.detector.computes,
            "threshold": self.threshold,
            "least_threshold": self.detector.least_threshold,
            "max_detections": self.max_detections,
            "max_megabytes": self.limits.megabytes,
            "max_megapixels": self.limits.megapixels,
            "max_images": self.limits.images,
            "version": __version__,
        }

    async def predict(self, request: Request, options: Options) -> dict[str, Any]:
        """The response to ``/predict``.

        Raises:
            Refused: the request is wrong, or there is too much to do.
            ClientDisconnect: the client closed the connection.
        """
        uploads = None
        try:
            async with asyncio.timeout(self.limits.seconds):
                with Allocation(self.memory) as allocation:
                    if self.batcher.waiting >= self.batcher.options.capacity:
                        raise self._queue_full()  # before the body is read
                    uploads = await read_uploads(request, self.limits, allocation)
                    return await _unless_disconnected(request, self._detect(uploads, options, allocation))
        except TimeoutError:
            seconds = f"{self.limits.seconds:g} s"
            if uploads is None:
                raise Refused(408, f"the request did not arrive within {seconds}") from None
            raise Refused(504, f"the response was not ready within {seconds}") from None

    async def _detect(self, uploads: list[Upload], options: Options, allocation: Allocation) -> dict[str, Any]:
        threshold = self.threshold if options.threshold is None else options.threshold
        limit = options.max_detections or self.max_detections
        try:
            self.detector.require(PredictOptions(threshold, limit))
        except RequestError as error:
            raise Refused(422, str(error)) from None
        with self._reserve(len(uploads)) as slots:

            async def detect(upload: Upload) -> dict[str, Any] | Refused:
                loop = asyncio.get_running_loop()
                try:
                    image = await loop.run_in_executor(self._decoders, self._decode, upload, allocation)
                except Refused as refused:
                    if refused.status == 503:  # no memory: the other images of the request cannot go on either
                        raise
                    return refused
                height, width = image.shape[1:]
                try:
                    detections = await asyncio.wrap_future(slots.put(image, threshold, limit))
                except Closed as closed:
                    raise Refused(503, str(closed), 5) from None
                return {"file": upload.name, "width": width, "height": height, "detections": as_json(detections)}

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(detect(upload)) for upload in uploads]
        return {"threshold": threshold, "images": self._entries(uploads, [task.result() for task in tasks])}

    def _entries(self, uploads: list[Upload], results: list[dict[str, Any] | Refused]) -> list[dict[str, Any]]:
        """The entries of the images.

        Raises:
            Refused: none of the images can be used.
        """
        refused = [result for result in results if isinstance(result, Refused)]
        self.metrics.count_images(len(results) - len(refused), len(refused))
        if len(refused) == len(results):
            more = f" (and {len(refused) - 1} more that cannot be used)" if len(refused) > 1 else ""
            raise Refused(refused[0].status, f"{uploads[0].name}: {refused[0].reason}{more}")
        return [
            {"file": upload.name, "error": result.reason} if isinstance(result, Refused) else result
            for upload, result in zip(uploads, results, strict=True)
        ]

    def _reserve(self, count: int) -> Reservation:
        try:
            return self.batcher.reserve(count)
        except Full:
            raise self._queue_full() from None
        except Closed as closed:
            raise Refused(503, str(closed), 5) from None

    def _decode(self, upload: Upload, allocation: Allocation) -> Tensor:
        with self._lock:
            self._decoding += 1
        try:
            return decode(upload.file, self.limits, allocation)
        finally:
            with self._lock:
                self._decoding -= 1

    def _queue_full(self) -> Refused:
        seconds = min(60, max(1, round(self.batcher.seconds_to_wait)))
        return Refused(503, f"too many images are waiting: try again in {seconds} s", seconds)


def as_json(detections: Detections) -> list[dict[str, Any]]:
    """Detections of a response: boxes to a thousandth of a pixel, scores to a millionth."""
    return [
        {"box": [round(side, 3) for side in box], "score": round(score, 6), "label": label, "name": name}
        for name, label, score, box in detections.rows()
    ]


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of ``work``, which is cancelled when the client closes its connection."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(disconnected())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientDisconnect
    except ExceptionGroup as group:  # one exception for each image; the first is enough
        raise group.exceptions[0] from group.exceptions[0].__cause__
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
