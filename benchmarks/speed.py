"""The claims about speed, one by one, beside torchvision's RetinaNet with the same weights.

    python benchmarks/speed.py                      # all of them
    python benchmarks/speed.py inference matching   # some
    python benchmarks/speed.py --busy               # and again while another program keeps each core busy
    python benchmarks/speed.py --json speed.json    # for the record

Each claim is measured in a process of its own; both sides take turns in it. On an otherwise idle machine. What is
printed are the tables of docs/performance.md.
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
FOUND = next(iter(sorted(Path("../shared/data/tiny_coco/val2017").glob("*.jpg"))), None)
CLAIMS: dict[str, list[Callable[[], torchvision_bench.Work]]] = {
    "inference": [
        lambda: torchvision_bench.inference(FOUND),
        lambda: torchvision_bench.inference(FOUND, precision="fp32"),
    ],
    "post-processing": [torchvision_bench.post_processing, lambda: torchvision_bench.post_processing(batch=8)],
    "loss": [torchvision_bench.focal_loss],
    "matching": [lambda: torchvision_bench.box_matching(boxes=20), lambda: torchvision_bench.box_matching(boxes=200)],
    "training": [lambda: torchvision_bench.training_step(precision=AUTO)],
}
if AUTO == "bf16":  # elsewhere it is emulated, which nobody does for speed
    CLAIMS["inference"].append(lambda: torchvision_bench.inference(FOUND, fair=True))
    CLAIMS["training"].append(lambda: torchvision_bench.training_step(precision="bf16", theirs_precision="bf16"))

# Ends with its parent, however that ends.
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
    """On each core that this process may use another process does nothing but run, to the end of the block."""
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


def measure(claim: str, place: str, busy: str, rounds: int) -> list[dict[str, Any]]:
    """The claim's row, and with ``busy`` the row of the same work on busy cores."""
    work = CLAIMS[claim][int(place)]()
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
        for place in range(len(CLAIMS[claim])):
            found = alone.alone(claim, str(place), "busy" * options.busy, rounds=options.rounds)
            if found is None:
                raise SystemExit(f"{claim}: not enough memory")
            rows += found
            print(line(found[0]), flush=True)
    if options.busy:
        print("", head.format("busy"), *(line(row) for row in rows if row["busy"]), sep="\n")
    alone.record(options.json, rows)


if __name__ == "__main__":
    main()
