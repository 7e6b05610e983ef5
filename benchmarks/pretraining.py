"""The gain of an ImageNet-pretrained backbone: fine-tuned against the same network from scratch, in the same minutes.

    python benchmarks/pretraining.py --weights ../shared/weights/mobilenetv2_100_same.safetensors --minutes 3

MobileNetV2 on BCCD (trainval -> test) and on coco128 (train2017 -> val2017); other settings are those of
recipes/scratch-small.yaml. With pretrained weights the backbone's batch normalization is frozen, else it is trained.
Both runs of a data set go at the same time, each on half of the CPUs, so that other work on the machine affects both.
The minutes include the evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SETS = {"bccd": ("trainval", "test"), "coco128": ("train2017", "val2017")}
WAYS = ("pretrained", "scratch")
BACKBONE = {"name": "mobilenetv2_100", "options": {"pad_type": "same"}}


def run(data: Path, splits: tuple[str, str], weights: Path | None, minutes: float, output: Path) -> dict[str, Any]:
    from retinanet.config import recipes
    from retinanet.training.trainer import train

    backbone = BACKBONE | ({"weights": str(weights), "frozen_norm": True} if weights else {})
    # Both use the preprocessing of the weight file.
    model = {"backbone": backbone, "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    changes = {
        "model": model,
        "data": {"train": splits[0], "val": splits[1]},
        "train": {"budget": f"{minutes}m", "eval_every": 0},
    }
    summary = train(data, recipes.load("scratch-small", changes), output)
    return {"steps": summary["steps"], "seconds": summary["seconds"], **summary["last"]}


def start(way: str, name: str, share: list[int]) -> subprocess.Popen:
    """Start a run in a new process, on its share of the CPUs."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", way, "--sets", name]
    environment = os.environ | {"OMP_NUM_THREADS": str(len(share))}
    return subprocess.Popen(command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of bccd and coco128")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--output", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.one:
        (name,) = options.sets
        folder = options.output / f"{name}-{options.one}"
        weights = options.weights if options.one == "pretrained" else None
        result = run(options.data / name, SETS[name], weights, options.minutes, folder)
        folder.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        return
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    print(f"{'':24} {'steps':>6} {'seconds':>8} {'AP':>7} {'AP50':>7} {'AR100':>7}")
    for name in options.sets:
        running = [start(way, name, share) for way, share in zip(WAYS, (cores[:half], cores[-half:]), strict=True)]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"a run on {name} failed")
        for way in WAYS:
            r = json.loads((options.output / f"{name}-{way}.json").read_text())
            numbers = " ".join(f"{r[key]:7.3f}" for key in ("AP", "AP50", "AR100"))
            print(f"{name}-{way:18} {r['steps']:6d} {r['seconds']:8.0f} {numbers}", flush=True)


if __name__ == "__main__":
    main()
