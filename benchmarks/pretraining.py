"""What an ImageNet-pretrained backbone brings: fine-tuned beside the same network from scratch, in the same minutes.

    python benchmarks/pretraining.py --weights ../shared/weights/mobilenetv2_100_same.safetensors --minutes 5

MobileNetV2 on BCCD (trainval -> test) and on coco128 (train2017 -> val2017), with recipes/scratch-small.yaml for all
the rest. With weights the backbone's batch normalisation is frozen, as the weight file asks for; without them it is
trained. One run after the other, on an otherwise idle machine; the minutes include the evaluations.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SETS = {"bccd": ("trainval", "test"), "coco128": ("train2017", "val2017")}
BACKBONE = {"name": "mobilenetv2_100", "options": {"pad_type": "same"}}


def run(data: Path, splits: tuple[str, str], weights: Path | None, minutes: float, output: Path) -> dict[str, Any]:
    from retinanet import recipe
    from retinanet.training.loop import train

    backbone = BACKBONE | ({"weights": str(weights), "frozen_norm": True} if weights else {})
    # Both see the pictures as the weight file wants them.
    model = {"backbone": backbone, "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    changes = {
        "model": model,
        "data": {"train": splits[0], "val": splits[1]},
        "train": {"budget": f"{minutes}m", "eval_every": 0},
    }
    summary = train(data, recipe.load("scratch-small", changes), output)
    return {"steps": summary["steps"], "seconds": summary["seconds"], **summary["last"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of bccd and coco128")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--output", type=Path, default=Path("runs/pretraining"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{'':24} {'steps':>6} {'seconds':>8} {'AP':>7} {'AP50':>7} {'AR100':>7}")
    for name in options.sets:
        for weights in (options.weights, None):
            way = f"{name}-{'pretrained' if weights else 'scratch'}"
            r = run(options.data / name, SETS[name], weights, options.minutes, options.output / way)
            (options.output / f"{way}.json").write_text(json.dumps(r, indent=1) + "\n")
            numbers = " ".join(f"{r[key]:7.3f}" for key in ("AP", "AP50", "AR100"))
            print(f"{way:24} {r['steps']:6d} {r['seconds']:8.0f} {numbers}", flush=True)


if __name__ == "__main__":
    main()
