"""From a request's body to files in memory, counting while it arrives."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from retinanet.serve.limits import Limits, Refused, Share

QUIET = logging.getLogger("retinanet.serve.bodies")
"""For the parser, which warns of every malformed body in a line of its own."""
QUIET.setLevel(logging.CRITICAL)
RAW = re.compile(r"image/[\w.+-]+|application/octet-stream|")
HOW = (
    "send images as multipart/form-data (curl -F images=@a.jpg), or one image as the body "
    "(curl --data-binary @a.jpg -H 'Content-Type: application/octet-stream')"
)


@dataclass
class Upload:
    """A file as it came. ``name`` is for messages only: it is never a path on this machine."""

    name: str
    file: io.BytesIO = field(default_factory=io.BytesIO)


async def uploads(request: Request, limits: Limits, share: Share) -> list[Upload]:
    """The files of a request.

    Raises:
        Refused: too large, too many, or of another kind. starlette.requests.ClientDisconnect: the client has left.
    """
    kind, options = _content_type(request)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "send the body as it is, without a Content-Encoding")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.bytes:
        raise _too_large(limits)
    if kind == "multipart/form-data":
        return await _form(request, options, limits, share)
    if not RAW.fullmatch(kind):
        raise Refused(415, f"{kind[:60]} is not understood: {HOW}")
    upload = Upload("image")
    async for chunk in _chunks(request, limits, share):
        upload.file.write(chunk)
    if not upload.file.tell():
        raise Refused(422, f"the body is empty: {HOW}")
    return [upload]


def _content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    try:
        kind, options = parse_options_header(request.headers.get("content-type"))
    except Exception:  # a parser of old: it raises what it happens upon
        raise Refused(415, f"the Content-Type cannot be read: {HOW}") from None
    return kind.decode("latin-1").strip(), options


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the request is larger than {limits.megabytes:g} MB")


async def _chunks(request: Request, limits: Limits, share: Share) -> AsyncIterator[bytes]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limits.bytes:
            raise _too_large(limits)
        share.take(len(chunk))
        yield chunk


async def _form(request: Request, options: dict[bytes, bytes], limits: Limits, share: Share) -> list[Upload]:
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Refused(400, "multipart/form-data without a boundary: let the HTTP library write the Content-Type")
    form = _Form(limits.images)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.logger = QUIET
        async for chunk in _chunks(request, limits, share):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        reason = " ".join(str(error).split())[:120]
        raise Refused(400, f"the multipart body cannot be read: {reason}") from None
    if not form.ended:
        raise Refused(400, "the multipart body ends before its last boundary: it was cut short")
    if not form.files:
        raise Refused(422, f"there is no file in the form: {HOW}")
    return form.files


class _Form:
    """What the parser calls; of a part only its file is kept."""

    def __init__(self, limit: int) -> None:
        self.files: list[Upload] = []
        self.ended = False
        self._limit = limit
        self._field, self._value, self._disposition = b"", b"", b""
        self._kind = ""

    def callbacks(self) -> Any:
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        self._field, self._value, self._disposition, self._kind = b"", b"", b"", ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._field.lower()
        if name == b"content-disposition":
            self._disposition = self._value
        elif name == b"content-type":
            self._kind = self._value.decode("latin-1").split(";")[0].strip().lower()
        self._field, self._value = b"", b""

    def _headers_finished(self) -> None:
        try:
            _, options = parse_options_header(self._disposition.decode("latin-1"))
        except Exception:
            raise Refused(400, "a part of the form has a Content-Disposition that cannot be read") from None
        name = options.get(b"filename")
        if name is None and (not self._kind or not RAW.fullmatch(self._kind)):
            field = plain_name(options.get(b"name", b""), "without a name")
            raise Refused(
                422, f"the form's field {field} is no file; threshold and max_detections belong into the address"
            )
        if len(self.files) == self._limit:
            raise Refused(413, f"more than {self._limit} images in one request")
        self.files.append(Upload(plain_name(name or b"", f"image {len(self.files) + 1}")))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.files[-1].file.write(data[start:end])

    def _end(self) -> None:
        self.ended = True


def plain_name(name: bytes, otherwise: str) -> str:
    """A client's file name without its folder and without what does not belong into a line of text."""
    text = name.decode("utf-8", errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in text if c.isprintable()).strip()[:100] or otherwise
