"""To whom the server is open: Host, Origin, token; and what ends by itself: headers, bodies, connections, answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import helpers.serve_extra  # noqa: F401
from helpers.serving import NAMES, Gated, Running, encoded, form, running, small_detector, until
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


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=15)


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
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
        reply = server.ask(method, path, encoded(), "text/plain", Origin=origin)
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
    said = server.raw(head + own * 2 + b"Content-Length: 0\r\n\r\n", end=False)
    assert b" 403 " in said.split(b"\r\n")[0]


def test_origins_behind_a_proxy() -> None:
    """Its name is a good origin where it was allowed by name, whatever Host it hands on; "*" allows no origin."""
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
    said = locked.get("/health")
    assert (said.status, said.json) == (200, {"status": "ready"})
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
    said = locked.raw(
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + double + b"\r\n", end=False
    )
    assert b" 401 " in said.split(b"\r\n")[0]


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
    """One clear line, before a model is opened; never the secret."""
    before = os.umask(0o077)
    try:
        make(tmp_path / "token")
    finally:
        os.umask(before)
    with pytest.raises(RequestError, match=words):
        read_token(tmp_path / "token")
    (tmp_path / "m.safetensors").touch()
    assert main(["serve", str(tmp_path / "m.safetensors"), "--token-file", str(tmp_path / "token"), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert SECRET not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_token_or_a_word(tmp_path: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.safetensors").touch()
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o600)
    model = str(tmp_path / "m.safetensors")
    assert main(["serve", model, "--host", host, "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "--token-file" in said
    assert "--no-token" in said
    for arguments in (["--no-token"], ["--token-file", str(tmp_path / "token")]):
        main(["serve", model, "--host", host, "--port", "0", *arguments])  # as far as the file, which is no model
        assert "--token-file" not in capsys.readouterr().err
    assert main(["serve", model, "--no-token", "--token-file", str(tmp_path / "token")]) == 2
    assert "contradict" in capsys.readouterr().err
    for name in ("http://a.example", "a.example:80", "a/b", ""):
        assert main(["serve", model, "--allow-host", name]) == 2
        assert "--allow-host" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- every answer


def test_every_answer_is_guarded(server: Running) -> None:
    """Errors of our own, of the framework and of the protocol as well."""

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
        with connect(server) as connection:
            connection.sendall(request)
            head, _, body = everything(connection).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert " 400 " in first
        check(400, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)})
        assert set(json.loads(body)) == {"error"}


def test_nothing_of_a_request_is_obeyed(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Names and other text of clients come back printable: an answer may be printed, and a log be looked at."""
    from urllib.parse import quote

    files = [(ESCAPES, encoded()), (ESCAPES, b"no image"), ("\x1b]0;title\x07", encoded())]
    body, kind = form(*[(name.replace("\r", "%0D").replace("\n", "%0A"), data) for name, data in files])
    answers = [server.ask("POST", "/predict", body, kind)]
    raw = form((ESCAPES.replace("\r\n", ""), b"no image"))
    answers.append(server.ask("POST", "/predict", *raw))
    answers.append(server.predict(encoded(), f"?{quote(ESCAPES)}=1"))
    answers.append(server.predict(encoded(), f"?threshold={quote(ESCAPES)}"))
    answers.append(server.ask("POST", "/predict", encoded(), "text/\x9b31m\x85html"))
    answers.append(server.ask("POST", "/predict", body, "multipart/form-data; boundary=\x9b\x85"))
    answers.append(server.get("/health", Host="\x9b31m"))
    answers.append(server.ask("GET", f"/{quote(ESCAPES)}"))
    part = f'--xyz\r\nContent-Disposition: form-data; name="{ESCAPES[:5]}\x9b"\r\n\r\n1\r\n--xyz--\r\n'
    answers.append(server.ask("POST", "/predict", part.encode(), kind))
    assert [a.status for a in answers] == [200, 415, 422, 422, 415, 400, 400, 404, answers[-1].status]
    assert answers[-1].status in (400, 422)
    for reply in answers:
        assert reply.body.decode().isprintable(), reply.body
        assert all(text.isprintable() for text in texts(reply.json))
        assert reply.headers["content-type"] == "application/json"
    # In the log: the path of a request at which the server fails.
    with running(small_detector()) as failing:
        failing.app.add_route(f"/{ESCAPES}", lambda request: 1 / 0)
        assert failing.ask("GET", f"/{quote(ESCAPES)}").status == 500
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
    """Send a piece over and over until the server has had enough; what it says."""
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
    raise AssertionError("it never ended")


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
    with connect(quick) as connection:
        connection.sendall(start)
        said = drip(connection, piece)
    assert (int(said.split()[1]) if said else 0) == status
    assert quick.get("/health").status == 200
    until(lambda: quick.service.memory.used == 0)


