"""The claims about speed, one by one, beside torchvision's RetinaNet with the same weights.

    python benchmarks/speed.py                      # all of them
    python benchmarks/speed.py inference matching   # some
    python benchmarks/speed.py --json speed.json    # for the record

Each claim is measured in a process of its own; both sides take turns in it. On an otherwise idle machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import alone
from retinanet import bench
from retinanet.precision import choose

AUTO = choose("auto", "cpu")
FOUND = next(iter(sorted(Path("../shared/data/tiny_coco/val2017").glob("*.jpg"))), None)
CLAIMS: dict[str, list[Callable[[], bench.Work]]] = {
    "inference": [lambda: bench.inference(FOUND), lambda: bench.inference(FOUND, precision="fp32")],
    "post-processing": [bench.post_processing, lambda: bench.post_processing(batch=8)],
    "loss": [bench.focal_loss],
    "matching": [lambda: bench.box_matching(boxes=20), lambda: bench.box_matching(boxes=200)],
    "training": [lambda: bench.training_step(precision=AUTO)],
}
if AUTO == "bf16":  # elsewhere it is emulated, which nobody does for speed
    CLAIMS["inference"].append(lambda: bench.inference(FOUND, fair=True))
    CLAIMS["training"].append(lambda: bench.training_step(precision="bf16", theirs_precision="bf16"))


def measure(claim: str, place: str, rounds: int) -> dict[str, Any]:
    return CLAIMS[claim][int(place)]().compare(rounds).row()


def main() -> None:
    options = alone.options(__doc__, "claims", CLAIMS, 7, measure)
    print(f"{'':72} {'ours':>9} {'torchvision':>12} {'ratio':>6}  range")
    rows: list[dict[str, Any]] = []
    for claim in options.claims or CLAIMS:
        for place in range(len(CLAIMS[claim])):
            r = alone.alone(claim, str(place), rounds=options.rounds)
            if r is None:
                raise SystemExit(f"{claim}: not enough memory")
            rows.append(r)
            seconds = f"{r['ours_seconds'] * 1000:9.1f} {r['torchvision_seconds'] * 1000:12.1f}"
            spread = f"{r['ratio_low']:.2f} to {r['ratio_high']:.2f}"
            print(f"{r['name']:72} {seconds} {r['ratio']:6.2f}  {spread}", flush=True)
    alone.record(options.json, rows)


if __name__ == "__main__":
    main()
