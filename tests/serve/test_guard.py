"""Host, Origin and token; and the deadlines of headers, bodies, connections and responses."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import helpers.serve_extra  # noqa: F401
from helpers.serving import (
    NAMES,
    Background,
    Gated,
    Running,
    command,
    encoded,
    form,
    posted,
    running,
    server_of,
    small_detector,
    until,
)
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.serve import connections, guard
from retinanet.serve.app import PAGES
from retinanet.serve.guard import Hosts
from retinanet.serve.limits import Limits
from retinanet.serve.token import Token, read_token

SECRET = "0123456789abcdef-._~+/="
ESCAPES = "\x1b[31m\r\n\x07\x9b\u202e\u2028<img src=x onerror=alert(1)>.jpg"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(small_detector(), limits=Limits(megabytes=1, megapixels=1, images=4)) as it:
        yield it


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(small_detector(), name="mine", token=Token(SECRET)) as it:
        yield it


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server whose deadlines are short, and that takes six connections."""
    for name in ("HEADER_SECONDS", "DRAIN_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(connections, name, 0.5)
    monkeypatch.setattr(guard, "DRAIN_SECONDS", 0.5)
    with running(small_detector(), limits=Limits(megabytes=1, connections=6, seconds=1)) as it:
        yield it


def read_all(connection: socket.socket) -> bytes:
    """All data until the server closes the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


# ---------------------------------------------------------------------------------------------------- pages of others


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "https://127.0.0.1:PORT", "http://127.0.0.1", "http://localhost:PORT",
     "http://127.0.0.1:PORT.evil.example", "http://127.0.0.1:PORT@evil.example", "http://evil.example/127.0.0.1:PORT",
     "http://127.0.0.1:PORT, http://evil.example", "file://", "http://", "127.0.0.1:PORT", "http://[::1", "http://a:b:c"],
)  # fmt: skip
def test_pages_of_other_origins_are_refused(server: Running, origin: str) -> None:
    origin = origin.replace("PORT", str(server.port))
    for method, path in (("POST", "/predict"), ("PUT", "/predict"), ("POST", "/"), ("OPTIONS", "/predict")):
        reply = server.request(method, path, encoded(), "text/plain", Origin=origin)
        assert reply.status == (403 if not origin.startswith("https://127") else reply.status), (method, reply.json)
        assert "access-control-allow-origin" not in reply.headers


def test_its_own_page_is_let_in(server: Running) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST"):
        reply = server.predict(
            encoded(), Host=f"{host}:{server.port}", Origin=f"http://{host.lower()}:{server.port}",
            Sec_Fetch_Site="same-origin",
        )  # fmt: skip
        assert reply.status == 200
    assert server.predict(encoded()).status == 200  # no browser at all


def test_two_origins(server: Running) -> None:
    own = f"Origin: http://localhost:{server.port}\r\n".encode()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n" % server.port
    response = server.raw(head + own * 2 + b"Content-Length: 0\r\n\r\n", end=False)
    assert b" 403 " in response.split(b"\r\n")[0]


def test_origins_behind_a_proxy() -> None:
    """An allowed name is a good origin, whatever Host the proxy sends; "*" allows no origin."""
    named = Hosts("127.0.0.1", ["detector.example"])
    assert named.is_own_origin("https://detector.example", "127.0.0.1:8000")
    assert named.is_own_origin("https://detector.example", "detector.example")
    assert not named.is_own_origin("https://evil.example", "detector.example")
    anything = Hosts("127.0.0.1", ["*"])
    assert anything.is_own_origin("https://x.example", "x.example")
    assert not anything.is_own_origin("https://evil.example", "x.example")
    assert not anything.allows("")
    assert Hosts("0.0.0.0").is_own_origin("http://[fe80::1]:80", "[fe80::1]")


# ---------------------------------------------------------------------------------------------------- the token


def test_without_the_token(locked: Running) -> None:
    for path in (*PAGES, "/openapi.json"):
        reply = locked.get(path)
        assert reply.status == 200
        assert b"mine" not in reply.body
    response = locked.get("/health")
    assert (response.status, response.json) == (200, {"status": "ready"})
    for reply in (
        locked.predict(encoded()),
        locked.predict(encoded(), "?token=" + SECRET),
        locked.get("/metrics"),
        locked.get("/predict/"),
        locked.get("/nothing"),
        locked.predict(encoded(), Authorization=f"Basic {SECRET}"),
        locked.predict(encoded(), Authorization=SECRET),
        locked.predict(encoded(), Authorization="Bearer"),
        locked.predict(encoded(), Authorization=f"Bearer {SECRET[:-1]}"),
        locked.predict(encoded(), Authorization=f"Bearer {SECRET}x"),
        locked.predict(encoded(), Authorization=f"Bearer {SECRET.upper()}"),
        locked.predict(encoded(), Authorization="Bearer \xe9"),
        locked.predict(encoded(), Cookie=f"token={SECRET}"),
    ):
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert SECRET not in reply.body.decode()
    double = f"Authorization: Bearer {SECRET}\r\n".encode() * 2
    response = locked.raw(
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + double + b"\r\n", end=False
    )
    assert b" 401 " in response.split(b"\r\n")[0]


def test_with_the_token(locked: Running) -> None:
    for scheme in ("Bearer", "bearer"):
        sent = {"Authorization": f"{scheme} {SECRET}"}
        assert locked.predict(encoded(), **sent).status == 200
        assert locked.get("/metrics", **sent).status == 200
        assert locked.get("/health", **sent).json["classes"] == list(NAMES)
        assert locked.get("/nothing", **sent).status == 404
        assert locked.predict(encoded(), Origin="http://evil.example", **sent).status == 403
        assert locked.predict(encoded(), Host="evil.example", **sent).status == 400


@pytest.mark.parametrize("text", [SECRET, SECRET + "\n", f"\ufeff {SECRET}\r\n"])
def test_token_files(tmp_path: Path, text: str) -> None:
    from starlette.datastructures import Headers

    (tmp_path / "token").write_text(text, encoding="utf-8")
    for mode in (0o600, 0o400, 0o440):
        (tmp_path / "token").chmod(mode)
        assert read_token(tmp_path / "token").matches(Headers({"authorization": f"Bearer {SECRET}"}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text(""), "empty"),
        (lambda path: path.write_text(" \n\n"), "empty"),
        (lambda path: path.write_text("one\ntwo"), "one token"),
        (lambda path: path.write_text("two words"), "one token"),
        (lambda path: path.write_text("schlüssel"), "one token"),
        (lambda path: path.write_bytes(b"\x00\xff"), "one token"),
        (lambda path: path.write_bytes(b"a" * 5000), "one token"),
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: os.mkfifo(path), "regular"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "regular"),
        (lambda path: (path.write_text(SECRET), path.chmod(0o604)), "chmod 600"),
        (lambda path: (path.write_text(SECRET), path.chmod(0o660)), "chmod 600"),
        (lambda path: (path.write_text(SECRET), path.chmod(0o777)), "chmod 600"),
    ],
)
def test_bad_token_files(tmp_path: Path, make: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line before a model is opened, without the secret."""
    before = os.umask(0o077)
    try:
        make(tmp_path / "token")
    finally:
        os.umask(before)
    with pytest.raises(RequestError, match=words):
        read_token(tmp_path / "token")
    (tmp_path / "m.safetensors").touch()
    assert main(["serve", str(tmp_path / "m.safetensors"), "--token-file", str(tmp_path / "token"), "--port", "0"]) == 2
    response = capsys.readouterr().err
    assert response.count("\n") == 1
    assert words in response
    assert SECRET not in response


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_token_or_an_option(
    tmp_path: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.safetensors").touch()
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o600)
    model = str(tmp_path / "m.safetensors")
    assert main(["serve", model, "--host", host, "--port", "0"]) == 2
    response = capsys.readouterr().err
    assert "--token-file" in response
    assert "--no-token" in response
    for arguments in (["--no-token"], ["--token-file", str(tmp_path / "token")]):
        main(["serve", model, "--host", host, "--port", "0", *arguments])  # fails later, as the file is not a model
        assert "--token-file" not in capsys.readouterr().err
    assert main(["serve", model, "--no-token", "--token-file", str(tmp_path / "token")]) == 2
    assert "contradict" in capsys.readouterr().err
    for name in ("http://a.example", "a.example:80", "a/b", ""):
        assert main(["serve", model, "--allow-host", name]) == 2
        assert "--allow-host" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- every answer


def test_every_answer_is_guarded(server: Running) -> None:
    """Also errors of the application, the framework and the protocol."""

    def check(status: int, headers: dict[str, str]) -> None:
        assert headers["x-content-type-options"] == "nosniff", status
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"

    for reply, status in (
        (server.get("/"), 200),
        (server.get("/health"), 200),
        (server.get("/health", Host="evil.example"), 400),
        (server.predict(encoded(), Origin="null"), 403),
        (server.get("/nothing"), 404),
        (server.get("/predict"), 405),
        (server.get("/health/"), 307),
        (server.predict(bytes(2_000_000)), 413),
        (server.predict(b"hello"), 415),
        (server.predict(encoded(), "?a=b"), 422),
    ):
        assert reply.status == status
        check(status, reply.headers)
    for request in (b"\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X" * 300_000):
        with server.connect() as connection:
            connection.sendall(request)
            head, _, body = read_all(connection).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert " 400 " in first
        check(400, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)})
        assert set(json.loads(body)) == {"error"}


