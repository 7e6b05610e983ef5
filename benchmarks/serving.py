"""The effect of batching on a server: images per second and the time of a request, with batches and without.

python benchmarks/serving.py
python benchmarks/serving.py --clients 16 --seconds 10 --size 320 --json serving.json

One process serves a ResNet-18 with random weights over the loopback. In another process --clients clients send one
JPEG after the other. The servers take turns several times, so that other work on the machine affects both.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

MODEL = """
import sys
import torch
from retinanet.config import recipes
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
size, path = int(sys.argv[1]), sys.argv[2]
changes = {"model": {"backbone": {"name": "resnet18"}, "preprocessing": {"size": size, "longer": 2 * size}}}
torch.manual_seed(0)
Detector(RetinaNet(recipes.load(None, changes).model, 80), [f"class {n}" for n in range(80)]).save(path)
"""


def image(side: int) -> bytes:
    import numpy as np
    from PIL import Image

    blocks = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((side * 4 // 3, side)).save(file, "JPEG", quality=90)
    return file.getvalue()


def send_requests(port: int, clients: int, seconds: float, data: bytes) -> tuple[list[float], float, int]:
    """Seconds of each answered request, seconds in all, and the number of refused requests."""
    taken: list[float] = []
    refused = 0
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def client() -> None:
        nonlocal refused
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        while time.perf_counter() < end:
            begin = time.perf_counter()
            connection.request("POST", "/predict?threshold=0.3", data, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            with lock:
                if answer.status == 200:
                    taken.append(time.perf_counter() - begin)
                else:
                    refused += 1
        connection.close()

    begin = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, time.perf_counter() - begin, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="pixels of the shorter side that the network sees")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = image(480)
    ways = {"batches of one": 1, f"batches up to {options.batch_size}": options.batch_size}
    results: dict[str, dict[str, list[float]]] = {way: {"times": [], "rates": [], "refused": []} for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model.safetensors"
        subprocess.run([sys.executable, "-c", MODEL, str(options.size), model], check=True)
        servers, ports = [], []
        try:
            for batch_size in ways.values():
                command = [sys.executable, "-m", "retinanet", "serve", model, "--port", "0"]
                process = subprocess.Popen(
                    [*command, "--batch-size", str(batch_size)], stdout=subprocess.PIPE, text=True
                )
                servers.append(process)
                assert process.stdout is not None
                match = re.search(r"http://127.0.0.1:(\d+)", process.stdout.readline())
                assert match, "the server did not start"
                ports.append(int(match[1]))
                send_requests(ports[-1], options.clients, 1, data)
            for turn in range(options.turns):
                for way, port in zip(ways, ports, strict=True):
                    print(f"turn {turn + 1} of {options.turns}: {way}", file=sys.stderr)
                    taken, seconds, refused = send_requests(port, options.clients, options.seconds, data)
                    results[way]["times"] += taken
                    results[way]["rates"].append(len(taken) / seconds)
                    results[way]["refused"].append(refused)
        finally:
            for process in servers:
                process.terminate()
            for process in servers:
                process.wait()
    rows = {}
    print(f"ResNet-18, {options.size} pixels, {options.clients} clients, {os.cpu_count()} cores, {options.turns} turns")
    print(f"{'':20} {'images/s':>22} {'p50':>9} {'p99':>9} {'refused':>8}")
    for way, result in results.items():
        cuts = statistics.quantiles(result["times"], n=100)
        row = {
            "images_per_second": statistics.median(result["rates"]),
            "lowest": min(result["rates"]),
            "highest": max(result["rates"]),
            "p50_ms": cuts[49] * 1000,
            "p99_ms": cuts[98] * 1000,
            "requests": len(result["times"]),
            "refused": int(sum(result["refused"])),
        }
        rows[way] = row
        rates = f"{row['images_per_second']:.1f} ({row['lowest']:.1f} to {row['highest']:.1f})"
        print(f"{way:20} {rates:>22} {row['p50_ms']:6.0f} ms {row['p99_ms']:6.0f} ms {row['refused']:>8}")
    if options.json:
        about = {"size": options.size, "clients": options.clients, "cores": os.cpu_count(), "turns": options.turns}
        options.json.write_text(json.dumps(about | {"ways": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
