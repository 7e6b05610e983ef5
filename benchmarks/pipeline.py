"""Images per second that one CPU core decodes, augments and batches, compared with torchvision's reference pipeline.

    python benchmarks/pipeline.py --data ../shared/data/tiny_coco --size 800

Ours: from files to a padded uint8 batch at the training size, with random flips. torchvision's (references/detection):
decode with Pillow, flip, convert to float32. Its model resizes and pads, so the last row includes that work. Both take
turns on one core with the same images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from retinanet.bench.torchvision_bench import machine
from retinanet.config import recipes
from retinanet.data import open_data
from retinanet.data.loader import TrainingSteps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tiny_coco"))
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    changes: dict[str, Any] = {
        "model": {"preprocessing": {"size": options.size, "longer": round(options.size * 1333 / 800)}},
        "train": {"batch_size": options.batch},
    }
    settings = recipes.load(None, changes)
    data = open_data(options.data, options.split)
    steps = TrainingSteps(data, settings)
    batches = max(1, len(data) // options.batch)

    def ours() -> None:
        for step in range(batches):
            steps[step]

    def theirs(resize: bool) -> None:
        from PIL import Image
        from torchvision.models.detection.transform import GeneralizedRCNNTransform
        from torchvision.transforms import v2

        longer = settings.model.preprocessing.longer
        transform = GeneralizedRCNNTransform(options.size, longer, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        flip, convert = v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float, scale=True)
        for step in range(batches):
            images = []
            for _, index in steps.images(step):
                with Image.open(data.path(index)) as file:
                    images.append(convert(v2.functional.pil_to_tensor(flip(file.convert("RGB")))))
            if resize:
                transform(images)

    ways: dict[str, Callable[[], None]] = {
        "ours": ours,
        "torchvision's loader": lambda: theirs(False),
        "torchvision's loader, resize and padding": lambda: theirs(True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(options.rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if done:
                times[name].append(time.perf_counter() - begin)
    count = batches * options.batch
    print(f"{machine()}; one core; {count} images of {options.data} at {options.size} pixels")
    for name, seconds in times.items():
        rates = sorted(count / s for s in seconds)
        print(f"{name:42} {statistics.median(rates):6.1f} images/s ({rates[0]:.1f} to {rates[-1]:.1f})")
    rate = statistics.median(count / s for s in times["ours"])
    print(f"cores that feed 100 images a second: {100 / rate:.1f}")


if __name__ == "__main__":
    main()
