"""One file from an https address into torch.hub's cache, where torchvision and timm look for theirs too."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, getproxies

from retinanet.checkpoints.locate import secure
from retinanet.common.atomic_files import replacing, what_is_wrong
from retinanet.common.errors import RequestError, WorkError, first_line

WAIT = 10.0
"""Seconds without a byte after which a server is given up."""
KNOCK = 3.0
"""Seconds in which a server has to take a connection."""
PATIENCE = 1.5
"""Seconds after which progress is shown, on a terminal."""
CHUNK = 1 << 18
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
_DATE = re.compile(r"^(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])$")


def promised_hash(name: str) -> str:
    """The start of the SHA-256 that torchvision's and OpenMMLab's file names end in, such as "eeacb38b"; else "".

    A date, 20200130, is not taken for one.
    """
    found = _HASH.search(name)
    return "" if not found or _DATE.match(found[1]) else found[1]


def place_of(url: str) -> Path:
    """Where the file of ``url`` is kept: under its own name where a hash makes that unique, as torch.hub does.

    Other names (model_final.pkl) are those of many files: each address has a folder of its own for them.

    Raises:
        RequestError: the address names no file.
    """
    import torch

    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name.strip(".") or "\\" in name or "\0" in name or len(name.encode()) > 200:
        raise RequestError(f"{_shown(url)} names no file: give the address of a checkpoint itself")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not promised_hash(name):
        folder /= f"retinanet-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    return folder / name


def download(url: str) -> Path:
    """The file of ``url``, from the cache if it is there; never half a file, nor one that its name's hash denies.

    Raises:
        RequestError: there is no such file, or no checkpoint file.
        WorkError: it cannot be fetched now.
    """
    place = place_of(url)
    if place.is_file():
        return place
    promised, digest = promised_hash(place.name), hashlib.sha256()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"cannot write into {place.parent}: {what_is_wrong(error)}") from error
    with replacing(place) as beside:
        with open(beside, "wb") as file:
            for chunk in _chunks(url):
                file.write(chunk)
                digest.update(chunk)
        if not digest.hexdigest().startswith(promised):
            raise WorkError(
                f"{_shown(url)} is not the file that its name promises: its SHA-256 begins with "
                f"{digest.hexdigest()[: len(promised)]}, not {promised}; nothing was kept, try again later"
            )
    return place


def reachable(url: str) -> bool:
    """Whether the server of ``url`` takes connections. Without a network the answer comes at once, or in seconds.

    Behind a proxy it cannot be told: True.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    local = host in ("localhost", "127.0.0.1", "::1")
    if {"http", "https", "all"} & getproxies().keys() and not local:
        return True
    try:
        addresses = socket.getaddrinfo(
            host, parts.port or (443 if parts.scheme == "https" else 80), 0, socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):
        return False
    first = {family: (kind, protocol, address) for family, kind, protocol, _, address in reversed(addresses)}
    for family, (kind, protocol, address) in first.items():
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(KNOCK)
                connection.connect(address)
                return True
        except OSError:
            continue
    return False


def _chunks(url: str) -> Iterator[bytes]:
    """The bytes of ``url``; what goes wrong on the way is an error of ours, so that it is none of the disk's."""
    shown = _shown(url)
    try:
        opener = build_opener(_StaySecure)
        with opener.open(Request(url, headers={"User-Agent": "retinanet"}), timeout=WAIT) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise RequestError(f"{shown} is a web page, not a checkpoint: give the address of the file itself")
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            done = 0
            with _Bar(PurePosixPath(urlsplit(url).path).name, total) as bar:
                while chunk := answer.read(CHUNK):
                    done += len(chunk)
                    bar.update(done)
                    yield chunk
            if total is not None and done != total:
                raise WorkError(f"{shown} broke off after {done} of {total} bytes: try again")
    except HTTPError as error:
        said = f"{shown} cannot be downloaded: the server answers {error.code} {error.reason}".strip()
        if error.code in (404, 410):
            raise RequestError(f"{said}; check the address") from error
        if error.code in (401, 403):
            raise RequestError(f"{said}; download it with your account and give the file") from error
        raise WorkError(f"{said}; try again later") from error
    except (OSError, HTTPException) as error:
        reason = first_line(getattr(error, "reason", None) or error)
        raise WorkError(f"{shown} cannot be downloaded ({reason}): connect to a network, or give a file") from error
    except RequestError:
        raise
    except ValueError as error:  # an address that urllib cannot use
        raise RequestError(f"{shown} is not an address that can be downloaded: {first_line(error)}") from error


def _shown(url: str) -> str:
    """Without a query, which may hold a signature or a token."""
    return url.partition("?")[0].partition("#")[0]


class _StaySecure(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not secure(newurl):
            raise RequestError(f"{_shown(req.full_url)} leads to {_shown(newurl)}, which can be changed on its way")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Bar:
    """Progress on a terminal, if it takes long."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total = name, total
        self.began = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def update(self, done: int) -> None:
        if self.bar is None and sys.stderr.isatty() and time.monotonic() - self.began > PATIENCE:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

            columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.bar.add_task(self.name, total=self.total)
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
