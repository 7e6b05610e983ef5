"""The server's addresses: /predict, /health, /metrics, the OpenAPI document, and the pages."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import RequestError
from retinanet.common.version import __version__
from retinanet.inference.detections import Detections
from retinanet.predict.files import usual_threshold
from retinanet.serve.batching import Batcher, Closed, Full
from retinanet.serve.bodies import Upload, uploads
from retinanet.serve.decoding import decode
from retinanet.serve.guard import Guard, Hosts, problem
from retinanet.serve.limits import Limits, Refused, Room, Share
from retinanet.serve.metrics import Metrics
from retinanet.serve.schema import BODY, MOST, PROBLEMS, Answer, Health, Options, Status
from retinanet.serve.token import Token

PAGE = Path(__file__).parent / "page"
FILES = ("style.css", "script.js", "drawing.js", "icon.svg")
FREE = ("/", *(f"/{file}" for file in FILES), "/docs", "/openapi.json", "/health")
"""Paths that ask for no token: they tell nothing about the model. /health tells more to whoever has the token."""
STUCK = 3
"""Times the time limit of a request: a batch that takes longer has no one left who waits for it, and all get 504."""
DECODERS = min(4, os.cpu_count() or 1)


class Service:
    """What a request to ``/predict`` goes through."""

    def __init__(self, detector: Any, name: str, limits: Limits, batch_size: int, capacity: int, wait: float) -> None:
        self.detector, self.name, self.limits = detector, name, limits
        self.threshold = usual_threshold(detector)
        self.max_detections = min(MOST, detector.settings.postprocessing.max_detections)
        self.room = Room(limits.memory)
        self.metrics = Metrics(batch_size)
        self.batcher = Batcher(
            detector, batch_size=batch_size, capacity=capacity, wait=wait, on_batch=self.metrics.batch
        )
        self.hurry = False
        """Whether the end waits for nothing that was taken."""
        self.decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self._decoding = 0
        self._lock = threading.Lock()

    def busy(self) -> bool:
        """Whether a thread is still at work; for the end."""
        return self._decoding > 0 or self.batcher.alive

    @property
    def status(self) -> str:
        """For /health; all but "ready" is 503."""
        if self.batcher.failed:
            return "failed"
        if self.batcher.busy_for > STUCK * self.limits.seconds:
            return "stuck"
        return "ready" if self.batcher.ready else "not ready"

    def health(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "model": self.name,
            "classes": list(self.detector.class_names),
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
        """
        Raises:
            Refused: with what is wrong. ClientDisconnect: nobody waits for the answer any more.
        """
        read = False
        try:
            async with asyncio.timeout(self.limits.seconds):
                with self.room.share() as share:
                    if self.batcher.waiting >= self.batcher.capacity:
                        raise self._busy()  # before the body is taken in
                    files = await uploads(request, self.limits, share)
                    read = True
                    return await _unless_left(request, self._find(files, options, share))
        except TimeoutError:
            seconds = f"{self.limits.seconds:g} s"
            if read:
                raise Refused(504, f"the answer was not ready within {seconds}") from None
            raise Refused(408, f"the request did not arrive within {seconds}") from None

    async def _find(self, files: list[Upload], options: Options, share: Share) -> dict[str, Any]:
        threshold = self.threshold if options.threshold is None else options.threshold
        most = options.max_detections or self.max_detections
        try:
            self.detector.require(PredictOptions(threshold, most))
        except RequestError as error:
            raise Refused(422, str(error)) from None
        try:
            places = self.batcher.reserve(len(files))
        except Full:
            raise self._busy() from None
        except Closed as closed:
            raise Refused(503, str(closed), 5) from None
        with places:

            async def one(upload: Upload) -> dict[str, Any] | Refused:
                loop = asyncio.get_running_loop()
                try:
                    image = await loop.run_in_executor(self.decoders, self._decode, upload, share)
                except Refused as refused:
                    if refused.status == 503:  # not this image's fault
                        raise
                    return refused
                height, width = image.shape[1:]
                try:
                    found = await asyncio.wrap_future(places.put(image, threshold, most))
                except Closed as closed:
                    raise Refused(503, str(closed), 5) from None
                return {"file": upload.name, "width": width, "height": height, "detections": as_json(found)}

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(upload)) for upload in files]
        results = [task.result() for task in tasks]
        bad = [result for result in results if isinstance(result, Refused)]
        self.metrics.images(len(results) - len(bad), len(bad))
        if len(bad) == len(results):
            more = f" (and {len(bad) - 1} more that cannot be used)" if len(bad) > 1 else ""
            raise Refused(bad[0].status, f"{files[0].name}: {bad[0].reason}{more}")
        entries = [
            {"file": upload.name, "error": result.reason} if isinstance(result, Refused) else result
            for upload, result in zip(files, results, strict=True)
        ]
        return {"threshold": threshold, "images": entries}

    def _decode(self, upload: Upload, share: Share) -> Tensor:
        with self._lock:
            self._decoding += 1
        try:
            return decode(upload.file, self.limits, share)
        finally:
            with self._lock:
                self._decoding -= 1

    def _busy(self) -> Refused:
        seconds = min(60, max(1, round(self.batcher.seconds_to_wait)))
        return Refused(503, f"too many images are waiting: try again in {seconds} s", seconds)


def as_json(found: Detections) -> list[dict[str, Any]]:
    """Detections as the answer holds them: boxes to a thousandth of a pixel, scores to a millionth."""
    return [
        {"box": [round(side, 3) for side in box], "score": round(score, 6), "label": label, "name": name}
        for box, score, label, name in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.names, strict=True
        )
    ]


async def _unless_left(request: Request, work: Any) -> Any:
    """The result of ``work``, which is cancelled when the client closes its connection."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientDisconnect
    except ExceptionGroup as group:  # of the images' tasks; the first says enough
        raise group.exceptions[0] from group.exceptions[0].__cause__
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def make_app(
    detector: Any,
    *,
    name: str = "model",
    limits: Limits | None = None,
    batch_size: int = 8,
    capacity: int = 64,
    wait: float = 0.005,
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    token: Token | None = None,
    debug: bool = False,
) -> FastAPI:
    """The ASGI application. Its lifespan starts the detector's thread, and finishes what was taken at the end.

    Args:
        detector: as :func:`retinanet.load` gives it.
        name: of the model, for people.
        limits: of one request. batch_size, capacity, wait: see :class:`retinanet.serve.batching.Batcher`.
        host, allowed_hosts: see :class:`retinanet.serve.guard.Hosts`.
        token: that requests have to carry, or None.
        debug: tracebacks in the log.
    """
    service = Service(detector, name, limits or Limits(), batch_size, capacity, wait)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        service.decoders.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(service.batcher.close, 0 if service.hurry else service.limits.seconds)

    app = FastAPI(
        title="RetinaNet",
        version=__version__,
        description="Finds objects in images." if token else f"Finds objects in images with the model {name}.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(
        Guard,
        hosts=Hosts(host, allowed_hosts),
        token=token,
        free=FREE,
        on_predict=service.metrics.request,
        debug=debug,
    )

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return problem(error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        response = problem(Refused(error.status_code, str(error.detail).lower()))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])[:60]
        says = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"].lower()
        return problem(Refused(422, f"{where}: {says}"))

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # for the metrics alone; nobody is there to read it

    @app.post("/predict", response_model=Answer, responses=PROBLEMS, openapi_extra=BODY, summary="Find objects")
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
        """One or several images as multipart/form-data, in fields of any name, or one image as the body.

        An image that cannot be used, among others that can, has an error in its entry. Where none can be used the
        answer is that of the first.
        """
        return JSONResponse(await service.predict(request, options))

    @app.get(
        "/health",
        response_model=Health | Status,
        responses={503: {"model": Health | Status, "description": "Not ready"}},
        summary="Whether the server is ready, and for what",
    )
    async def health(request: Request) -> Response:
        """Where the server wants a token, a request without it learns the status alone."""
        known = token is None or token.given_in(request.headers)
        said = service.health() if known else {"status": service.status}
        return JSONResponse(said, 200 if said["status"] == "ready" else 503)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counters in Prometheus' text format")
    async def metrics() -> Response:
        text = service.metrics.text(service.batcher.waiting, service.batcher.capacity, service.room.used)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        from retinanet.serve.documents import document

        return HTMLResponse(document(app.openapi()))

    async def page(request: Request) -> Response:
        file = request.url.path.rsplit("/", 1)[-1] or "index.html"  # one of FILES: no other address leads here
        return FileResponse(PAGE / file, headers={"Cache-Control": "no-cache"})

    for file in ("", *FILES):
        app.add_route(f"/{file}", page, include_in_schema=False)
    return app
