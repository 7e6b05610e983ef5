"""Runs the application with uvicorn, on a socket that was opened before, until a signal stops it."""

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
"""Connections that wait to be accepted. That many may be open for a moment above the limit."""


def listen(host: str, port: int, guarded: bool = True) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Args:
        guarded: whether other machines may reach it.

    Raises:
        RequestError: the host or port is not available, or other machines reach it and must not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long for DNS
        raise RequestError(f"--host {host}: {what_is_wrong(error)}") from error
    if not guarded and not is_loopback(str(address[0])):
        bound.close()
        raise RequestError(
            f"other machines can reach --host {host}: give --token-file FILE, with a secret that requests must send, "
            "or --no-token if everybody who reaches the server may use it"
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
    """Whether only this machine can reach an IP address."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server with another way to stop.

    The first SIGTERM or SIGINT stops it after all accepted requests have their response, the second stops it at once.
    It also stops when the thread that runs the model has ended, so that a service manager can start a new process.

    uvicorn's own class raises the signal again at the end, so the process would not exit with 0.
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
            # Every request has its response within that time, if only 504.
            timeout_graceful_shutdown=math.ceil(seconds) + 1,
        )
        super().__init__(config)
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # in tests; only the main thread receives signals
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
        if self.force_exit:  # uvicorn skips this then, and the lifespan would end with a traceback
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = self._service.stop_at_once = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        else:
            self._on_stop()
        self.should_exit = True


def serve(app: FastAPI, bound: socket.socket, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal comes. Call it in the main thread.

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
        raise WorkError("the thread that runs the model has ended, see above: start the server again")
