"""The claims about speed, compared with torchvision's RetinaNet with the same weights.

    python benchmarks/speed.py                      # all claims
    python benchmarks/speed.py inference matching   # a selection
    python benchmarks/speed.py --busy               # again while another program keeps each core busy
    python benchmarks/speed.py --json speed.json    # keep the numbers

Each claim is measured in a new process, in which both sides take turns. The machine should be idle. The output is the
tables of docs/performance.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alone
from retinanet.bench import torchvision_bench
from retinanet.common.precision import choose

AUTO = choose("auto", "cpu")
IMAGE = next(iter(sorted(Path("../shared/data/tiny_coco/val2017").glob("*.jpg"))), None)
CLAIMS: dict[str, list[Callable[[], torchvision_bench.Work]]] = {
    "inference": [
        lambda: torchvision_bench.inference(IMAGE),
        lambda: torchvision_bench.inference(IMAGE, precision="fp32"),
    ],
    "post-processing": [torchvision_bench.post_processing, lambda: torchvision_bench.post_processing(batch=8)],
    "loss": [torchvision_bench.focal_loss],
    "matching": [lambda: torchvision_bench.box_matching(boxes=20), lambda: torchvision_bench.box_matching(boxes=200)],
    "training": [lambda: torchvision_bench.training_step(precision=AUTO)],
}
if AUTO == "bf16":  # on other CPUs it would be emulated
    CLAIMS["inference"].append(lambda: torchvision_bench.inference(IMAGE, fair=True))
    CLAIMS["training"].append(lambda: torchvision_bench.training_step(precision="bf16", theirs_precision="bf16"))

# This program ends with its parent, however that ends.
SPIN = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [int(sys.argv[1])])
while os.getppid() == int(sys.argv[2]):
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def busy_cores() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A block during which another process keeps each core busy that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if has_affinity else range(os.cpu_count() or 1)
    spins: list[subprocess.Popen[bytes]] = []
    try:
        for core in cores:
            command = [sys.executable, "-S", "-E", "-c", SPIN, str(core), str(os.getpid())]
            spins.append(subprocess.Popen(command, start_new_session=True))  # Ctrl-C is for this process
        yield spins
    finally:
        for spin in spins:
            spin.kill()
            spin.wait()


def measure(claim: str, index: str, busy: str, rounds: int) -> list[dict[str, Any]]:
    """The row of a claim, and with ``busy`` also the row of the same work on busy cores."""
    work = CLAIMS[claim][int(index)]()
    rows = [work.compare(rounds).row() | {"busy": False}]
    if busy:
        with busy_cores():
            rows.append(work.compare(rounds).row() | {"busy": True})
    return rows


def line(row: dict[str, Any]) -> str:
    times = " | ".join(duration(row[side]) for side in ("ours_seconds", "torchvision_seconds"))
    return f"| {row['name']} | {times} | {row['ratio']:.1f} | {row['ratio_low']:.1f} to {row['ratio_high']:.1f} |"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def main() -> None:
    flags = {"--busy": "measure again with a busy process on each core"}
    options = alone.options(__doc__, "claims", CLAIMS, 7, measure, flags)
    head = "| {} | ours | torchvision | ratio | range |\n|---|---|---|---|---|"
    print(head.format("quiet"))
    rows: list[dict[str, Any]] = []
    for claim in options.claims or CLAIMS:
        for index in range(len(CLAIMS[claim])):
            measured = alone.alone(claim, str(index), "busy" * options.busy, rounds=options.rounds)
            if measured is None:
                raise SystemExit(f"{claim}: not enough memory")
            rows += measured
            print(line(measured[0]), flush=True)
    if options.busy:
        print("", head.format("busy"), *(line(row) for row in rows if row["busy"]), sep="\n")
    alone.record(options.json, rows)


if __name__ == "__main__":
    main()
