"""A COCO data set that trains in seconds: a bright box of each class in noise."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_coco(root: Path, splits=("train", "val"), names=("cat", "dog"), count: int = 4) -> Path:
    """A tiny COCO data set: a bright box of each class in noise; category ids start at 7.

    The noise is in blocks, as sheets of fine noise take long to pack.
    """
    rng = np.random.default_rng(0)
    categories = [{"id": 7 + i, "name": name} for i, name in enumerate(names)]
    for split in splits:
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for ident in range(1, count + 1):
            pixels = rng.integers(0, 60, (3, 4, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
            for label, x in enumerate((4, 36)):
                pixels[10:34, x : x + 22] = (240, 200, 40) if label else (30, 90, 250)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": ident, "category_id": 7 + label % len(names),
                     "bbox": [x, 10, 22, 24], "area": 22 * 24, "iscrowd": 0}
                )  # fmt: skip
            Image.fromarray(pixels).save(root / split / f"{ident:03}.png")
            images.append({"id": ident, "file_name": f"{ident:03}.png", "width": 64, "height": 48})
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return root
