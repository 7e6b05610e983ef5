"""The secret that requests carry where a server is open to more than its own machine."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from starlette.datastructures import Headers

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError

LONGEST = 4096  # characters


class Token:
    """What ``Authorization: Bearer ...`` has to say."""

    def __init__(self, text: str) -> None:
        self._secret = text.encode("ascii")

    def given_in(self, headers: Headers) -> bool:
        """Whether a request's headers carry this token. The time it takes does not depend on where they differ."""
        values = headers.getlist("authorization")
        scheme, _, value = (values[0] if len(values) == 1 else "").partition(" ")
        same = hmac.compare_digest(value.strip().encode("latin-1"), self._secret)
        return same and scheme.lower() == "bearer"


def read_token(path: Path) -> Token:
    """The token in a file: one line of printable ASCII without spaces.

    Raises:
        RequestError: the file cannot be read, is no regular file, is readable for everybody or writable for others than
            its owner, or holds anything else than one token.
    """
    where = f"--token-file {path}"

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO is refused, not waited for

    try:
        with open(path, "rb", opener=opener) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise RequestError(f"{where}: it is not a regular file")
            if os.name == "posix" and mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise RequestError(
                    f"{where}: other users may read or change it (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
                )
            data = file.read(LONGEST + 3)  # and a byte order mark or a line's end
    except (OSError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{where}: it cannot be read: {what_is_wrong(error)}") from None
    text = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise RequestError(f"{where}: it is empty: write a secret into it, such as the output of: openssl rand -hex 32")
    if len(text) > LONGEST or any(not 0x21 <= byte <= 0x7E for byte in text):
        raise RequestError(f"{where}: it must hold one token: printable ASCII characters in one line, without spaces")
    return Token(text.decode("ascii"))
