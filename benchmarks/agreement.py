"""How many detections of plain float32 the faster precisions find too.

    python benchmarks/agreement.py runs/mine ../shared/data/tiny_coco --split val

The share is that of the float32 detections with a score above 0.3 for which the other precision has a box with the same
label and an IoU above 0.9.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import retinanet
from retinanet.data import open_data
from retinanet.exporting.box_recall import recall_counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--precisions", nargs="+", default=["auto", "bf16"])
    parser.add_argument("--score", type=float, default=0.3)
    parser.add_argument("--iou", type=float, default=0.9)
    options = parser.parse_args()
    data = open_data(options.data, options.split)
    images = [data.read(index) for index in range(len(data))]
    plain = retinanet.load(options.model, "cpu", "fp32")
    exact = plain.detect_each(images)
    for precision in options.precisions:
        fast = retinanet.load(options.model, "cpu", precision)
        pairs = [
            recall_counts(*both, options.score, options.iou)
            for both in zip(exact, fast.detect_each(images), strict=True)
        ]
        total, again = (sum(column) for column in zip(*pairs))
        share = f"{100 * again / total:.2f} %" if total else "nothing to find"
        print(f"{precision} ({fast.precision}): {again} of {total} found again, {share}, in {len(data)} images")


if __name__ == "__main__":
    main()
