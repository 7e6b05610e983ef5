"""Reads a request's body into files in memory, and counts the bytes while they arrive."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect, Request

from retinanet.serve.limits import Allocation, Limits, Refused

# The parser writes a warning for every malformed body; the client gets that as its error.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
IMAGE_TYPE = re.compile(r"image/[\w.+-]+|application/octet-stream")
HOW = (
    "send images as multipart/form-data (curl -F images=@a.jpg), or one image as the body "
    "(curl --data-binary @a.jpg -H 'Content-Type: application/octet-stream')"
)


@dataclass
class Upload:
    """A file as it was sent. ``name`` is for messages only: it is never a path on this machine."""

    name: str
    file: BinaryIO


async def read_uploads(request: Request, limits: Limits, allocation: Allocation) -> list[Upload]:
    """The files of a request.

    Raises:
        Refused: too large, too many, or of another kind.
        starlette.requests.ClientDisconnect: the client closed the connection.
    """
    kind = _content_type(request.headers)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "send the body without a Content-Encoding")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.bytes:
        raise _too_large(limits)
    chunks = _chunks(request, limits, allocation)
    if kind == "multipart/form-data":
        return await _read_form(request.headers, chunks, limits)
    if kind and not IMAGE_TYPE.fullmatch(kind):
        raise Refused(415, f"{kind[:60]} is not supported: {HOW}")
    file = io.BytesIO()
    async for chunk in chunks:
        file.write(chunk)
    if not file.tell():
        raise Refused(422, f"the body is empty: {HOW}")
    return [Upload("image", file)]


def _content_type(headers: Headers) -> str:
    try:
        kind, _ = parse_options_header(headers.get("content-type"))
    except Exception:  # the parser does not say which errors it raises
        raise Refused(415, f"the Content-Type cannot be read: {HOW}") from None
    return kind.decode("latin-1").strip()


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the request is larger than {limits.megabytes:g} MB")


async def _chunks(request: Request, limits: Limits, allocation: Allocation) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limits.bytes:
            raise _too_large(limits)
        allocation.take(len(chunk))
        yield chunk


async def _read_form(headers: Headers, chunks: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    form = _Form(headers, chunks, max_files=limits.images)
    try:
        files = (await form.parse()).multi_items()
    except (Refused, ClientDisconnect):
        raise
    except Exception as error:  # the parser does not say which errors it raises
        reason = " ".join(str(error.__cause__ or error).split())[:120]
        raise Refused(400, f"the multipart body cannot be read: {reason}") from None
    if not form.complete:
        raise Refused(400, "the multipart body ends before its last boundary: it was cut short")
    if not files:
        raise Refused(422, f"there is no file in the form: {HOW}")
    return [
        Upload(plain_name(file.filename or "", f"image {number}"), file.file)
        for number, (_, file) in enumerate(files, 1)
        if isinstance(file, UploadFile)  # always, which only the type checker does not know
    ]


class _Form(MultiPartParser):
    """Starlette's parser with all files in memory, where :func:`_chunks` has counted them."""

    spool_max_size = 0  # never onto the disk
    complete = False
    """Whether the last boundary was there: the parser itself drops a file that was cut short."""

    def on_part_begin(self) -> None:
        if len(self.items) == self.max_files:
            raise Refused(413, f"more than {self.max_files} images in one request")
        super().on_part_begin()

    def on_headers_finished(self) -> None:
        part = self._current_part
        kind = Headers(raw=part.item_headers).get("content-type", "").partition(";")[0].strip().lower()
        if part.content_disposition and b"filename" not in part.content_disposition and IMAGE_TYPE.fullmatch(kind):
            part.content_disposition += b'; filename=""'  # some clients name the type of a file and not the file
        super().on_headers_finished()
        if part.file is None:
            name = plain_name(part.field_name, "without a name")
            raise Refused(422, f"the form's field {name} is not a file; threshold and max_detections belong in the URL")

    def on_end(self) -> None:
        self.complete = True


def plain_name(name: str, otherwise: str) -> str:
    """A client's file name without its folder and without unprintable characters, or ``otherwise``."""
    text = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in text if c.isprintable()).strip()[:100] or otherwise
