"""Thousands of requests that end early, in every phase: nothing of them remains, and the next one is served."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import socket
import struct
import threading
from collections import Counter
from typing import Any

import pytest

import helpers.serve_extra  # noqa: F401
from helpers.serving import Background, Gated, Running, encoded, form, posted, running, small_detector, until
from retinanet.common.errors import RequestError, WorkError
from retinanet.serve.app import make_app
from retinanet.serve.batching import QueueOptions
from retinanet.serve.limits import Limits
from retinanet.serve.server import Server, listen, serve

FILES = [encoded(40, 30, seed=seed) for seed in range(3)]


class Client:
    """One request straight to the application; ``leave`` closes its connection."""

    def __init__(self, app: Any, dice: random.Random) -> None:
        self.app, self.dice = app, dice
        self.body, kind = form(*[("a.jpg", dice.choice(FILES)) for _ in range(dice.randint(1, 3))])
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/predict", "raw_path": b"/predict", "query_string": b"", "root_path": "", "state": {},
            "headers": [(b"host", b"localhost"), (b"content-type", kind.encode())],
        }  # fmt: skip
        self.sent = 0
        self.gone = asyncio.Event()
        self.reads = True
        self.status = 0
        self.complete = False

    def leave(self) -> None:
        self.gone.set()

    async def receive(self) -> Any:
        step = len(self.body) // self.dice.choice([1, 2, 5]) + 1
        if self.sent < len(self.body) and not self.gone.is_set():
            await asyncio.sleep(0)
            piece = self.body[self.sent : self.sent + step]
            self.sent += len(piece)
            return {"type": "http.request", "body": piece, "more_body": self.sent < len(self.body)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        if not self.reads:  # writing takes until the connection is closed
            await self.gone.wait()
        self.complete = message["type"] == "http.response.body" and not message.get("more_body")

    async def run(self) -> None:
        await self.app(self.scope, self.receive, self.send)


def healthy(app: Any) -> None:
    """Check that nothing of any request remains."""
    service = app.state.service
    until(lambda: not service.batcher.waiting and not service.memory.used and not service._decoding)
    assert service.batcher.ready
    assert not service.batcher._jobs


async def storm(app: Any, count: int, seed: int) -> Counter[str]:
    """That many requests, 48 at a time; each ends in a random way at a random time."""
    dice = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slots = asyncio.Semaphore(48)

    async def one() -> None:
        async with slots:
            client = Client(app, dice)
            way = dice.choice(["stays", *["leaves", "is cancelled"] * 3, "never reads"])
            client.reads = way != "never reads"
            task = asyncio.create_task(client.run())
            # The request is then in any phase: body, decoding, queue, batch, computation or response.
            for _ in range(dice.choice([0, 1, 2, 4, 8, 16])):
                await asyncio.sleep(0)
            await asyncio.sleep(dice.choice([0, 0.001, 0.003, 0.01, 0.03]) * dice.random())
            if way == "is cancelled":
                task.cancel()
            elif way != "stays":
                client.leave()
            await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 60)
            outcomes[f"{way}: {client.status if client.complete else 'no answer'}"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [20.0, 0.03])
def test_thousands_of_requests_end_in_every_phase(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    """Clients leave and the server cancels; with the shorter time limit, requests also time out in every phase."""
    app = make_app(small_detector(), limits=Limits(seconds=seconds), queue=QueueOptions(4, capacity=24, wait=0.001))

    async def main() -> Counter[str]:
        async with app.router.lifespan_context(app):
            outcomes = await storm(app, 1200, seed=1)
            await asyncio.to_thread(healthy, app)
            app.state.service.limits = Limits(seconds=20)
            client = Client(app, random.Random(0))
            await client.run()
            assert (client.status, client.complete) == (200, True)
            return outcomes

    outcomes = asyncio.run(main())
    assert outcomes.total() == 1200
    stayed = {outcome.split(": ")[1] for outcome in outcomes if outcome.startswith("stays")}
    assert stayed <= {"200", "503", "504", "408"}  # each gets a response
    assert "200" in stayed or seconds < 1
    assert {"leaves: 499", "is cancelled: 503"} <= set(outcomes), outcomes
    assert seconds > 1 or outcomes.keys() & {"stays: 504", "stays: 408"}
    assert caplog.text == ""


@pytest.mark.slow
def test_cancelled_while_it_is_computed() -> None:
    """The slot is free, the thread goes on, and the next request gets its response."""
    detector = Gated()
    with running(detector, batch_size=4, wait=0.05, limits=Limits(seconds=20)) as server:
        for _ in range(20):
            connections = [server.connect() for _ in range(3)]
            for connection in connections:
                connection.sendall(posted(encoded()))
            assert detector.begun.acquire(timeout=10)
            for connection in connections:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
                connection.close()
            until(lambda: server.service.batcher.waiting == server.service.memory.used == 0)
            detector.gate.set()
            assert server.predict(encoded()).status == 200
            while detector.begun.acquire(blocking=False):
                pass
            detector.gate.clear()
        assert server.get("/health").status == 200


class Strange(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


ERRORS = [
    ValueError("two\nlines"), RuntimeError("with \x1b[31m colour"), MemoryError(), RecursionError(), AssertionError(),
    StopIteration(), StopAsyncIteration(), GeneratorExit(), SystemExit(3), KeyboardInterrupt(), BaseException(),
    TimeoutError(), asyncio.CancelledError(), concurrent.futures.CancelledError(),
    concurrent.futures.InvalidStateError(), OSError(28, "no space"), Strange(), ExceptionGroup("", [ValueError()]),
]  # fmt: skip


def test_whatever_the_model_raises_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """500 for that request, and no effect on others."""
    detector = small_detector()
    right = detector.predict
    with running(detector, batch_size=4, wait=0.02) as server:
        for error in ERRORS:

            def fail(*_: Any, error: BaseException = error, **__: Any) -> Any:
                raise error

            detector.predict = fail  # type: ignore[method-assign]
            for reply in (server.predict(encoded()), server.send(("a.jpg", encoded()), ("b.jpg", encoded()))):
                assert reply.status == 500, error.__class__
                assert reply.json == {"error": "the server failed on this request; its log has the reason"}
            detector.predict = right  # type: ignore[method-assign]
            assert server.predict(encoded()).status == 200
            assert server.get("/health").status == 200
        assert server.service.memory.used == server.service.batcher.waiting == 0
    assert len(caplog.records) == 2 * len(ERRORS)
    assert all(record.getMessage().isprintable() for record in caplog.records)
    for name in ("MemoryError", "SystemExit", "CancelledError", "Strange"):
        assert name in caplog.text


def test_a_model_that_hangs() -> None:
    """All requests get 504, and /health is "stuck" until the model returns."""
    detector = Gated()
    with running(detector, wait=0, limits=Limits(seconds=0.2)) as server:
        assert server.predict(encoded()).status == 504
        until(lambda: server.get("/health").json["status"] == "stuck")
        assert server.get("/health").status == 503
        detector.gate.set()
        until(lambda: server.get("/health").status == 200)
        server.service.limits = Limits(seconds=20)
        assert server.predict(encoded()).status == 200


def test_wrong_number_of_detections() -> None:
    detector = small_detector()
    right = detector.predict
    with running(detector) as server:
        detector.predict = lambda *a, **k: right(*a, **k)[:-1]  # type: ignore[method-assign]
        assert server.predict(encoded()).status == 500
        detector.predict = right  # type: ignore[method-assign]
        assert server.predict(encoded()).status == 200


def test_a_server_without_its_thread_ends(caplog: pytest.LogCaptureFixture) -> None:
    """All waiting requests get a response, and the process ends with an error instead of 503 for ever."""
    detector = Gated()
    app = make_app(detector, queue=QueueOptions(1, wait=0), limits=Limits(seconds=20))
    service = app.state.service
    bound = listen("127.0.0.1", 0)

    def fault(size: int) -> None:
        raise MemoryError

    service.batcher._on_batch = fault
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            serve(app, bound)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server = Running(bound.getsockname()[1], app)
    until(lambda: service.batcher.ready)
    requests = Background(server, 4)
    until(lambda: service.batcher.waiting == 3)
    detector.gate.set()
    assert requests.statuses() == [200, 503, 503, 503]
    thread.join(30)
    assert not thread.is_alive()
    assert service.status == "failed"
    assert [type(error) for error in outcome] == [WorkError]
    assert "MemoryError" in caplog.text
    assert service.memory.used == service.batcher.waiting == 0


def test_stopping_with_requests_queued_and_left() -> None:
    detector = Gated()
    app = make_app(detector, queue=QueueOptions(2, wait=0), limits=Limits(seconds=20))
    bound = listen("127.0.0.1", 0)
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    until(lambda: server.started)
    client = Running(bound.getsockname()[1], app)
    requests = Background(client, 4)
    leaving = [client.connect() for _ in range(6)]
    for connection in leaving:
        connection.sendall(posted(encoded()))
    until(lambda: app.state.service.batcher.waiting + len(detector.batches) >= 9)
    for connection in leaving[:3]:
        connection.close()
    server.should_exit = True
    until(lambda: len(server.server_state.connections) <= 7)
    for connection in leaving[3:]:
        connection.close()
    detector.gate.set()
    assert requests.statuses() == [200] * 4
    thread.join(30)
    assert not thread.is_alive()
    assert app.state.service.memory.used == app.state.service.batcher.waiting == 0
    assert not app.state.service.busy()


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_a_host_that_is_not_a_valid_name(host: str) -> None:
    with pytest.raises(RequestError, match="--host"):
        listen(host, 0)
