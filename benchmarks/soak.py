"""Mixed load against ``retinanet serve``: every request is answered or refused, and memory stays flat.

python benchmarks/soak.py --minutes 1
python benchmarks/soak.py --minutes 30 --clients 8 --json soak.json

Another process serves a small network with random weights over the loopback. Clients send one request after the other,
each of a random kind:

valid            one to four images, as a form or as the body
malformed        bytes that are no image, a damaged image or form, no HTTP at all, a wrong parameter or Host
cancelled        the connection is closed or reset at a random moment, from the headers to the answer
slow             a body in small chunks with pauses, which arrives in time
endless          a body or headers that never end: the server has to end the connection
too large        more bytes, pixels or images than are allowed

The exit code is 1 if a request got no answer or a wrong status, if the server is not healthy at the end, or if its
memory grew by more than --growth megabytes after the warm-up.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

LIMITS = ("--max-megabytes", "1", "--max-megapixels", "2", "--max-images", "4", "--timeout", "5", "--queue", "16")
MODEL = """
import sys
import torch
from retinanet.config import recipes
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
model = {
    "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
    "pyramid": {"channels": 16}, "head": {"depth": 1, "width": 16}, "preprocessing": {"size": 64, "longer": 128},
}
torch.manual_seed(0)
Detector(RetinaNet(recipes.load(None, {"model": model}).model, 3), ["a", "b", "c"]).save(sys.argv[1])
"""
SERVE = "import sys; from retinanet.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"
WEIGHTS = {"valid": 50, "malformed": 15, "cancelled": 20, "slow": 6, "endless": 3, "too large": 6}
BUSY = {503, 504}  # the server may be too busy for any request
ALLOWED = {
    "valid": {200} | BUSY,
    "malformed": {400, 413, 415, 422} | BUSY,
    "slow": {200} | BUSY,
    "endless": {408, 413} | BUSY,
    "too large": {413} | BUSY,
}
LONGEST = 30.0  # seconds that a client waits for an answer; the server must answer much earlier


def image(width: int, height: int, seed: int, kind: str = "JPEG") -> bytes:
    import numpy as np
    from PIL import Image

    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((width, height)).save(file, kind)
    return file.getvalue()


def huge() -> bytes:
    """A PNG whose header declares 60 000 x 60 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def form(*files: bytes) -> tuple[bytes, str]:
    fields = b"".join(
        b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="%d.jpg"\r\n\r\n%s\r\n' % (n, file)
        for n, file in enumerate(files)
    )
    return fields + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def post(body: bytes, kind: str = "image/jpeg", query: str = "", host: str = "localhost", length: int = -1) -> bytes:
    """A whole request."""
    length = len(body) if length < 0 else length
    return (
        f"POST /predict{query} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode() + body


class Load:
    """The requests of all clients, and their outcomes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()
        self.images = [image(w, h, seed) for seed, (w, h) in enumerate([(96, 64), (320, 240), (640, 480), (1200, 900)])]
        self.images += [image(200, 150, 9, "PNG"), image(64, 48, 8, "WEBP")]
        self.huge = huge()

    def client(self, seed: int, end: float) -> None:
        dice = random.Random(seed)
        while time.monotonic() < end:
            (kind,) = dice.choices([*WEIGHTS], [*WEIGHTS.values()])
            try:
                outcome = getattr(self, kind.replace(" ", "_"))(dice)
            except OSError as error:
                outcome = type(error).__name__
            with self.lock:
                self.counts[kind, str(outcome)] += 1
                if kind != "cancelled" and outcome not in ALLOWED[kind]:
                    self.wrong.append(f"{kind}: {outcome}")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONGEST)

    def status(self, request: bytes) -> int:
        with self.connect() as connection:
            connection.sendall(request)
            return answer(connection)

    def valid(self, dice: random.Random) -> int:
        query = dice.choice(["", "?threshold=0.5", "?threshold=0.01&max_detections=3"])
        if dice.random() < 0.5:
            return self.status(post(dice.choice(self.images), query=query))
        return self.status(post(*form(*dice.choices(self.images, k=dice.randint(1, 4))), query=query))

    def malformed(self, dice: random.Random) -> int:
        data = bytearray(dice.choice(self.images))
        body, kind = form(bytes(data))
        cut = bytes(data[: dice.randrange(20, len(data) // 2)])
        return self.status(
            dice.choice(
                [
                    post(dice.randbytes(2000)),
                    post(cut),
                    post(b""),
                    post(body[: dice.randrange(len(body))], kind),
                    post(body, "multipart/form-data"),
                    post(bytes(data), "text/html"),
                    post(bytes(data), query="?treshold=0.5"),
                    post(bytes(data), query="?threshold=nan"),
                    post(bytes(data), host="evil.example"),
                    b"\x00\xff" + dice.randbytes(200) + b"\r\n\r\n",
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 400_000 + b"\r\n\r\n",
                    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                ]
            )
        )

    def cancelled(self, dice: random.Random) -> str:
        request = post(*form(*dice.choices(self.images, k=dice.randint(1, 4))))
        whole = dice.random() < 0.7
        with self.connect() as connection:
            connection.sendall(request if whole else request[: dice.randrange(len(request))])
            time.sleep(dice.choice([0, 0.001, 0.005, 0.02, 0.1, 0.3]) * dice.random())
            if dice.random() < 0.5:  # reset instead of closed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "in the queue or later" if whole else "in the body or before"

    def slow(self, dice: random.Random) -> int:
        request = post(dice.choice(self.images[:3]))
        chunks, pause = dice.randint(5, 20), dice.uniform(0.01, 0.1)
        step = len(request) // chunks + 1
        with self.connect() as connection:
            for start in range(0, len(request), step):
                connection.sendall(request[start : start + step])
                time.sleep(pause)
            return answer(connection)

    def endless(self, dice: random.Random) -> int:
        start, chunk = dice.choice(
            [
                (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
                (post(b"", length=900_000), b"x"),
                (b"POST /predict HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n"),
            ]
        )
        with self.connect() as connection:
            connection.sendall(start)
            connection.settimeout(0.2)
            end = time.monotonic() + LONGEST
            while time.monotonic() < end:
                try:
                    return answer(connection)
                except TimeoutError:
                    connection.sendall(chunk)
            raise TimeoutError

    def too_large(self, dice: random.Random) -> int:
        return self.status(
            dice.choice(
                [
                    post(bytes(1_100_000)),
                    post(self.huge, "image/png"),
                    post(*form(*self.images[:1] * 5)),
                    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + (b"%x\r\n%s\r\n" % (100_000, bytes(100_000))) * 12,
                ]
            )
        )


def answer(connection: socket.socket) -> int:
    """Read a whole answer and return its status."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError("no answer")
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    while length and len(body) < int(length[1]):
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError("half an answer")
        body += chunk
    return int(head.split()[1])


def memory(process: int) -> float:
    """Resident megabytes."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1000


def get(port: int, path: str) -> tuple[int, str]:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=LONGEST)
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def run(load: Load, process: int, clients: int, minutes: float) -> dict[str, list[float]]:
    """Send requests for some minutes; returns the server's memory over time, in seconds and megabytes."""
    begin = time.monotonic()
    end = begin + 60 * minutes
    threads = [threading.Thread(target=load.client, args=(seed, end)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    course: dict[str, list[float]] = {"seconds": [0.0], "megabytes": [memory(process)]}
    reported = begin
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1.0, minutes * 6))
        now = time.monotonic()
        course["seconds"].append(now - begin)
        course["megabytes"].append(memory(process))
        if now - reported > 60:
            reported = now
            print(f"{(now - begin) / 60:.0f} min: {load.counts.total()} requests, {memory(process):.0f} MB", flush=True)
    return course


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--growth", type=float, default=50.0, help="megabytes that the warm server may grow by")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not 0 < options.minutes <= 24 * 60 or not 1 <= options.clients <= 64:
        parser.error("--minutes must be above 0 and at most a day, --clients from 1 to 64")
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model.safetensors"
        subprocess.run([sys.executable, "-c", MODEL, model], check=True)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, model, "--port", "0", *LIMITS], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            match = re.search(r"http://127.0.0.1:(\d+)", server.stdout.readline())
            assert match, "the server did not start"
            load = Load(int(match[1]))
            fresh = memory(server.pid)
            course = run(load, server.pid, options.clients, options.minutes)
            time.sleep(2)
            health, _ = get(load.port, "/health")
            valid = load.status(post(load.images[0]))
            _, metrics = get(load.port, "/metrics")
            left = {name: float(re.findall(rf"^retinanet_{name} (\S+)$", metrics, re.M)[0]) for name in LEFT}
            last = memory(server.pid)
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
        finally:
            server.kill()
            server.wait()
    warm_at = next(n for n, s in enumerate(course["seconds"]) if s >= min(120, options.minutes * 60 / 4))
    warm = course["megabytes"][warm_at]
    for kind in WEIGHTS:
        rows = {outcome: n for (k, outcome), n in sorted(load.counts.items()) if k == kind}
        print(f"{kind:10} {sum(rows.values()):7}  " + ", ".join(f"{outcome}: {n}" for outcome, n in rows.items()))
    print(f"requests: {load.counts.total()} in {options.minutes:g} minutes, {options.clients} clients")
    print(
        f"memory: {fresh:.0f} MB fresh, {warm:.0f} MB warm (after {course['seconds'][warm_at]:.0f} s), "
        f"{max(course['megabytes']):.0f} MB at most, {last:.0f} MB at the end"
    )
    print(f"at the end: /health {health}, a valid request {valid}, {left}, exit code {code}")
    wrong = Counter(load.wrong)
    for what, count in wrong.items():
        print(f"wrong outcome: {what} ({count} times)")
    if options.json:
        counts: dict[str, dict[str, int]] = {kind: {} for kind in WEIGHTS}
        for (kind, outcome), n in load.counts.items():
            counts[kind][outcome] = n
        memory_of = {"fresh": fresh, "warm": warm, "most": max(course["megabytes"]), "end": last}
        about = {"minutes": options.minutes, "clients": options.clients, "counts": counts, "memory_mb": memory_of}
        options.json.write_text(json.dumps(about | {"health": health, "left": left, "exit": code}, indent=2) + "\n")
    healthy = (health, valid, code) == (200, 200, 0) and not any(left.values())
    return 0 if healthy and not wrong and last - warm <= options.growth else 1


LEFT = ("queue_images", "memory_bytes")

if __name__ == "__main__":
    raise SystemExit(main())
