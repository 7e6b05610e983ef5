"""A data set and settings so small that a run takes seconds; for tests that train."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from retinanet.config import recipes

TINY = {
    "model": {
        "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}, "frozen_norm": True},
        "pyramid": {"channels": 16},
        "head": {"depth": 1, "width": 16, "norm": "group"},
        "anchors": {"sizes": [16, 32, 64, 128, 256]},
        "preprocessing": {"size": 64, "longer": 96},
    },
    "data": {"workers": 0},
    "train": {
        "batch_size": 4,
        "steps": 6,
        "optimizer": "adamw",
        "lr": 1e-3,
        "lr_batch": 0,
        "precision": "fp32",
        "accelerator": "cpu",
        "report": False,
    },
}


def tiny(**train):
    """The tiny settings, with these of ``train`` changed."""
    return recipes.load(None, recipes.merge(TINY, {"train": train}))


def make_data(root: Path, count: int = 10) -> Path:
    """A COCO data set of rectangles on noise; the images with odd numbers hold none.

    The noise is in blocks: each evaluation of a run writes a sheet of these images enlarged, and to pack fine noise
    takes ten times as long.
    """
    random = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            height, width = 64, int(random.integers(48, 97))
            pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
            pixels = pixels[::16, ::16].repeat(16, axis=0).repeat(16, axis=1)[:, :width]
            for _ in range(0 if number % 2 else int(random.integers(1, 4))):
                w, h = random.integers(14, 30, 2)
                x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
                label = int(random.integers(0, 2))
                pixels[y : y + h, x : x + w, label] = 220
                box = [x, y, int(w), int(h)]
                entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box}
                annotations.append(entry | {"area": int(w * h), "iscrowd": 0})
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
