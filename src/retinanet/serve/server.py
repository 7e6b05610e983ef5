"""uvicorn with our own socket and our own way to stop."""

from __future__ import annotations

import ipaddress
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError, WorkError
from retinanet.serve.connections import Connection

BACKLOG = 128
"""Connections that wait to be accepted; that many are accepted at a time, on top of the limit."""


def listen(host: str, port: int, guarded: bool = True) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Args:
        guarded: whether it may be reached from other machines.

    Raises:
        RequestError: the address is not to be had, or other machines reach it and must not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is longer than DNS allows, or empty
        raise RequestError(f"--host {host}: {what_is_wrong(error)}") from error
    if not guarded and not is_loopback(str(address[0])):
        bound.close()
        raise RequestError(
            f"--host {host} is reached from other machines: give --token-file FILE, with a secret that requests have "
            "to carry, or --no-token where anybody who reaches it may use it"
        )
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise RequestError(
            f"cannot listen on {host} port {port}: {what_is_wrong(error)}; choose another with --port"
        ) from error
    return bound


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def address(bound: socket.socket) -> str:
    """http://host:port of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Stops at the first SIGTERM or SIGINT once all it took is answered, at the second without that.

    It stops as well where the thread that runs the model has ended: whoever started it starts it again, while a server
    that cannot answer would stay one.

    uvicorn's own class raises the signal once more in the end: the process would not end with 0.
    """

    should_exit: bool
    force_exit: bool

    def __init__(self, app: FastAPI, on_stop: Callable[[], None] = lambda: None) -> None:
        self._service = app.state.service
        seconds = self._service.limits.seconds
        config = uvicorn.Config(
            app,
            http=Connection,
            backlog=BACKLOG,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # Within that every request has been answered, if only with 504.
            timeout_graceful_shutdown=math.ceil(seconds) + 1,
        )
        super().__init__(config)
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # tests; signals come to the main thread alone
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        for connection in list(self.server_state.connections):
            connection.end_if_late()  # type: ignore[union-attr]
        return await super().on_tick(counter) or self._service.batcher.failed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn leaves it out then, and it would be cancelled with a traceback
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = self._service.hurry = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        else:
            self._on_stop()
        self.should_exit = True


def serve(app: FastAPI, bound: socket.socket, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal comes; for the main thread.

    Args:
        on_stop: called when the server begins to stop.

    Raises:
        KeyboardInterrupt: a second signal came.
        WorkError: the thread that runs the model has ended.
    """
    server = Server(app, on_stop)
    server.run(sockets=[bound])
    if server.force_exit:
        sys.stdout.flush()
        raise KeyboardInterrupt
    if app.state.service.batcher.failed:
        raise WorkError("the thread that runs the model has ended, see above: the server has to be started again")
