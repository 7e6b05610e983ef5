"""Downloads an image from an http or https URL into memory; its content is only ever decoded as an image."""

from __future__ import annotations

import re
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from retinanet.common.errors import first_line
from retinanet.common.printable import amount, printable
from retinanet.data.image_io import ImageError

MOST = 1 << 26
"""Bytes of the largest file: 64 MiB."""
WAIT = 10.0
"""Seconds to wait for the server's next bytes."""
LONGEST = 120.0
"""Seconds of the longest download."""
CHUNK = 1 << 16
_HANDLERS = (
    ProxyHandler,
    HTTPHandler,
    HTTPSHandler,
    HTTPRedirectHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    UnknownHandler,
)
"""Those of http and https alone: a redirect cannot lead to a file of this machine or to another protocol."""


def is_url(source: Any) -> bool:
    """Whether a source is an http or https URL."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def shown_url(url: str) -> str:
    """A URL for messages and results: without its password and its query, which may hold a token."""
    return printable(re.sub(r"//[^/@]*@", "//", url.partition("?")[0].partition("#")[0]))


def download(url: str) -> bytes:
    """The content of the file at a URL.

    Raises:
        ImageError: it cannot be downloaded, is a web page, or is larger than ``MOST``; the message names the URL.
    """
    shown = shown_url(url)
    try:
        if not urlsplit(url).hostname:
            raise ImageError(shown, "it is not a valid URL: it has no host")
        opener = OpenerDirector()
        for handler in _HANDLERS:
            opener.add_handler(handler())
        with opener.open(Request(url, headers={"User-Agent": "retinanet"}), timeout=WAIT) as response:
            if response.headers.get_content_type() == "text/html":
                raise ImageError(shown, "it is a web page: give the URL of the image itself")
            return _content(response, shown)
    except HTTPError as error:
        raise ImageError(shown, f"the server returns {error.code} {_reason(error.reason)}".rstrip()) from error
    except (OSError, HTTPException) as error:
        reason = first_line(getattr(error, "reason", None) or error)
        raise ImageError(shown, f"it cannot be downloaded ({printable(reason, 200)})") from error
    except ImageError:
        raise
    except ValueError as error:  # a URL that urllib cannot use
        raise ImageError(
            shown, f"it is not a URL that can be downloaded: {printable(first_line(error), 200)}"
        ) from error


def _reason(reason: Any) -> str:
    """One line: urllib's reason for a redirect without end has three."""
    return printable(next(iter(str(reason).splitlines()), ""), 200)


def _content(response: Any, shown: str) -> bytes:
    begin, content = time.monotonic(), bytearray()
    stated = response.headers.get("Content-Length", "")
    total = int(stated) if stated.isdecimal() else None
    while total is None or total <= MOST:
        chunk = response.read1(CHUNK)
        if not chunk:
            break
        content += chunk
        if len(content) > MOST:
            break
        if time.monotonic() - begin > LONGEST:
            raise ImageError(shown, f"it took more than {LONGEST:.0f} seconds: download it, and name the file")
    if len(content) > MOST or (total or 0) > MOST:
        raise ImageError(shown, f"it is larger than {amount(MOST)}: download it, and name the file")
    if total is not None and len(content) != total:
        raise ImageError(shown, f"the download broke off after {len(content)} of {total} bytes: try again")
    return bytes(content)
