"""The gain of a pretrained backbone: ``retinanet train`` with a weight file and without, in the same minutes.

    python benchmarks/pretraining.py --weights ../shared/weights/mobilenetv2_100.safetensors --budgets 3m 15m

BCCD (trainval -> test) and coco128 (train2017 -> val2017). No other option is given, so each run has the settings that
are fitted to it. Both runs of a pair go at the same time, each on half of the CPUs, so that other work on the machine
affects both. The budget includes the evaluation. The table is printed and written as CSV.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

SETS = {"bccd": ["--train", "trainval", "--val", "test"], "coco128": []}
COLUMNS = ("data", "budget", "start", "steps", "AP", "AP50", "cpus")


def start(data: Path, arguments: list[str], output: Path, share: list[int]) -> subprocess.Popen[bytes]:
    """Start a run in a new process, on its share of the CPUs."""
    command = [sys.executable, "-m", "retinanet", "train", str(data), *arguments, "--output", str(output), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": str(len(share))}
    result = ["--json", f"{output}.json"]
    return subprocess.Popen(command + result, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of bccd and coco128")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--budgets", nargs="+", default=["3m", "15m"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--output", type=Path, default=Path("runs/pretraining"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    cpus = sorted(os.sched_getaffinity(0))
    shares = (cpus[::2], cpus[1::2] or cpus)
    rows = []
    for name in options.sets:
        for budget in options.budgets:
            pair = {}
            for weights, share in zip((options.weights, "none"), shares):
                output = options.output / f"{name}-{budget}-{Path(weights).stem}"
                arguments = [*SETS[name], "--budget", budget, "--weights", weights]
                pair[output] = start(options.data / name, arguments, output, share)
            for output, process in pair.items():
                if process.wait():
                    sys.exit(f"the run in {output} failed")
                summary = json.loads(Path(f"{output}.json").read_text(encoding="utf-8"))
                last = summary["last"]
                start_name = output.name.removeprefix(f"{name}-{budget}-")
                row = (name, budget, start_name, summary["steps"], last["AP"], last["AP50"], len(shares[0]))
                rows.append(dict(zip(COLUMNS, row)))
                print(*(f"{value:.3f}" if isinstance(value, float) else value for value in row), flush=True)
    with open(options.output / "pretraining.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
