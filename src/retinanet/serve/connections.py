"""uvicorn's connections with a deadline for everything that a client can leave undone, and a limit to their number.

uvicorn itself closes a connection that is idle after a response. It has no deadline for headers that never come, for a
body that goes on after the response, or for a response that the client does not read.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from retinanet.serve.guard import DRAIN_SECONDS, SECURITY_HEADERS
from retinanet.serve.limits import Limits

HEADER_SECONDS = 10.0
"""Time from the connection, or from the last response, until all headers of a request have arrived."""
WRITE_SECONDS = 10.0
"""Time for the client to read a response, once it is ready."""


class Connection(H11Protocol):
    """One client's connection; the server calls ``end_if_late`` about ten times a second."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._phase: tuple[str, Any] | None = None
        self._since = time.monotonic()
        self._refused = False
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if not self._refused:  # after a refusal data is read and thrown away
            super().data_received(data)

    @property
    def _limits(self) -> Limits:
        app: Any = self.config.app
        limits: Limits = app.state.service.limits
        return limits

    @property
    def phase(self) -> str:
        """What comes next: the "headers" of a request, its "response", the "rest" of its body, or the "end"."""
        if self.transport.is_closing():
            return "end"
        if self._refused:
            return "rest"
        if self.cycle is None or (self.cycle.response_complete and self.conn.their_state is h11.IDLE):
            return "headers"
        return "rest" if self.cycle.response_complete else "response"

    def end_if_late(self) -> None:
        """End the connection where its phase has lasted too long."""
        seconds = {
            "headers": HEADER_SECONDS,
            "response": self._limits.seconds + WRITE_SECONDS,
            "rest": DRAIN_SECONDS,
            "end": WRITE_SECONDS,
        }
        phase, now = self.phase, time.monotonic()
        if self._phase != (phase, self.cycle):  # each request of a connection has its own time
            self._phase, self._since = (phase, self.cycle), now
        elif now - self._since > seconds[phase]:
            if phase == "headers" and self.conn.trailing_data[0]:
                self._refuse(408, f"the headers did not arrive within {HEADER_SECONDS:g} s")
            else:
                self.transport.abort()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client; where there is none, refuse this one."""
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        waiting = [other for other in others if other.phase != "response"]
        if waiting:
            oldest = min(waiting, key=lambda other: other._since)
            self.connections.discard(oldest)  # at once, so that the next one does not choose it again
            oldest.transport.abort()
        else:
            self._refuse(503, "too many connections: try again")

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this where the data is not HTTP."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # so that the application writes nothing after this response
            self.cycle.message_event.set()
        self._refuse(400, msg.rstrip(".").lower())

    def _refuse(self, status: int, reason: str) -> None:
        """Respond without the application. The client closes the connection: it would lose the response otherwise."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps({"error": reason}).encode()
        headers = SECURITY_HEADERS | {"Content-Type": "application/json", "Connection": "close"}
        headers["Content-Length"] = str(len(body))
        for event in (
            h11.Response(status_code=status, headers=[*headers.items()]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        self._refused = True

    def shutdown(self) -> None:
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()
