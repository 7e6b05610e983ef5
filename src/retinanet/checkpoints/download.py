"""Download one file from an https URL into torch.hub's cache, where torchvision and timm keep theirs too.

``torch.hub.download_url_to_file`` would wait for a silent server without end, and follow it from https to http.
"""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, getproxies, proxy_bypass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from retinanet.checkpoints.locate import secure
from retinanet.common.atomic_files import replacing, what_is_wrong
from retinanet.common.errors import RequestError, WorkError, first_line

WAIT = 10.0
"""Seconds to wait for the next byte of a server."""
CONNECT_WAIT = 2.0
"""Seconds to wait for a server's address and for it to accept a connection, in all."""
CHUNK = 1 << 18
Watch = Callable[[int, int | None], None]
"""Called with the bytes so far, and those of the whole file where that is known. An error that it raises ends it."""
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
_DATE = re.compile(r"^(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])$")


def promised_hash(name: str) -> str:
    """The start of a SHA-256 at the end of a file name, such as "eeacb38b", as torchvision and OpenMMLab write it.

    Empty where there is none; a date such as 20200130 is none.
    """
    ending = _HASH.search(name)
    return "" if not ending or _DATE.match(ending[1]) else ending[1]


def cache_path(url: str) -> Path:
    """Where the file of ``url`` is kept: under its own name where a hash makes that unique, as torch.hub does.

    Many files have names such as model_final.pkl, so each such URL has a folder of its own.

    Raises:
        RequestError: the URL names no file.
    """
    import torch

    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name.strip(".") or "\\" in name or "\0" in name or len(name.encode()) > 200:
        raise RequestError(f"{_shown(url)} names no file: give the URL of a checkpoint itself")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not promised_hash(name):
        folder /= f"retinanet-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    return folder / name


def cached_file(url: str, watch: Watch | None = None) -> Path:
    """The file of ``url`` in the cache, downloaded where it is missing; always whole and of the hash in its name.

    Args:
        watch: shows the progress of a download. Without it there is a bar in a terminal.

    Raises:
        RequestError: there is no such file, or it is no checkpoint.
        WorkError: it cannot be downloaded now.
    """
    path = cache_path(url)
    if path.is_file():
        return path
    promised, digest = promised_hash(path.name), hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"cannot write into {path.parent}: {what_is_wrong(error)}") from error
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            for chunk in _chunks(url, watch):
                file.write(chunk)
                digest.update(chunk)
        if not digest.hexdigest().startswith(promised):
            raise WorkError(
                f"{_shown(url)} is not the file that its name promises: its SHA-256 begins with "
                f"{digest.hexdigest()[: len(promised)]}, not {promised}; nothing was kept, try again later"
            )
    return path


def reachable(url: str, wait: float = CONNECT_WAIT) -> bool:
    """Whether the server of ``url``, or the proxy that leads to it, accepts a connection within ``wait`` seconds."""
    host, port = _server(url)
    if not host:
        return False
    connected = threading.Event()

    def connect() -> None:
        with suppress(OSError, UnicodeError), socket.create_connection((host, port), wait):
            connected.set()

    # In a thread of its own, because a lookup of a name has no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(wait)
    return connected.is_set()


def _server(url: str) -> tuple[str, int]:
    """Host and port to connect to for ``url``; an empty host if there is none."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and host not in ("localhost", "127.0.0.1", "::1") and not proxy_bypass(host):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # no number
        return "", 0


def _chunks(url: str, watch: Watch | None) -> Iterator[bytes]:
    """The bytes of ``url`` with progress on a terminal; errors are ours, to tell them from errors of the disk."""
    shown = _shown(url)
    try:
        opener = build_opener(_StaySecure)
        with opener.open(Request(url, headers={"User-Agent": "retinanet"}), timeout=WAIT) as response:
            if response.headers.get_content_type() == "text/html":
                raise RequestError(f"{shown} is a web page, not a checkpoint: give the URL of the file itself")
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            done = 0
            columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
            hidden = watch is not None or not sys.stderr.isatty()
            with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress:
                bar = progress.add_task(PurePosixPath(urlsplit(url).path).name, total=total)
                while chunk := response.read(CHUNK):
                    done += len(chunk)
                    progress.update(bar, completed=done)
                    if watch is not None:
                        watch(done, total)
                    yield chunk
            if total is not None and done != total:
                raise WorkError(f"{shown} broke off after {done} of {total} bytes: try again")
    except HTTPError as error:
        failed = f"{shown} cannot be downloaded: the server returns {error.code} {error.reason}".strip()
        if error.code in (404, 410):
            raise RequestError(f"{failed}; check the URL") from error
        if error.code in (401, 403):
            raise RequestError(f"{failed}; download it with your account and give the file") from error
        raise WorkError(f"{failed}; try again later") from error
    except (OSError, HTTPException) as error:
        reason = first_line(getattr(error, "reason", None) or error)
        raise WorkError(f"{shown} cannot be downloaded ({reason}): connect to a network, or give a file") from error
    except (RequestError, WorkError):
        raise
    except ValueError as error:  # a URL that urllib cannot use
        raise RequestError(f"{shown} is not a URL that can be downloaded: {first_line(error)}") from error


def _shown(url: str) -> str:
    """A URL without its query, which may hold a signature or a token."""
    return url.partition("?")[0].partition("#")[0]


class _StaySecure(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not secure(newurl):
            raise RequestError(f"{_shown(req.full_url)} leads to {_shown(newurl)}, which can be changed on the way")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