def test_nothing_of_a_request_is_obeyed(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Names and other text of clients come back printable, as responses and logs are read in terminals."""
    from urllib.parse import quote

    files = [(ESCAPES, encoded()), (ESCAPES, b"no image"), ("\x1b]0;title\x07", encoded())]
    body, kind = form(*[(name.replace("\r", "%0D").replace("\n", "%0A"), data) for name, data in files])
    answers = [server.request("POST", "/predict", body, kind)]
    raw = form((ESCAPES.replace("\r\n", ""), b"no image"))
    answers.append(server.request("POST", "/predict", *raw))
    answers.append(server.predict(encoded(), f"?{quote(ESCAPES)}=1"))
    answers.append(server.predict(encoded(), f"?threshold={quote(ESCAPES)}"))
    answers.append(server.request("POST", "/predict", encoded(), "text/\x9b31m\x85html"))
    answers.append(server.request("POST", "/predict", body, "multipart/form-data; boundary=\x9b\x85"))
    answers.append(server.get("/health", Host="\x9b31m"))
    answers.append(server.request("GET", f"/{quote(ESCAPES)}"))
    part = f'--xyz\r\nContent-Disposition: form-data; name="{ESCAPES[:5]}\x9b"\r\n\r\n1\r\n--xyz--\r\n'
    answers.append(server.request("POST", "/predict", part.encode(), kind))
    assert [a.status for a in answers] == [200, 415, 422, 422, 415, 400, 400, 404, answers[-1].status]
    assert answers[-1].status in (400, 422)
    for reply in answers:
        assert reply.body.decode().isprintable(), reply.body
        assert all(text.isprintable() for text in texts(reply.json))
        assert reply.headers["content-type"] == "application/json"
    # In the log: the path of a request at which the server fails.
    with running(small_detector()) as failing:
        failing.app.add_route(f"/{ESCAPES}", lambda request: 1 / 0)
        assert failing.request("GET", f"/{quote(ESCAPES)}").status == 500
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert "\\x1b[31m" in record.getMessage()


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts(part)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


# ---------------------------------------------------------------------------------------------------- what ends


def drip(connection: socket.socket, piece: bytes) -> bytes:
    """Send a piece again and again until the server ends it; returns its response."""
    connection.settimeout(0.05)
    end = time.monotonic() + 20
    received = b""
    while time.monotonic() < end:
        try:
            chunk = connection.recv(65536)
            received += chunk
            if not chunk:
                return received
        except TimeoutError:
            try:
                connection.sendall(piece)
            except ConnectionError:
                return received
        except ConnectionError:
            return received
    raise AssertionError("the server never ended it")


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET / HT", b"", 408),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n", 408),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n", b"x", 408),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 408),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5", b"", 408),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
         b"186a0\r\n" + bytes(100_000) + b"\r\n", 413),
        (b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n", b"x", 404),
        (b"POST /nothing HTTP/1.0\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n", b"x", 404),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n", b"x", 200),
        (b"", b"", 0),
    ],
)  # fmt: skip
def test_what_never_ends_is_ended(quick: Running, start: bytes, piece: bytes, status: int) -> None:
    with quick.connect() as connection:
        connection.sendall(start)
        response = drip(connection, piece)
    assert (int(response.split()[1]) if response else 0) == status
    assert quick.get("/health").status == 200
    until(lambda: quick.service.memory.used == 0)


@pytest.mark.slow
def test_a_response_that_is_not_read(quick: Running) -> None:
    """A client that stops reading keeps no memory and no task: its later requests get no response."""
    with quick.connect() as connection:
        connection.sendall(b"GET /script.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)  # 30 MB of responses
        time.sleep(4)
        assert read_all(connection).count(b"HTTP/1.1 200 OK") < 2000
    assert quick.get("/health").status == 200


def test_pipelined_requests(server: Running) -> None:
    """Each gets its response, in order."""
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(posted(encoded()) * 5 + last)
        response = read_all(connection)
    assert response.count(b"HTTP/1.1 200 OK") == 5
    assert b"HTTP/1.1 404 " in response


@pytest.mark.parametrize("head", [b"POST /predict HTTP/1.0\r\n", b"POST /predict HTTP/1.1\r\nConnection: close\r\n"])
def test_a_refusal_arrives_although_the_body_was_not_read(server: Running, head: bytes) -> None:
    """As urllib sends it: a connection closed with unread data is reset, and the response would be lost."""
    with server.connect() as connection:
        connection.sendall(head + b"Host: localhost\r\nContent-Length: 20000000\r\n\r\n")
        connection.sendall(bytes(20_000_000))
        assert b" 413 " in read_all(connection).split(b"\r\n")[0]


@pytest.mark.slow
def test_connections_that_are_left_open_make_room(quick: Running) -> None:
    """A thousand that send nothing, or half a request: the next client is served."""
    left = []
    for n in range(1000):
        connection = quick.connect()
        connection.sendall((b"", b"GET /", b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")[n % 3])
        left.append(connection)
        if n % 250 == 249:
            assert quick.get("/health").status == 200
            assert quick.predict(encoded()).status == 200
            left = left[-100:]
    for connection in left:
        connection.close()


def test_no_room_among_working_connections() -> None:
    detector = Gated()
    with running(detector, limits=Limits(connections=3, seconds=20)) as server:
        requests = Background(server, 3)
        assert detector.begun.acquire(timeout=10)
        until(lambda: server.service.batcher.waiting + sum(detector.batches) == 3)
        assert server.get("/health").status == 503
        detector.gate.set()
        assert requests.statuses() == [200] * 3
        assert server.get("/health").status == 200


def test_garbage_behind_a_request(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """During the request, and after its response: no traceback, and no two responses in one."""
    data = encoded()
    for body in (
        b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\x00\x01garbage\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ):
        with server.connect() as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + body)
            response = read_all(connection)
        assert response.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    with server.connect() as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b" 404 " in connection.recv(65536)
        connection.sendall(b"zz\r\n" * 100)
        read_all(connection)
    assert server.get("/health").status == 200
    assert caplog.text == ""


# ---------------------------------------------------------------------------------------------------- the command

SLOW_DECODE = """
import time
from retinanet.serve import service
plain = service.decode
def slow(*arguments):  # as slow as an image that was built to be slow
    print("begun", flush=True)
    time.sleep(60)
    return plain(*arguments)
service.decode = slow
"""


@pytest.mark.slow
def test_a_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    """Even where a decoder takes a minute, and a client has stopped reading."""
    with command(tmp_path, code=SLOW_DECODE) as process, server_of(process).connect() as connection:
        connection.sendall(posted(encoded()))
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)  # less than the minute
        assert process.returncode == 130, err
        assert "Traceback" not in err
