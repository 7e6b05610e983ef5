"""The server from outside: real requests over real connections."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import helpers.serve_extra  # noqa: F401
from helpers.agreeing import assert_agree, from_reply
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
from retinanet.config.model_settings import PostprocessingSettings
from retinanet.data.image_io import read
from retinanet.serve.guard import Hosts
from retinanet.serve.limits import Allocation, Limits

LIMITS = Limits(megabytes=1, megapixels=1, images=4, seconds=20)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(small_detector({"threshold": 0.4}), name="mine", limits=LIMITS) as it:
        yield it


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header has this size, and that has hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


# ---------------------------------------------------------------------------------------------------- good requests


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "image/png", None])
def test_one_image_as_the_body(server: Running, kind: str | None, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded())
    reply = server.predict(file.read_bytes(), kind=kind)
    assert reply.status == 200
    (entry,) = reply.json["images"]
    found = server.service.detector.predict(read(file), threshold=0.4)
    assert (entry["width"], entry["height"]) == (96, 64)
    assert [d["label"] for d in entry["detections"]] == found.labels.tolist()
    assert [d["name"] for d in entry["detections"]] == found.names
    np.testing.assert_allclose([d["box"] for d in entry["detections"]], found.boxes.numpy(), atol=1e-3)
    np.testing.assert_allclose([d["score"] for d in entry["detections"]], found.scores.numpy(), atol=1e-4)
    assert len(found) > 3


@pytest.mark.kernels
def test_several_images(server: Running) -> None:
    """Entries are in the order of the files; names lose their folders."""
    files = [("a.jpg", encoded()), ("../../etc/b.png", encoded(50, 70, "PNG", 1)), ("C:\\c.webp", encoded(kind="WEBP"))]
    reply = server.send(*files, query="?threshold=0.6&max_detections=5")
    assert reply.status == 200
    entries = reply.json["images"]
    assert [e["file"] for e in entries] == ["a.jpg", "b.png", "c.webp"]
    assert [(e["width"], e["height"]) for e in entries] == [(96, 64), (50, 70), (96, 64)]
    assert all(0 < len(e["detections"]) <= 5 for e in entries)
    assert all(d["score"] > 0.6 for e in entries for d in e["detections"])
    assert reply.json["threshold"] == 0.6
    alone = server.predict(encoded(), "?threshold=0.6&max_detections=5").json["images"][0]["detections"]
    limits = PostprocessingSettings(threshold=0.6, max_detections=5)
    assert_agree(from_reply(entries[0]["detections"], NAMES), from_reply(alone, NAMES), limits)


def test_a_bad_image_among_good_ones(server: Running) -> None:
    reply = server.send(("a.jpg", encoded()), ("b.txt", b"hello"), ("c.jpg", encoded()[:-300]), ("d.png", b""))
    assert reply.status == 200
    good, *bad = reply.json["images"]
    assert good["detections"]
    assert [e["file"] for e in bad] == ["b.txt", "c.jpg", "d.png"]
    for entry, words in zip(bad, ("not an image", "cut short", "empty")):
        assert words in entry["error"]
        assert "\n" not in entry["error"]


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: encoded(1, 1, "PNG"), (1, 1)),
        (lambda: encoded(1, 500, "PNG"), (1, 500)),
        (lambda: encoded(mode="CMYK"), (96, 64)),
        (lambda: encoded(kind="PNG", mode="LA"), (96, 64)),
        (lambda: encoded(kind="GIF", mode="P"), (96, 64)),
        (lambda: encoded(kind="BMP"), (96, 64)),
        (lambda: encoded(kind="TIFF"), (96, 64)),
        (lambda: sixteen_bit(), (40, 30)),
        (lambda: animated(), (40, 30)),
        (lambda: turned(6), (64, 96)),
        (lambda: turned(3), (96, 64)),
    ],
)
def test_kinds_of_images(server: Running, make: object, size: tuple[int, int], tmp_path: Path) -> None:
    """The same detections as from the file."""
    assert callable(make)
    data = make()
    (tmp_path / "image").write_bytes(data)
    reply = server.predict(data, "?threshold=0.1")
    assert reply.status == 200, reply.json
    (entry,) = reply.json["images"]
    assert (entry["width"], entry["height"]) == size
    found = server.service.detector.predict(read(tmp_path / "image"), threshold=0.1)
    assert [d["label"] for d in entry["detections"]] == found.labels.tolist()


def sixteen_bit() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(file, "PNG")
    return file.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(exif=exif)


def test_chunked_body(server: Running) -> None:
    """Without a Content-Length, in small pieces."""
    data = encoded()
    pieces = [data[at : at + 700] for at in range(0, len(data), 700)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert b" 200 OK" in server.raw(head + body, end=False).split(b"\r\n")[0]


# ---------------------------------------------------------------------------------------------------- other paths


def test_health(server: Running) -> None:
    health = server.get("/health").json
    assert (health["status"], health["model"], health["classes"], health["threshold"]) == (
        "ready",
        "mine",
        list(NAMES),
        0.4,
    )


def test_metrics(server: Running) -> None:
    """Every line has Prometheus' format, and the counters count."""

    def value(line: str) -> float:
        text = server.get("/metrics").body.decode()
        (found,) = re.findall(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found)

    names = [f'retinanet_requests_total{{outcome="{o}"}}' for o in ("ok", "refused", "too_large")]
    names += ['retinanet_images_total{outcome="ok"}', "retinanet_batch_images_count"]
    before = [value(name) for name in names]
    assert server.predict(encoded()).status == 200
    assert server.predict(b"hello").status == 415
    assert server.predict(bytes(2_000_000)).status == 413
    assert [value(name) - b for name, b in zip(names, before)] == [1, 1, 1, 1, 1]
    assert value("retinanet_memory_bytes") == 0
    assert value("retinanet_queue_images") == 0
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    line = re.compile(r'# (HELP|TYPE) retinanet_\w+ .+|retinanet_\w+(\{\w+="[^"]*"\})? [0-9.e+-]+')
    assert all(line.fullmatch(row) for row in reply.body.decode().splitlines())
    buckets = re.findall(r"^retinanet_request_seconds_bucket.* (\S+)$", reply.body.decode(), re.MULTILINE)
    assert sorted(map(float, buckets)) == list(map(float, buckets))


