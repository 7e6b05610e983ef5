"""A real server on a free port with a small detector, and requests to it."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers.random_weights import scatter
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

NAMES = ("dog", "cat", "bird")


def small_detector(about: dict[str, Any] | None = None) -> Detector:
    """Random weights whose scores spread over 0..1; a prediction takes some milliseconds."""
    torch.manual_seed(0)
    settings = ModelSettings(
        backbone=BackboneSettings(name="resnet18", options={"channels": [8, 8, 16, 16]}),
        pyramid=PyramidSettings(channels=16),
        head=HeadSettings(depth=1, width=16, norm="group"),
        anchors=AnchorSettings(sizes=(8, 16, 32, 64, 128)),
        preprocessing=PreprocessingSettings(size=64, longer=107),
        postprocessing=PostprocessingSettings(threshold=0.05, max_detections=100),
    )
    model = RetinaNet(settings, len(NAMES))
    scatter(model, 0.18, 0.03, -1.5)
    return Detector(model, NAMES, about=about)


class Gated(Detector):
    """A detector whose predictions wait until ``gate`` is set."""

    def __init__(self) -> None:
        plain = small_detector()
        super().__init__(plain.model, plain.class_names)
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[int] = []

    def predict(self, images: Any, **how: Any) -> Any:
        self.batches.append(len(images))
        self.begun.release()
        assert self.gate.wait(30), "the test did not open the gate"
        return super().predict(images, **how)


def encoded(
    width: int = 96, height: int = 64, kind: str = "JPEG", seed: int = 0, mode: str = "RGB", **how: Any
) -> bytes:
    """An image of random blocks as a file."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def form(*files: tuple[str, bytes], boundary: str = "xyz", field: str = "images") -> tuple[bytes, str]:
    """A multipart body and its content type."""
    parts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    )
    return parts + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def posted(data: bytes) -> bytes:
    """A request to /predict, byte for byte."""
    return b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    port: int
    app: Any

    @property
    def service(self) -> Any:
        return self.app.state.service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: bytes | None = None, kind: str | None = None, **headers: str
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if kind is not None:
                sent["Content-Type"] = kind
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, **headers)

    def predict(self, image: bytes, query: str = "", kind: str = "image/jpeg", **headers: str) -> Reply:
        return self.request("POST", f"/predict{query}", image, kind, **headers)

    def send(self, *files: tuple[str, bytes], query: str = "") -> Reply:
        return self.request("POST", f"/predict{query}", *form(*files))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def raw(self, data: bytes, end: bool = True) -> bytes:
        """The response to these bytes, until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


class Background:
    """Requests to /predict, each in its own thread."""

    def __init__(self, server: Running, count: int) -> None:
        self._statuses: list[int] = []
        self._threads = [threading.Thread(target=self._request, args=[server]) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _request(self, server: Running) -> None:
        self._statuses.append(server.predict(encoded()).status)

    def statuses(self) -> list[int]:
        """The HTTP statuses, when all responses have arrived."""
        for thread in self._threads:
            thread.join(30)
        return sorted(self._statuses)


@contextmanager
def command(folder: Path, *options: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """``retinanet serve`` with a small detector, in a process of its own.

    Args:
        code: Python that runs before the command.
    """
    small_detector().save(folder / "mine.safetensors")
    code = f"import sys\n{code}\nfrom retinanet.cli import main\nsys.exit(main(['serve', *sys.argv[1:]]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "mine.safetensors"), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def server_of(process: subprocess.Popen[str]) -> Running:
    """The server of a process, when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"serving mine.safetensors on http://127.0.0.1:(\d+)", line)
    assert match, line
    return Running(int(match[1]), None)


@contextmanager
def running(detector: Any, **options: Any) -> Iterator[Running]:
    """A server in a thread.

    Args:
        options: of QueueOptions and make_app.
    """
    from retinanet.serve.app import make_app
    from retinanet.serve.batching import QueueOptions
    from retinanet.serve.server import Server, listen

    queue = {key: options.pop(key) for key in ("batch_size", "capacity", "wait") if key in options}
    app = make_app(detector, queue=QueueOptions(**queue), **options)
    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        until(lambda: server.started)
        yield Running(port, app)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert not app.state.service.busy()


def until(true: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.005)
