"""uvicorn's connections with an end to everything a client can leave undone, and a limit to their number.

uvicorn itself ends a connection that is idle after an answer. It has no limit for one that never sends its headers,
that sends a body for ever after the answer, or that does not read the answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from retinanet.serve.guard import HEADERS as SAFE
from retinanet.serve.guard import REST
from retinanet.serve.limits import Limits

HEADERS = 10.0
"""Seconds from the connection, or from the last answer, until the headers of a request are there."""
WRITING = 10.0
"""Seconds for an answer to be read, once it is there."""


class Connection(H11Protocol):
    """One client's connection; ``end_if_late`` is called every moment."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: tuple[str, Any] | None = None
        self._since = time.monotonic()
        self._refused = False
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if not self._refused:  # else what still comes is read, and not kept
            super().data_received(data)

    @property
    def _limits(self) -> Limits:
        app: Any = self.config.app
        limits: Limits = app.state.service.limits
        return limits

    @property
    def phase(self) -> str:
        """What is waited for: the "headers" of a request, its "answer", the "rest" of its body, or the "end"."""
        if self.transport.is_closing():
            return "end"
        if self._refused:
            return "rest"
        if self.cycle is None or (self.cycle.response_complete and self.conn.their_state is h11.IDLE):
            return "headers"
        return "rest" if self.cycle.response_complete else "answer"

    def end_if_late(self) -> None:
        """End the connection where its phase has lasted too long."""
        seconds = {"headers": HEADERS, "answer": self._limits.seconds + WRITING, "rest": REST, "end": WRITING}
        phase, now = self.phase, time.monotonic()
        if self._seen != (phase, self.cycle):  # of two requests in turn each has its own time
            self._seen, self._since = (phase, self.cycle), now
        elif now - self._since > seconds[phase]:
            if phase == "headers" and self.conn.trailing_data[0]:
                self._refuse(408, f"the headers did not arrive within {HEADERS:g} s")
            else:
                self.transport.abort()

    def _make_room(self) -> None:
        """One more than the limit: the one that its client has kept waiting for longest goes, else this one."""
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        waiting = [other for other in others if other.phase != "answer"]
        if waiting:
            oldest = min(waiting, key=lambda other: other._since)
            self.connections.discard(oldest)  # at once, so that the next one does not choose it again
            oldest.transport.abort()
        else:
            self._refuse(503, "too many connections: try again")

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for what is not HTTP."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application is told so, rather than write behind this answer
            self.cycle.message_event.set()
        self._refuse(400, msg.rstrip(".").lower())

    def _refuse(self, status: int, reason: str) -> None:
        """Answer without the application, and end. The client closes: with data unread it would lose the answer."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps({"error": reason}).encode()
        headers = {**SAFE, "Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
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