@pytest.mark.parametrize("path", ["/", "/docs", "/style.css", "/script.js", "/drawing.js", "/icon.svg"])
def test_pages_load_nothing_from_outside(server: Running, path: str) -> None:
    reply = server.get(path)
    assert reply.status == 200
    outside = [a for a in re.findall(r"https?://[^\s\"'<>`]+", reply.body.decode()) if "127.0.0.1" not in a]
    assert all(a.startswith("http://www.w3.org/2000/svg") for a in outside)  # a name, not a link
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/script.mjs", "/page/index.html", "/../app.py", "/..%2fapp.py", "/docs.html"])
def test_no_other_files(server: Running, path: str) -> None:
    reply = server.get(path)
    assert reply.status == 404
    assert reply.json == {"error": "not found"}


# ---------------------------------------------------------------------------------------------------- who may use it


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:80"])
def test_good_names(server: Running, host: str) -> None:
    assert server.get("/health", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "192.168.0.9"]
)
def test_foreign_names(server: Running, host: str) -> None:
    """DNS rebinding: the name of a web page that resolves to this machine."""
    for path in ("/", "/health", "/metrics"):
        reply = server.get(path, Host=host)
        assert reply.status == 400
        assert "--allow-host" in reply.json["error"]
    assert server.predict(encoded(), Host=host).status == 400


