"""The secret that requests must have where other machines can reach the server."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from starlette.datastructures import Headers

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError

MAX_LENGTH = 4096


class Token:
    """The secret of ``Authorization: Bearer SECRET``."""

    def __init__(self, text: str) -> None:
        self._secret = text.encode("ascii")

    def matches(self, headers: Headers) -> bool:
        """Whether a request's headers have this token. The time this takes does not show where two tokens differ."""
        values = headers.getlist("authorization")
        scheme, _, value = (values[0] if len(values) == 1 else "").partition(" ")
        same = hmac.compare_digest(value.strip().encode("latin-1"), self._secret)
        return same and scheme.lower() == "bearer"


def read_token(path: Path) -> Token:
    """The token in a file: one line of printable ASCII without spaces.

    Raises:
        RequestError: the file cannot be read, is not a regular file, is readable by everybody or writable by others
            than its owner, or holds anything but one token.
    """
    option = f"--token-file {path}"

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # so that opening a FIFO does not wait

    try:
        with open(path, "rb", opener=opener) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise RequestError(f"{option}: it is not a regular file")
            if os.name == "posix" and mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise RequestError(
                    f"{option}: other users may read or change it (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
                )
            data = file.read(MAX_LENGTH + 3)  # with a byte order mark or a line break
    except (OSError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{option}: it cannot be read: {what_is_wrong(error)}") from None
    text = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise RequestError(
            f"{option}: it is empty: write a secret into it, such as the output of: openssl rand -hex 32"
        )
    if len(text) > MAX_LENGTH or any(not 0x21 <= byte <= 0x7E for byte in text):
        raise RequestError(f"{option}: it must hold one token: printable ASCII characters in one line, without spaces")
    return Token(text.decode("ascii"))
