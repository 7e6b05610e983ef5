"""The time of a start: the help of the command line, and the import of the package.

python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 7
WAYS = {
    "python alone": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import torch, retinanet": [sys.executable, "-c", "import torch, retinanet"],
    "import torch; retinanet.load": [sys.executable, "-c", "import torch, retinanet; retinanet.load"],
    "import torch, torchvision": [sys.executable, "-c", "import torch, torchvision"],
    "retinanet --help": [str(Path(sys.executable).with_name("retinanet")), "--help"],
    "retinanet train --help": [str(Path(sys.executable).with_name("retinanet")), "train", "--help"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for done in range(ROUNDS + 1):
        for name, command in WAYS.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if done:  # the first reads the files from the disk
                times[name].append(time.perf_counter() - begin)
    for name, seconds in times.items():
        print(f"{name:30} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
