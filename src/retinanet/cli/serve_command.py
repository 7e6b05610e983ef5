"""retinanet serve"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.cli.console import Output
from retinanet.cli.model_argument import Precision, load, require_model
from retinanet.cli.options import Common
from retinanet.common.errors import RequestError
from retinanet.common.printable import printable

if TYPE_CHECKING:
    from retinanet.serve.token import Token

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
MOST_PIXELS = 178.0  # megapixels beyond which Pillow opens no image


def serve(
    model: str,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    token_file: Path | None = None,
    no_token: Annotated[bool, Parameter(negative=())] = False,
    batch_size: int = 8,
    wait: float = 5.0,
    queue: int = 64,
    timeout: float = 30.0,
    max_megabytes: float = 20.0,
    max_megapixels: float = 50.0,
    max_images: int | None = None,
    max_connections: int | None = None,
    device: str | None = None,
    precision: Precision = None,
    trust: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    common: Common | None = None,
) -> None:
    """Answer requests over HTTP, with a page to try the model on; docs/serve.md has the whole of it.

    Example: retinanet serve runs/mine, and in another terminal: curl -F images=@a.jpg http://127.0.0.1:8000/predict

    Parameters
    ----------
    model
        A run folder (its best checkpoint), a checkpoint or exported file, an https address, user/name on the Hugging
        Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's.
    host
        The address to listen on. The default is reached from this machine alone; 0.0.0.0 from every network it is in,
        which needs --token-file or --no-token.
    port
        0 takes a free one.
    allow_host
        Further names that requests may ask for, such as that of a reverse proxy.
    token_file
        A file with a secret that requests have to carry: Authorization: Bearer SECRET. The page asks for it.
    no_token
        Listen on an address that other machines reach, and let anybody use the server who reaches it.
    batch_size
        The most images that go through the network together.
    wait
        Milliseconds that an image waits for company when there is nothing to do.
    queue
        The most images that wait; further requests get 503.
    timeout
        Seconds from a request's arrival to its answer; stopping takes no longer either.
    max_megabytes
        Of a request.
    max_megapixels
        Of an image.
    max_images
        Of a request; 16 by default, or as many as may wait.
    max_connections
        Open at a time, of all clients; 256 by default, or as many as there may be open files. Beyond, the one that its
        client has left waiting for longest is closed.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    precision
        "auto" computes in bf16 where the machine does so natively, else in fp32; by default "auto" for models trained
        here, and "fp32" for those of other projects, so that their boxes are the same as there.
    trust
        Load an exported PyTorch program (.pt2) too, which can run anything on this machine; other files need no trust.
    """
    out = Output(common)
    require_model(model)
    for module, package in NEEDED.items():
        if find_spec(module) is None:
            raise RequestError(f"retinanet serve needs {package}: pip install 'retinanet[serve]'")
    images = min(16, queue) if max_images is None else max_images
    most_connections = _most_connections()
    connections = min(256, most_connections) if max_connections is None else max_connections
    for name, value, least, most in (
        ("--port", port, 0, 65535),
        ("--batch-size", batch_size, 1, 1024),
        ("--wait", wait, 0, 1000),
        ("--queue", queue, 1, 100_000),
        ("--timeout", timeout, 0.1, 3600),
        ("--max-megabytes", max_megabytes, 0.001, 2000),
        ("--max-megapixels", max_megapixels, 0.001, MOST_PIXELS),
        ("--max-images", images, 1, queue),
        ("--max-connections", connections, 1, most_connections),
    ):
        if not least <= value <= most:
            because = {"--max-images": " (--queue)", "--max-connections": " (ulimit -n)"}.get(name, "")
            raise RequestError(f"{name} must be from {least:g} to {most:g}{because}, not {value:g}")

    from retinanet.serve.server import address, is_loopback, listen

    # What is wrong with these is reported before a model is loaded.
    token = _door(allow_host, token_file, no_token)
    bound = listen(host, port, guarded=no_token or token is not None)
    try:
        out.note(f"opening {model}")
        detector = load(model, device, precision, out, trust)

        from retinanet.serve import server
        from retinanet.serve.app import make_app
        from retinanet.serve.limits import Limits

        _warm_up(detector)
        name = model_name(model)
        app = make_app(
            detector,
            name=name,
            limits=Limits(max_megabytes, max_megapixels, images, timeout, connections),
            batch_size=batch_size,
            capacity=queue,
            wait=wait / 1000,
            host=host,
            allowed_hosts=allow_host,
            token=token,
            debug=out.common.debug,
        )
        url = address(bound)
        if not is_loopback(bound.getsockname()[0]):
            whom = "to whoever has the token" if token else "to everybody"
            out.note(f"warning: {host} is open to the network, {whom}, without encryption: see docs/serve.md")
        out.json({"model": name, "url": url, "classes": detector.class_names, "precision": detector.precision})
        out.say(f"serving {name} on {url} (Ctrl-C stops it)")
        sys.stdout.flush()  # whoever started this waits for that line
        code, line = 0, "stopped, with work that was not done"
        try:
            server.serve(app, bound, on_stop=lambda: out.note("stopping: what was taken is finished first"))
        except KeyboardInterrupt:
            code = 130
            raise
        except Exception as error:
            code, line = 1, printable(f"error: {error}")
            raise
        finally:
            if app.state.service.busy():
                # An image that takes ages to decode would keep the process alive: Python waits for such threads.
                print(line, file=sys.stderr, flush=True)
                sys.stdout.flush()
                os._exit(code)
    finally:
        bound.close()


def _door(allow_host: tuple[str, ...], token_file: Path | None, no_token: bool) -> Token | None:
    """The token, where there is one, and what contradicts itself."""
    from retinanet.serve.token import read_token

    for name in allow_host:
        if not name.strip("[]") or "/" in name or "]:" in name or name.count(":") == 1:
            raise RequestError(f"--allow-host {name}: give a name or an address alone, without http:// and port")
    if token_file and no_token:
        raise RequestError("--token-file and --no-token contradict each other: give one of them")
    return read_token(token_file) if token_file else None


def _most_connections() -> int:
    """As many as there may be open files, less some for everything else; each connection is one."""
    try:
        import resource
    except ImportError:  # Windows
        return 10_000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if soft == resource.RLIM_INFINITY else max(16, min(10_000, soft - 128))


def model_name(model: str) -> str:
    """For people, and for everybody who asks: not where the file lies on this machine."""
    path = Path(model)
    if path.exists():
        return path.resolve().name
    return model.split("?")[0].rsplit("/", 1)[-1] if "://" in model else model


def _warm_up(detector: object) -> None:
    """The first prediction compiles and allocates; and a model that cannot predict is known before it is asked."""
    import torch

    detector.predict(torch.full((3, 480, 640), 127, dtype=torch.uint8))  # type: ignore[attr-defined]
