"""How time and memory grow with classes, boxes, image size and batch size, compared with torchvision.

    python benchmarks/growth.py                       # everything: about an hour on two cores
    python benchmarks/growth.py loss post-processing  # a selection

The base is 80 classes, 20 boxes in an image, 800 pixels and one image (for the training step 320 pixels and two).
Each case changes one of these numbers. Every side of every case runs in a new process: once to warm up, then in the
measured rounds, of which there are fewer if they take long. Memory is the peak of the first round above the memory
before it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import time
from pathlib import Path

import alone
from retinanet.bench import torchvision_bench

BASE = {"classes": 80, "boxes": 20, "size": 800, "batch": 1}
CHANGES = {
    "loss": {"classes": (365, 1203), "size": (320, 1600), "batch": (8, 32)},
    "post-processing": {"classes": (365, 1203), "size": (320, 1600), "batch": (8, 32)},
    "matching": {"boxes": (200, 1000), "size": (320, 1600), "batch": (8, 32)},
    "step": {"classes": (365, 1203), "boxes": (200, 1000), "size": (800, 1600), "batch": (8, 32)},
}
SIDES = ("ours", "theirs")
ENOUGH = 15.0  # no new round begins after so many seconds
BASES = {"step": BASE | {"size": 320, "batch": 2}}


def make(work: str, classes: int, boxes: int, size: int, batch: int) -> torchvision_bench.Work:
    if work == "loss":
        return torchvision_bench.focal_loss(batch * torchvision_bench.count_anchors(size, size), classes)
    if work == "post-processing":
        return torchvision_bench.post_processing(size, size, classes, batch)
    if work == "matching":
        return torchvision_bench.box_matching(size, size, boxes, batch)
    return torchvision_bench.training_step(size, batch, boxes, classes, torchvision_bench.choose("auto", "cpu"))


def memory(name: str) -> float:
    """A number of /proc/self/status in MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024


def measure(work: str, side: str, case: str, rounds: int) -> dict[str, float]:
    run = getattr(make(work, **json.loads(case)), side)
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # free memory that the allocator keeps would hide the memory of the next run
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, extra = memory("VmRSS"), 0.0
    times: list[float] = []
    while len(times) < rounds and sum(times) < ENOUGH:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
        extra = extra or memory("VmHWM") - before
    return {"seconds": statistics.median(times), "extra_mb": extra}


def main() -> None:
    options = alone.options(__doc__, "works", CHANGES, 5, measure)
    print(f"{'':46} {'ours':>20} {'torchvision':>20} {'times':>6} {'memory':>7}")
    rows = []
    for work in options.works or CHANGES:
        base = BASES.get(work, BASE)
        cases = [base, *(base | {key: value} for key, values in CHANGES[work].items() for value in values)]
        for case in cases:
            # None means killed for lack of memory, which is a result too.
            results = {side: alone.alone(work, side, json.dumps(case), rounds=options.rounds) for side in SIDES}
            rows.append({"work": work, **case, **results})
            ours, theirs = results["ours"], results["theirs"]
            name = f"{work}, " + ", ".join(f"{value} {key}" for key, value in case.items())
            print(f"{name:46} {_shown(ours)} {_shown(theirs)}", end=" ")
            if ours and theirs:
                ratio = f"{theirs['extra_mb'] / ours['extra_mb']:7.1f}" if ours["extra_mb"] >= 1 else f"{'':7}"
                print(f"{theirs['seconds'] / ours['seconds']:6.1f} {ratio}", end="")
            print(flush=True)
    alone.record(options.json, rows)


def _shown(side: dict[str, float] | None) -> str:
    return f"{side['seconds'] * 1000:9.1f} ms {side['extra_mb']:5.0f} MB" if side else f"{'no memory':>20}"


if __name__ == "__main__":
    main()
