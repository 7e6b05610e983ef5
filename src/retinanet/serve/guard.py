"""What stands before every request: who may ask, what headers its answer has, and what becomes of errors."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Collection, Iterable
from traceback import format_exception
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from retinanet.common.errors import first_line
from retinanet.common.printable import printable
from retinanet.serve.limits import Refused
from retinanet.serve.token import Token

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
PORTS = {"http": 80, "https": 443}
REST = 5.0
"""Seconds for the rest of a body whose answer is known and after which the connection ends."""


class Hosts:
    """The names that a request may address this server by, and the pages that it may come from.

    A page anywhere can let its own name point to 127.0.0.1 after it was loaded, and would then be of the same origin as
    this server (DNS rebinding). The Host header tells its name. Starlette's TrustedHostMiddleware knows neither
    addresses in general nor Origin.

    Args:
        host: to which the server is bound. Where that is all addresses (0.0.0.0, ::), any IP address is a good name:
            a page's name is none.
        allowed: further names; "*" allows any.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        self._allowed = {name.lower().strip("[]") for name in allowed}
        self._names = {*LOCAL, host.lower().strip("[]"), *self._allowed}
        self._any_address = _is_address(host) and ipaddress.ip_address(host).is_unspecified

    def allow(self, header: str) -> bool:
        """Whether a Host header names this server."""
        name, _ = _split(header)
        return name in self._names or ("*" in self._names and name != "") or (self._any_address and _is_address(name))

    def own(self, origin: str, header: str) -> bool:
        """Whether an Origin header is that of this server's page.

        That is the name and port of the Host header, or, behind a proxy that hands on another Host, a name that was
        allowed explicitly.
        """
        scheme, separator, place = origin.strip().lower().partition("://")
        if not separator or scheme not in PORTS:
            return False  # "null" too: a sandboxed frame, or a file
        name, port = _split(place)
        host, host_port = _split(header)
        same = (name, port or PORTS[scheme]) == (host, host_port or PORTS[scheme])
        return name != "" and (same or name in self._allowed)


def _split(header: str) -> tuple[str, int | None]:
    """Name and port of a Host header, in lower case; an empty name where it is none."""
    text = header.strip().lower()
    if text.count(":") > 1 and not text.startswith("["):
        return "", None
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    if parts.netloc != text or "@" in text or text.endswith(":"):
        return "", None
    return name.rstrip("."), port


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def problem(refused: Refused) -> JSONResponse:
    """The answer to a request that is not served."""
    headers = {} if refused.retry is None else {"Retry-After": str(refused.retry)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": refused.reason}, refused.status, headers)


class Guard:
    """ASGI middleware around everything.

    Args:
        token: which all but the paths of ``free`` ask for; None where anybody may ask.
        on_predict: called with (status, seconds) of each answer under /predict.
        debug: log tracebacks. Clients never see them.
    """

    def __init__(
        self,
        app: Any,
        hosts: Hosts,
        token: Token | None,
        free: Collection[str],
        on_predict: Callable[[int, float], None],
        debug: bool = False,
    ) -> None:
        self._app, self._hosts, self._token, self._free = app, hosts, token, frozenset(free)
        self._on_predict, self._debug = on_predict, debug

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 0
        body = _Body(scope, receive)

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] != 408:  # its body had its time
                    await body.swallow()
                status = message["status"]
            await send(message)

        async def refuse(refused: Refused) -> None:
            if not status:
                await problem(refused)(scope, body.receive, answer)

        try:
            refused = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
            if refused:
                await refuse(refused)
            else:
                await self._app(scope, body.receive, answer)
        except asyncio.CancelledError:  # the server stops, and will not wait any longer
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await refuse(Refused(503, "the server stops"))
        except Exception as error:
            log.error("%s %s failed: %s", scope["method"], printable(scope["path"]), printable(first_line(error)))
            if self._debug:
                lines = "".join(format_exception(error)).splitlines()
                log.error("%s", "\n".join(map(printable, lines)))
            await refuse(Refused(500, "the server failed at this request; its log says why"))
        finally:
            if scope["path"] == "/predict":
                self._on_predict(status, time.monotonic() - begin)

    def _refusal(self, method: str, path: str, headers: Headers) -> Refused | None:
        """Why this request is not served; None where it is."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._hosts.allow(hosts[0]):
            name = hosts[0][:100] if hosts else ""
            return Refused(400, f"this server does not go by the name {name!r}: start it with --allow-host NAME")
        if method not in ("GET", "HEAD"):
            own = all(self._hosts.own(origin, hosts[0]) for origin in origins) and len(origins) < 2
            if not own or headers.get("sec-fetch-site") == "cross-site":
                return Refused(403, "a page of another site may not use this server")
        if self._token and path not in self._free and not self._token.given_in(headers):
            return Refused(401, "this server wants a token: send it as Authorization: Bearer TOKEN")
        return None


class _Body:
    """A request's body: where an answer is ready before it was read, and the connection ends with it, the rest is read.

    A connection that is closed with unread data is reset, and the client may lose the answer (413, say) with it.
    """

    def __init__(self, scope: Any, receive: Any) -> None:
        headers = Headers(scope=scope)
        ends = scope["http_version"] == "1.0" or "close" in headers.get("connection", "").lower()
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._receive = receive
        self._unread = ends and has_body and "expect" not in headers

    async def receive(self) -> Any:
        message = await self._receive()
        if not message.get("more_body"):
            self._unread = False
        return message

    async def swallow(self) -> None:
        try:
            async with asyncio.timeout(REST):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            pass
        finally:
            self._unread = False
