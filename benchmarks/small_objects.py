"""Objects of six to twelve pixels: the effect of fitted settings, in the same minutes.

    python benchmarks/small_objects.py --minutes 10

Makes digit scenes of 640 pixels in a temporary folder. Three runs from random weights follow each other: the default
command; the same with the paper's image size and anchors; the paper's model and schedule (ResNet-50, SGD).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from retinanet.analysis.coverage import cover
from retinanet.bench import torchvision_bench
from retinanet.config import recipes
from retinanet.data import digits, open_data

PAPER_SIZE_AND_ANCHORS = [
    *("--model.anchors.sizes", "32", "64", "128", "256", "512"),
    *("--model.anchors.ratios", "0.5", "1", "2", "--model.anchors.first-level", "3"),
    *("--model.preprocessing.size", "800", "--model.preprocessing.longer", "1333"),
]
RUNS = {
    "default": [],
    "default, the paper's size and anchors": PAPER_SIZE_AND_ANCHORS,
    "the paper's settings": [
        *("--config", "paper-r50-1x", "--model.backbone.weights", "none"),
        *("--train.accumulate", "16"),  # sixteen such images at once need more memory than many machines have
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--output", type=Path, help="keep the runs here")
    options = parser.parse_args()
    print(torchvision_bench.machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = options.output or Path(name)
        data = digits.write(folder / "scenes", train=200, val=50, size=640, digits=(50, 90), sides=(9, 14))
        train = open_data(data, "train")
        print(f"{'':40} covered  steps     AP   AP50", flush=True)
        for run in options.runs:
            output = folder / run.replace(" ", "-").replace(",", "").replace("'", "")
            budget = f"{options.minutes * 60:g}s"
            command = [sys.executable, "-m", "retinanet", "train", str(data), "--budget", budget]
            command += ["--output", str(output), "--train.eval-every", "0", "--quiet", *RUNS[run]]
            subprocess.run(command, check=True)
            settings = recipes.load(str(output / "settings.yaml"), {})
            evaluation = json.loads((output / "evaluation.json").read_text())
            share = cover(train, settings.model, settings.matching).share
            print(
                f"{run:40} {share:7.1%} {evaluation['step']:6d} {evaluation['AP']:6.3f} {evaluation['AP50']:6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