def test_further_names() -> None:
    everywhere = Hosts("0.0.0.0", ["Detector.example"])
    assert everywhere.allows("192.168.0.9:8000")
    assert everywhere.allows("detector.example:443")
    assert not everywhere.allows("evil.example")
    assert not everywhere.allows("192.168.0.9:80:80")
    assert not everywhere.allows("")
    assert Hosts("127.0.0.1", ["*"]).allows("anything.example")
    assert Hosts("gpu.local").allows("gpu.local:8000")


def test_pages_of_other_sites_are_refused(server: Running) -> None:
    assert server.predict(encoded(), Sec_Fetch_Site="cross-site").status == 403
    assert server.predict(encoded(), Sec_Fetch_Site="same-origin").status == 200


def test_two_host_headers(server: Running) -> None:
    response = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert b" 400 " in response.split(b"\r\n")[0]


# ---------------------------------------------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?threshold=1", "less than 1"),
        ("?threshold=-0.1", "greater than or equal to 0"),
        ("?threshold=nan", "threshold"),
        ("?threshold=high", "threshold"),
        ("?max_detections=0", "max_detections"),
        ("?max_detections=1001", "max_detections"),
        ("?max_detections=2.5", "max_detections"),
        ("?treshold=0.5", "there is no such parameter"),
        ("?path=/etc/passwd", "there is no such parameter"),
    ],
)
def test_wrong_parameters(server: Running, query: str, words: str) -> None:
    reply = server.predict(encoded(), query)
    assert reply.status == 422
    assert words in reply.json["error"]


BOMBS = {
    "png": (png_header(60_000, 60_000), 413),
    "png beyond Pillow": (png_header(2_000_000_000, 2_000_000_000), 413),
    "gif": (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\0\0\0,"
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x02\x01\0\0;",
        413,
    ),
    "bmp": (b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0), 413),
    "ppm": (b"P6 50000 50000 255\n" + bytes(100), 413),
    "zeros": (bytes(1000), 415),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
    "html": (b"<html>", 415),
    "cut png": (encoded(kind="PNG")[:200], 422),
    "cut jpeg": (encoded()[:400], 422),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_wrong_files(server: Running, name: str) -> None:
    data, status = BOMBS[name]
    for reply in (server.predict(data), server.send((f"{name}.x", data))):
        assert reply.status == status, reply.json
        assert re.fullmatch(r"[^\n]+", reply.json["error"])
    assert f"{name}.x: " in reply.json["error"]
    assert server.service.memory.used == 0


def test_large_bodies(server: Running) -> None:
    assert server.predict(bytes(1_000_001)).status == 413
    # Without a Content-Length the bytes are counted: the response comes although the body never ends.
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"".join(b"%x\r\n%s\r\n" % (100_000, bytes(100_000)) for _ in range(12)))
        assert b" 413 " in connection.recv(65536)
    assert server.send(*[(f"{n}.jpg", encoded()) for n in range(5)]).status == 413


def test_other_forms(server: Running) -> None:
    body, kind = form(("a.jpg", encoded()))
    for data, sent, status, words in (
        (body, "multipart/form-data", 400, "boundary"),
        (body, "multipart/form-data; boundary=abc", 400, "multipart"),
        (body[:-20], kind, 400, "cut short"),
        (b"", kind, 400, "cut short"),
        (b"--xyz--\r\n", kind, 422, "no file"),
        (body, "application/json", 415, "curl"),
        (body, "application/x-www-form-urlencoded", 415, "octet-stream"),
        (b"", "image/jpeg", 422, "empty"),
        (b'--xyz\r\nContent-Disposition: form-data; name="threshold"\r\n\r\n0.5\r\n--xyz--\r\n', kind, 422, "URL"),
        (b"--xyz\r\n" + b"A" * 9000 + b": b\r\n\r\n\r\n--xyz--\r\n", kind, 400, "multipart"),
    ):
        reply = server.request("POST", "/predict", data, sent)
        assert (reply.status, words in reply.json["error"]) == (status, True), reply.json
    part = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: image/jpeg\r\n\r\n'
    reply = server.request("POST", "/predict", part + encoded() + b"\r\n--xyz--\r\n", kind)
    assert (reply.status, reply.json["images"][0]["file"]) == (200, "image 1")  # a file without a name
    assert server.request("POST", "/predict", encoded(), "image/jpeg", Content_Encoding="gzip").status == 415
    assert server.get("/predict").status == 405


