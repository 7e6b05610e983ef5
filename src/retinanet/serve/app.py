"""The ASGI application: /predict, /health, /metrics, the OpenAPI document, and the pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from retinanet.common.version import __version__
from retinanet.serve.batching import QueueOptions
from retinanet.serve.guard import Guard, Hosts, error_response
from retinanet.serve.limits import Limits, Refused
from retinanet.serve.metrics import CONTENT_TYPE
from retinanet.serve.schema import BODY, ERRORS, Health, Options, Predictions, Status
from retinanet.serve.service import Service
from retinanet.serve.token import Token

FOLDER = Path(__file__).parent / "page"
PAGES = {
    "/": "index.html",
    "/docs": "docs.html",
    **{f"/{file}": file for file in ("style.css", "script.js", "drawing.js", "docs.js", "icon.svg")},
}
PUBLIC = (*PAGES, "/openapi.json", "/health")
"""Paths that need no token: they show nothing of the model. /health shows more to requests with the token."""


def make_app(
    detector: Any,
    *,
    name: str = "model",
    limits: Limits | None = None,
    queue: QueueOptions | None = None,
    hosts: Hosts | None = None,
    token: Token | None = None,
    debug: bool = False,
) -> FastAPI:
    """The ASGI application. Its lifespan starts the detector's thread, and at the end finishes the queued images.

    Args:
        detector: as :func:`retinanet.load` returns it.
        name: the model's name, for people.
        hosts: the names of the server; by default those of this machine only.
        token: required in requests, or None.
        debug: log tracebacks.
    """
    service = Service(detector, name, limits or Limits(), queue or QueueOptions())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="RetinaNet",
        version=__version__,
        description="Detects objects in images." if token else f"Detects objects in images with the model {name}.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
        exception_handlers={
            Refused: _refused,
            HTTPException: _http_error,
            RequestValidationError: _invalid,
            ClientDisconnect: _disconnected,
        },
    )
    app.state.service = service
    app.add_middleware(
        Guard,
        hosts=hosts or Hosts("127.0.0.1"),
        token=token,
        public=PUBLIC,
        on_predict=service.metrics.count_request,
        debug=debug,
    )
    _add_endpoints(app, service, token)
    for path in PAGES:
        app.add_route(path, _page, include_in_schema=False)
    return app


def _add_endpoints(app: FastAPI, service: Service, token: Token | None) -> None:
    @app.post("/predict", response_model=Predictions, responses=ERRORS, openapi_extra=BODY, summary="Detect objects")
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
        """One or several images as multipart/form-data, in fields of any name, or one image as the body.

        An image that cannot be used, among others that can, has an error in its entry. Where none can be used, the
        response is the error of the first.
        """
        return JSONResponse(await service.predict(request, options))

    @app.get(
        "/health",
        response_model=Health | Status,
        responses={503: {"model": Health | Status, "description": "Not ready"}},
        summary="Whether the server is ready, and its model and limits",
    )
    async def health(request: Request) -> Response:
        """Where the server needs a token, a request without it gets only the status."""
        trusted = token is None or token.matches(request.headers)
        report = service.health() if trusted else {"status": service.status}
        return JSONResponse(report, 200 if report["status"] == "ready" else 503)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counters in Prometheus' text format")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _page(request: Request) -> Response:
    return FileResponse(FOLDER / PAGES[request.scope["path"]], headers={"Cache-Control": "no-cache"})


async def _refused(request: Request, error: Any) -> Response:
    return error_response(error)


async def _http_error(request: Request, error: Any) -> Response:
    response = error_response(Refused(error.status_code, str(error.detail).lower()))
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    name = ".".join(str(key) for key in first["loc"][1:])[:60]
    reason = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"].lower()
    return error_response(Refused(422, f"{name}: {reason}"))


async def _disconnected(request: Request, error: Any) -> Response:
    return Response(status_code=499)  # for the metrics only; no client reads it
