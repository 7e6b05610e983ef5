"""Middleware before every request: checks Host, Origin and token, adds headers, and turns errors into responses."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable
from traceback import format_exception
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from retinanet.common.errors import first_line
from retinanet.common.printable import printable
from retinanet.serve.limits import Refused
from retinanet.serve.token import Token

log = logging.getLogger("retinanet.serve")
SECURITY_HEADERS = {
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
HOST = re.compile(r"(\[[\w.:%]+\]|[^\s/?#@:\[\]]+)(?::(\d{1,5}))?", re.ASCII)
"""A name or an IP address, with IPv6 in brackets, and a port."""
DRAIN_SECONDS = 5.0
"""Time for the rest of a body whose response is ready already, and after which the connection closes."""


class Hosts:
    """The names by which requests may address this server, and the origins that may use it.

    A web page can point its own name to 127.0.0.1 after it was loaded, and is then of the same origin as this server
    (DNS rebinding). The Host header shows that name. Starlette's TrustedHostMiddleware can neither allow every IP
    address nor check the Origin header, and splits IPv6 addresses at the wrong colon.

    Args:
        host: the address that the server is bound to. Where that means all addresses (0.0.0.0, ::), every IP address
            is allowed: a web page cannot have one as its name.
        allowed: further names; "*" allows every name.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        self._allowed = {name.lower().strip("[]") for name in allowed}
        self._names = {*LOCAL, host.lower().strip("[]"), *self._allowed}
        self._any_address = _is_address(host) and ipaddress.ip_address(host).is_unspecified

    def allows(self, header: str) -> bool:
        """Whether a Host header names this server."""
        name, _ = _split(header)
        return name in self._names or ("*" in self._names and name != "") or (self._any_address and _is_address(name))

    def is_own_origin(self, origin: str, header: str) -> bool:
        """Whether an Origin header is that of this server's page.

        It has the name and port of the Host header. Behind a proxy that sends another Host, it has a name that was
        allowed explicitly.
        """
        scheme, separator, netloc = origin.strip().lower().partition("://")
        if not separator or scheme not in PORTS:
            return False  # "null" too: a sandboxed frame, or a file
        name, port = _split(netloc)
        host, host_port = _split(header)
        same = (name, port or PORTS[scheme]) == (host, host_port or PORTS[scheme])
        return name != "" and (same or name in self._allowed)


def _split(header: str) -> tuple[str, int | None]:
    """Name and port of a Host header, in lower case; an empty name where it is malformed."""
    match = HOST.fullmatch(header.strip().lower())
    if not match:
        return "", None
    return match[1].strip("[]").rstrip("."), int(match[2]) if match[2] else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def error_response(refused: Refused) -> JSONResponse:
    """The response to a request that is not served."""
    headers = {} if refused.retry is None else {"Retry-After": str(refused.retry)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": refused.reason}, refused.status, headers)


class Guard:
    """ASGI middleware around the whole application.

    Args:
        token: required by all paths that are not in ``public``; None where nobody needs one.
        on_predict: called with (status, seconds) after each request to /predict.
        debug: log tracebacks. Clients never see them.
    """

    def __init__(
        self,
        app: Any,
        hosts: Hosts,
        token: Token | None,
        public: Collection[str],
        on_predict: Callable[[int, float], None],
        debug: bool = False,
    ) -> None:
        self._app, self._hosts, self._token, self._public = app, hosts, token, frozenset(public)
        self._on_predict, self._debug = on_predict, debug

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        exchange = _Exchange(scope, receive, send)
        try:
            refused = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
            if refused:
                await exchange.refuse(refused)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # the server stops, and its time for that is over
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await exchange.refuse(Refused(503, "the server is stopping"))
        except Exception as error:
            log.error("%s %s failed: %s", scope["method"], printable(scope["path"]), printable(first_line(error)))
            if self._debug:
                lines = "".join(format_exception(error)).splitlines()
                log.error("%s", "\n".join(map(printable, lines)))
            await exchange.refuse(Refused(500, "the server failed on this request; its log has the reason"))
        finally:
            if scope["path"] == "/predict":
                self._on_predict(exchange.status, time.monotonic() - begin)

    def _refusal(self, method: str, path: str, headers: Headers) -> Refused | None:
        """Why this request is not served; None where it is."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._hosts.allows(hosts[0]):
            name = hosts[0][:100] if hosts else ""
            return Refused(400, f"{name!r} is not a name of this server: start it with --allow-host NAME")
        if method not in ("GET", "HEAD"):
            own = all(self._hosts.is_own_origin(origin, hosts[0]) for origin in origins) and len(origins) < 2
            if not own or headers.get("sec-fetch-site") == "cross-site":
                return Refused(403, "a page of another site may not use this server")
        if self._token and path not in self._public and not self._token.matches(headers):
            return Refused(401, "this server needs a token: send it as Authorization: Bearer TOKEN")
        return None


class _Exchange:
    """One request and its response.

    Where the response is ready before the body was read, and the connection closes with it, the rest of the body is
    read first. A connection that is closed with unread data is reset, and the client may lose the response.
    """

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = Headers(scope=scope)
        closes = scope["http_version"] == "1.0" or "close" in headers.get("connection", "").lower()
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._scope, self._receive, self._send = scope, receive, send
        self._unread = closes and has_body and "expect" not in headers
        self.status = 0
        """HTTP status of the response; 0 before it starts."""

    async def receive(self) -> Any:
        message = await self._receive()
        if not message.get("more_body"):
            self._unread = False
        return message

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if message["status"] != 408:  # the body had its time
                await self._drain()
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        if not self.status:
            await error_response(refused)(self._scope, self.receive, self.send)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            pass
        finally:
            self._unread = False
