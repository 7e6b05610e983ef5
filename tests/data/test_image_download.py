"""Images from URLs: what is read, and what servers may do without harm."""

import io
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from retinanet.data import image_download
from retinanet.data.image_download import download, is_url, shown_url
from retinanet.data.image_io import ImageError


def png(size=(9, 6)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/silent":
            self.server.released.wait(20)
        elif path == "/drip":
            self.answer(200, length=10**6)
            while not self.server.released.wait(0.01):
                self.wfile.write(b"x")
        elif path.startswith("/to/"):
            self.answer(302, Location=path.removeprefix("/to/"))
        elif path == "/cut":
            self.answer(200, length=len(png()) + 5)
            self.wfile.write(png())
        elif path == "/endless":
            self.answer(200)
            while not self.server.released.is_set():
                self.wfile.write(bytes(1 << 16))
        elif path == "/claims":
            self.answer(200, length=1 << 40)
        elif path == "/page":
            self.answer(200, **{"Content-Type": "text/html"})
        elif path == "/image.png":
            self.answer(200, length=len(png()))
            self.wfile.write(png())
        else:
            self.answer(404)

    def answer(self, status, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items() if length is None else [*headers.items(), ("Content-Length", str(length))]:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass

    def handle(self):
        with suppress(ConnectionError, TimeoutError):  # the client has read enough
            super().handle()


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads, made.released = True, threading.Event()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize(
    ("source", "expected"),
    [("http://a/b.jpg", True), ("HTTPS://a/b", True), ("file:///etc/passwd", False), ("a.jpg", False), (None, False)],
)
def test_is_url(source, expected):
    assert is_url(source) is expected


def test_secrets_are_not_shown():
    assert shown_url("https://me:pass@host/a.jpg?token=1#x") == "https://host/a.jpg"


def test_content(server):
    assert download(f"{server}/image.png?size=9") == png()
    assert download(f"{server}/to//image.png") == png()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/no.png", "the server returns 404 Not Found"),
        ("/page", "it is a web page"),
        ("/cut", "the download broke off after"),
        ("/to/file:///etc/passwd", "the server returns 302"),
        ("/to/ftp://127.0.0.1/a.png", "it cannot be downloaded (unknown url type: ftp)"),
        ("/to//to//to//to//to//to//to//to//to//to//to//to//image.png", "the server returns 302"),
    ],
)
def test_what_is_no_image(server, path, reason):
    with pytest.raises(ImageError) as caught:
        download(server + path)
    assert "\n" not in str(caught.value)
    assert caught.value.reason.startswith(reason)
    assert str(caught.value).startswith(f"cannot read the image {server}/")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://host:port/a.png", "http://a b/c.png", "http://\n/"])
def test_urls_that_cannot_be_used(url):
    with pytest.raises(ImageError):
        download(url)


@pytest.mark.parametrize("path", ["/endless", "/claims"])
def test_size_is_limited(server, monkeypatch, path):
    monkeypatch.setattr(image_download, "MOST", 1 << 18)
    with pytest.raises(ImageError, match=re.escape("it is larger than 262.1 kB")):
        download(server + path)


def test_waiting_is_limited(server, monkeypatch):
    monkeypatch.setattr(image_download, "WAIT", 0.2)
    monkeypatch.setattr(image_download, "LONGEST", 0.2)
    begin = time.monotonic()
    with pytest.raises(ImageError, match="timed out"):
        download(f"{server}/silent")
    with pytest.raises(ImageError, match="took more than"):
        download(f"{server}/drip")
    assert time.monotonic() - begin < 10


def test_no_server():
    with pytest.raises(ImageError, match="it cannot be downloaded"):
        download("http://127.0.0.1:9/a.png")