def test_hundreds_of_malformed_requests(server: Running) -> None:
    """None makes the server fail, and nothing of them remains: files, threads, memory, slots."""

    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    random = np.random.default_rng(7)
    good = [encoded(), encoded(kind="PNG"), encoded(kind="WEBP"), encoded(kind="GIF", mode="P"), encoded(kind="TIFF")]
    statuses: dict[int, int] = {}
    for _ in range(4):  # so that all decoder threads run
        server.send(*[("a.jpg", encoded())] * 4)
    until(lambda: not server.service.batcher.waiting)
    before = state()
    for turn in range(300):
        data = bytearray(good[turn % len(good)])
        for index in random.integers(0, len(data), int(random.integers(0, 30))):
            data[index] = random.integers(0, 256)
        data = data[: int(random.integers(0, len(data) + 1))] if turn % 3 else data
        if turn % 2:
            reply = server.predict(bytes(data), kind="application/octet-stream")
        else:
            body, kind = form((f"{turn}", bytes(data)))
            at, how = int(random.integers(0, len(body))), turn // 2 % 4
            body = (body, body[:at], body[at:], body[:at] + random.bytes(9) + body[at:])[how]
            reply = server.request("POST", "/predict", body, kind)
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        assert "Traceback" not in reply.body.decode()
    assert set(statuses) <= {200, 400, 413, 415, 422}, statuses
    assert len(statuses) >= 4
    until(lambda: state()[0] <= before[0] + 2 and state()[1] <= before[1])
    assert server.service.memory.used == server.service.batcher.waiting == 0
    assert server.predict(encoded()).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nshort",
        b"GET /health HTTP/1.1\r\n\r\n",
    ],
    ids=range(8),
)
def test_malformed_http(server: Running, data: bytes) -> None:
    try:
        first = server.raw(data).split(b"\r\n")[0]
    except OSError:  # the server closed the connection while this was sending
        first = b""
    assert not first or b" 4" in first
    assert server.get("/health").status == 200


# ---------------------------------------------------------------------------------------------------- too much to do


def test_full_queue_and_deadline(capfd: pytest.CaptureFixture[str]) -> None:
    """One image is computed, two wait, the fourth gets 503. After the time limit the first three get 504."""
    detector = Gated()
    with running(detector, limits=Limits(seconds=2), batch_size=1, capacity=2, wait=0) as server:
        requests = [Background(server, 1)]
        assert detector.begun.acquire(timeout=10)
        requests.append(Background(server, 2))
        until(lambda: server.service.batcher.waiting == 2)
        for refused in (server.predict(encoded()), server.send(("a.jpg", encoded()))):
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
        assert [status for each in requests for status in each.statuses()] == [504, 504, 504]
        assert server.service.batcher.waiting == 0
        detector.gate.set()
        assert server.predict(encoded()).status == 200
        assert len(detector.batches) == 2  # the waiting images were never computed
        text = server.get("/metrics").body.decode()
        assert 'retinanet_requests_total{outcome="timeout"} 3' in text
        assert 'retinanet_requests_total{outcome="busy"} 2' in text
    assert "Traceback" not in capfd.readouterr().err


def test_memory_is_shared() -> None:
    """413 for an image that never fits, 503 for one that does not fit at the moment."""
    with running(small_detector()) as server:
        memory = server.service.memory
        with Allocation(memory) as others:
            others.take(memory.size - 30_000)
            reply = server.predict(encoded())  # 96 x 64 pixels need 43 kB while they are decoded
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert server.predict(encoded()).status == 200
        memory.size = 30_000
        assert server.predict(encoded()).status == 413
        assert memory.used == server.service.batcher.waiting == 0


