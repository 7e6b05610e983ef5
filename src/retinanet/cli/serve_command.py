"""retinanet serve"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, output_of
from retinanet.cli.shared_options import MORE, BatchSize, Device, Model, NmsOption, Precision, Trust
from retinanet.common.arguments import Nms, PredictOptions
from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.terminal.console import Output

if TYPE_CHECKING:
    import socket

    from retinanet.serve.token import Token

NEEDED = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
MOST_PIXELS = 178.0  # megapixels above which Pillow opens no image


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """Where the server listens, and who may use it."""

    host: str = "127.0.0.1"
    """Address to listen on. Only this machine reaches the default. Other machines reach 0.0.0.0, which needs
    --token-file or --no-token."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    allow_host: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=(), group=MORE)] = ()
    """Further names of this server in requests, such as that of a reverse proxy."""
    token_file: Path | None = None
    """File with a secret that requests must send: Authorization: Bearer SECRET. The page asks for it."""
    no_token: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Let everybody who reaches the server use it."""

    def token(self) -> Token | None:
        """The token of the file.

        Raises:
            RequestError: an option is malformed, or two contradict each other.
        """
        from retinanet.serve.token import read_token

        for name in self.allow_host:
            if not name.strip("[]") or "/" in name or "]:" in name or name.count(":") == 1:
                raise RequestError(f"--allow-host {name}: give a name or an IP address, without http:// and port")
        if self.token_file and self.no_token:
            raise RequestError("--token-file and --no-token contradict each other: give one of them")
        return read_token(self.token_file) if self.token_file else None


@Parameter(name="*", group=MORE)
@dataclass(frozen=True)
class CapacityOptions:
    """Batches, and the limits that refuse what is too much."""

    batch_size: BatchSize = 8
    wait: float = 5.0
    """Milliseconds that an image waits for others when the server is idle."""
    queue: int = 64
    """The most images that wait; further requests get 503."""
    timeout: float = 30.0
    """Seconds from a request's arrival to its response; stopping takes no longer either."""
    max_megabytes: float = 20.0
    """The most megabytes of a request."""
    max_megapixels: float = 50.0
    """The most megapixels of an image."""
    max_images: int | None = None
    """The most images of a request. [default: 16, or --queue if that is less]"""
    max_connections: int | None = None
    """The most open connections of all clients. Above it, the connection that has waited longest for its client is
    closed. [default: 256, or less if the limit of open files is lower]"""

    @property
    def images(self) -> int:
        return min(16, self.queue) if self.max_images is None else self.max_images

    @property
    def connections(self) -> int:
        return min(256, _most_connections()) if self.max_connections is None else self.max_connections

    def check(self) -> None:
        """
        Raises:
            RequestError: a number is out of range.
        """
        for name, value, least, most in (
            ("--batch-size", self.batch_size, 1, 1024),
            ("--wait", self.wait, 0, 1000),
            ("--queue", self.queue, 1, 100_000),
            ("--timeout", self.timeout, 0.1, 3600),
            ("--max-megabytes", self.max_megabytes, 0.001, 2000),
            ("--max-megapixels", self.max_megapixels, 0.001, MOST_PIXELS),
            ("--max-images", self.images, 1, self.queue),
            ("--max-connections", self.connections, 1, _most_connections()),
        ):
            if not least <= value <= most:
                source = {"--max-images": " (--queue)", "--max-connections": " (ulimit -n)"}.get(name, "")
                raise RequestError(f"{name} must be from {least:g} to {most:g}{source}, not {value:g}")


def serve(
    model: Model,
    /,
    *,
    network: NetworkOptions | None = None,
    capacity: CapacityOptions | None = None,
    nms: NmsOption = None,
    device: Device = None,
    precision: Precision = None,
    trust: Trust = False,
    common: Common | None = None,
) -> None:
    """Serve a model over HTTP, with a page to try it on.

    The page "Serving" of the documentation describes requests, limits and deployment.

    Examples
    --------
    retinanet serve runs/pets-1
    curl -F images=@a.jpg http://127.0.0.1:8000/predict   (in another terminal)
    """
    out = output_of(common)
    network, capacity = network or NetworkOptions(), capacity or CapacityOptions()
    require_model(model)
    for module, package in NEEDED.items():
        if find_spec(module) is None:
            raise RequestError(f"retinanet serve needs {package}: pip install 'retinanet[serve]'")
    if not 0 <= network.port <= 65535:
        raise RequestError(f"--port must be from 0 to 65535, not {network.port}")
    capacity.check()

    from retinanet.serve.server import is_loopback, listen, url_of

    # Errors in these are reported before a model is loaded, which takes seconds.
    token = network.token()
    bound = listen(network.host, network.port, guarded=network.no_token or token is not None)
    try:
        out.note(f"opening {model}")
        detector = load(model, device, precision, out, trust)
        detector.require(PredictOptions(nms=nms))
        name, url = model_name(model), url_of(bound)
        app = _app(detector, name, network, capacity, nms, token, common is not None and common.debug)
        if not is_loopback(bound.getsockname()[0]):
            users = "everybody with the token" if token else "everybody"
            out.note(
                f"warning: {network.host} is open to the network, for {users}, without encryption: see docs/serve.md"
            )
        out.json({"model": name, "url": url, "classes": detector.class_names, "precision": detector.precision})
        out.say(f"serving {name} on {url} (Ctrl-C stops it)")
        sys.stdout.flush()  # a program that started this waits for that line
        _run(app, bound, out)
    finally:
        bound.close()


def _app(
    detector: Any,
    name: str,
    network: NetworkOptions,
    capacity: CapacityOptions,
    nms: Nms | None,
    token: Token | None,
    debug: bool,
) -> Any:
    """The web application, for a model that has predicted once."""
    import torch

    from retinanet.serve.app import make_app
    from retinanet.serve.batching import QueueOptions
    from retinanet.serve.guard import Hosts
    from retinanet.serve.limits import Limits

    # The first prediction compiles and allocates. A model that cannot predict fails here, and not in a request.
    detector.predict(torch.full((3, 480, 640), 127, dtype=torch.uint8))
    return make_app(
        detector,
        name=name,
        limits=Limits(
            capacity.max_megabytes, capacity.max_megapixels, capacity.images, capacity.timeout, capacity.connections
        ),
        queue=QueueOptions(capacity.batch_size, capacity.queue, capacity.wait / 1000, nms),
        hosts=Hosts(network.host, network.allow_host),
        token=token,
        debug=debug,
    )


def _run(app: Any, bound: socket.socket, out: Output) -> None:
    """Serve until a signal comes."""
    from retinanet.serve import server

    code, line = 0, "stopped before all work was done"
    try:
        server.serve(app, bound, on_stop=lambda: out.note("stopping: accepted requests are finished first"))
    except KeyboardInterrupt:
        code = 130
        raise
    except Exception as error:
        code, line = 1, printable(f"error: {error}")
        raise
    finally:
        if app.state.service.busy():
            # An image that takes very long to decode would keep the process alive: Python waits for such threads.
            print(line, file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(code)


def _most_connections() -> int:
    """The limit of open files, less some for everything else: each connection is one."""
    most = 10_000
    if sys.platform != "win32":  # which has no such limit
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = most if soft == resource.RLIM_INFINITY else max(16, min(most, soft - 128))
    return most


def model_name(model: str) -> str:
    """The model's name for clients, without its folder on this machine."""
    path = Path(model)
    if path.exists():
        return path.resolve().name
    return model.split("?")[0].rsplit("/", 1)[-1] if "://" in model else model