def test_an_answer_that_is_not_read(quick: Running) -> None:
    """A client that stops reading keeps neither memory nor a task: what it asked for later is not answered."""
    with connect(quick) as connection:
        connection.sendall(b"GET /script.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)  # 30 MB of answers
        time.sleep(4)
        assert everything(connection).count(b"HTTP/1.1 200 OK") < 2000
    assert quick.get("/health").status == 200


def test_pipelined_requests(server: Running) -> None:
    """Each is answered, in turn."""
    data = encoded()
    one = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(one * 5 + last)
        said = everything(connection)
    assert said.count(b"HTTP/1.1 200 OK") == 5
    assert b"HTTP/1.1 404 " in said


@pytest.mark.parametrize("head", [b"POST /predict HTTP/1.0\r\n", b"POST /predict HTTP/1.1\r\nConnection: close\r\n"])
def test_a_refusal_arrives_although_the_body_was_not_read(server: Running, head: bytes) -> None:
    """As urllib sends it: a connection that was closed on unread data would be reset, and the answer be lost."""
    with connect(server) as connection:
        connection.sendall(head + b"Host: localhost\r\nContent-Length: 20000000\r\n\r\n")
        connection.sendall(bytes(20_000_000))
        assert b" 413 " in everything(connection).split(b"\r\n")[0]


def test_connections_that_are_left_open_make_room(quick: Running) -> None:
    """A thousand that say nothing, or half of something: the next client is served."""
    left = []
    for n in range(1000):
        connection = connect(quick)
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
        replies: list[int] = []
        asking = [threading.Thread(target=lambda: replies.append(server.predict(encoded()).status)) for _ in range(3)]
        for each in asking:
            each.start()
        assert detector.begun.acquire(timeout=10)
        until(lambda: server.service.batcher.waiting + sum(detector.batches) == 3)
        assert server.get("/health").status == 503
        detector.gate.set()
        for each in asking:
            each.join(30)
        assert replies == [200] * 3
        assert server.get("/health").status == 200


def test_garbage_behind_a_request(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """While it is worked on, and after its answer: no traceback, and no two answers in one."""
    data = encoded()
    for body in (
        b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\x00\x01garbage\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ):
        with connect(server) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + body)
            said = everything(connection)
        assert said.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    with connect(server) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b" 404 " in connection.recv(65536)
        connection.sendall(b"zz\r\n" * 100)
        everything(connection)
    assert server.get("/health").status == 200
    assert caplog.text == ""


# ---------------------------------------------------------------------------------------------------- the command

STARTER = """
import sys, time
from retinanet.serve import service
plain = service.decode
def slow(*arguments):  # as long as an image may take that was built for it
    print("begun", flush=True)
    time.sleep(60)
    return plain(*arguments)
service.decode = slow
from retinanet.cli import main
sys.exit(main(["serve", sys.argv[1], "--port", "0"]))
"""


def test_a_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    """Even where an image is being decoded that takes a minute, and a client has stopped reading."""
    small_detector().save(tmp_path / "mine.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "mine.safetensors")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1].split()[0])
        data = encoded()
        with connect(Running(port, None)) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            )
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
            assert time.monotonic() - begin < 20  # the minute is not waited for
        assert process.returncode == 130, err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait()