def test_slow_request() -> None:
    with (
        running(small_detector(), limits=Limits(seconds=0.3)) as server,
        server.connect() as connection,
    ):
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        assert b" 408 " in connection.recv(65536)


def test_images_of_closed_connections_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    detector = Gated()
    with running(detector, batch_size=1, wait=0) as server:
        request = Background(server, 1)
        assert detector.begun.acquire(timeout=10)
        leaving = [server.connect() for _ in range(5)]
        for connection in leaving:
            connection.sendall(posted(encoded()))
        until(lambda: server.service.batcher.waiting == 5)
        for connection in leaving:
            connection.close()
        until(lambda: server.service.batcher.waiting == 0)
        detector.gate.set()
        assert request.statuses() == [200]
        assert detector.batches == [1]
        until(lambda: 'outcome="disconnected"} 5' in server.get("/metrics").body.decode())
    assert "Traceback" not in capfd.readouterr().err


def test_a_model_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets 500, the log the reason; the next request is served."""
    detector = small_detector()
    right = detector.class_names
    with running(detector) as server:
        detector.model.class_subnet, whole = None, detector.model.class_subnet
        reply = server.predict(encoded())
        assert reply.status == 500
        assert reply.json == {"error": "the server failed on this request; its log has the reason"}
        assert "POST /predict failed" in caplog.text
        detector.model.class_subnet = whole
        assert server.predict(encoded()).status == 200
        assert server.get("/health").json["classes"] == list(right)


# ---------------------------------------------------------------------------------------------------- the command


SLOW_PREDICT = """
import threading
from retinanet.inference.detector import Detector
plain = Detector.predict
calls = 0
def slow(self, *images, **options):  # as slow as a large model on an old machine
    global calls
    calls += 1
    if calls > 1:  # the first one warms up
        print("begun", flush=True)
        threading.Event().wait(0.5)
    return plain(self, *images, **options)
Detector.predict = slow
"""


@pytest.mark.slow
def test_sigterm_finishes_accepted_requests(tmp_path: Path) -> None:
    with command(tmp_path, "--batch-size", "1", code=SLOW_PREDICT) as process:
        server = server_of(process)
        until(lambda: server.get("/health").status == 200)
        requests = Background(server, 3)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        until(lambda: "retinanet_queue_images 2.0\n" in server.get("/metrics").body.decode())
        process.send_signal(signal.SIGTERM)
        assert requests.statuses() == [200, 200, 200]
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "stopping" in err
        assert "Traceback" not in err
        with pytest.raises(ConnectionError):
            server.get("/health")


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_detector().save(tmp_path / "mine.safetensors")
    model = str(tmp_path / "mine.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", model, "--port", port]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"127.0.0.1 port {port}: address already in use" in line
    assert main(["serve", model, "--queue", "4", "--max-images", "5"]) == 2
    assert re.search(r"--max-images .* 1 to 4 \(--queue\), not 5", capsys.readouterr().err)
    assert main(["serve", model, "--port", "70000"]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.slow
def test_json_has_the_url_and_ctrl_c_stops(tmp_path: Path) -> None:
    """What a program that starts the server needs to know, while the server runs."""
    file = tmp_path / "server.json"
    with command(tmp_path, "--host", "0.0.0.0", "--no-token", "--json", str(file)) as process:
        until(file.exists, 60)
        content = json.loads(file.read_text())
        assert content["classes"] == list(NAMES)
        server = Running(int(content["url"].rsplit(":", 1)[1]), None)
        until(lambda: server.get("/health").status == 200)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert re.search(r"warning: 0\.0\.0\.0 .*network", err)


def test_nothing_heavy_is_imported_for_the_help() -> None:
    code = "import sys, retinanet.cli.serve_command\n"
    code += "print([m for m in ('torch', 'fastapi', 'uvicorn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
