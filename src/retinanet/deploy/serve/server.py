"""uvicorn with our own socket and our own way to stop."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from retinanet.errors import RequestError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        RequestError: the address is not to be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise RequestError(f"--host {host}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(256)
    except OSError as error:
        bound.close()
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise RequestError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from error
    return bound


def address(bound: socket.socket) -> str:
    """http://host:port of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Stops at the first SIGTERM or SIGINT once all it took is answered, at the second without that.

    uvicorn's own class raises the signal once more in the end: the process would not end with 0.
    """

    should_exit: bool
    force_exit: bool

    def __init__(self, app: FastAPI, on_stop: Callable[[], None] = lambda: None) -> None:
        seconds = app.state.service.limits.seconds
        config = uvicorn.Config(
            app,
            http="h11",  # it limits the size of headers
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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        if not self.should_exit:
            self._on_stop()
        self.should_exit = True


def serve(app: FastAPI, bound: socket.socket, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal comes; for the main thread.

    Args:
        on_stop: called when the server begins to stop.

    Raises:
        KeyboardInterrupt: a second signal came.
    """
    server = Server(app, on_stop)
    server.run(sockets=[bound])
    if server.force_exit:
        sys.stdout.flush()
        raise KeyboardInterrupt
