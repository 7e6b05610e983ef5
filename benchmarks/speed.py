"""The claims about speed, one by one, beside torchvision's RetinaNet with the same weights.

    python benchmarks/speed.py                      # all of them
    python benchmarks/speed.py inference matching   # some
    python benchmarks/speed.py --json speed.json    # for the record

Each claim is measured in a process of its own; both sides take turns in it. On an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", help=f"of {', '.join(CLAIMS)}; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        claim, place = options.one
        print(json.dumps(CLAIMS[claim][int(place)]().compare(options.rounds).row()))
        return
    print(bench.machine())
    print(f"{'':72} {'ours':>9} {'torchvision':>12} {'ratio':>6}  range")
    rows: list[dict[str, Any]] = []
    for claim in options.claims or CLAIMS:
        for place in range(len(CLAIMS[claim])):
            command = [sys.executable, __file__, "--one", claim, str(place), "--rounds", str(options.rounds)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            r = json.loads(done.stdout.splitlines()[-1])
            rows.append(r)
            seconds = f"{r['ours_seconds'] * 1000:9.1f} {r['torchvision_seconds'] * 1000:12.1f}"
            spread = f"{r['ratio_low']:.2f} to {r['ratio_high']:.2f}"
            print(f"{r['name']:72} {seconds} {r['ratio']:6.2f}  {spread}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": bench.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
