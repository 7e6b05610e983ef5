"""What stands before every request: by which name it asks, what headers its answer has, and what becomes of errors."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from retinanet.errors import first_line

log = logging.getLogger("retinanet.serve")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOCAL = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names that a request may address this server by.

    A page anywhere can let its own name point to 127.0.0.1 after it was loaded, and would then be of the same origin as
    this server (DNS rebinding). The Host header tells its name.

    Args:
        host: to which the server is bound. Where that is all addresses (0.0.0.0, ::), any IP address is a good name:
            a page's name is none.
        allowed: further names; "*" allows any.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        self._names = {name.lower().strip("[]") for name in (*LOCAL, host, *allowed)}
        self._any_address = _is_address(host) and ipaddress.ip_address(host).is_unspecified

    def allow(self, header: str) -> bool:
        name = header.strip().lower()
        if name.startswith("["):
            name, _, rest = name[1:].partition("]")
            if rest and not (rest[0] == ":" and rest[1:].isdigit()):
                return False
        elif name.count(":") == 1:
            name, _, port = name.partition(":")
            if not port.isdigit():
                return False
        return name.rstrip(".") in self._names or "*" in self._names or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware around everything.

    Args:
        on_predict: called with (status, seconds) of each answer under /predict.
        debug: log tracebacks. Clients never see them.
    """

    def __init__(self, app: Any, hosts: Hosts, on_predict: Callable[[int, float], None], debug: bool = False) -> None:
        self._app, self._hosts, self._on_predict, self._debug = app, hosts, on_predict, debug

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 0

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        async def problem(code: int, reason: str) -> None:
            if not status:
                await JSONResponse({"error": reason}, code)(scope, receive, answer)

        try:
            headers = Headers(scope=scope)
            hosts = headers.getlist("host")
            if len(hosts) != 1 or not self._hosts.allow(hosts[0]):
                name = hosts[0][:100] if hosts else ""
                await problem(400, f"this server does not go by the name {name!r}: start it with --allow-host NAME")
            elif scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site") == "cross-site":
                await problem(403, "a page of another site may not use this server")
            else:
                await self._app(scope, receive, answer)
        except asyncio.CancelledError:  # the server stops, and will not wait any longer
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await problem(503, "the server stops")
        except Exception as error:
            log.error("%s %s failed: %s", scope["method"], scope["path"], first_line(error), exc_info=self._debug)
            await problem(500, "the server failed at this request; its log says why")
        finally:
            if scope["path"] == "/predict":
                self._on_predict(status, time.monotonic() - begin)
