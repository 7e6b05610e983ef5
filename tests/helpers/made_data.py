"""Small data sets with known contents, written in any layout."""

import io
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 96, 128
CLASSES = ("cell", "star", "ring")


@cache
def pixels(seed, height=HEIGHT, width=WIDTH):
    """An image like no other: coarse blocks of random colours, more red than blue, enlarged smoothly."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (6, 8, 3)) + np.array([40, 20, 0])
    return Image.fromarray(blocks.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


@cache
def png(seed, height=HEIGHT, width=WIDTH):
    return encoded(pixels(seed, height, width))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass
class Sample:
    name: str
    content: bytes
    boxes: list = field(default_factory=list)  # [label, x1, y1, x2, y2], whole pixels
    size: tuple = (HEIGHT, WIDTH)


def sound(train=40, val=20, classes=3):
    """Nothing is wrong with this one: a box of each class in each image, the classes of different sizes."""
    splits = {}
    for seed, (split, n) in enumerate({"train": train, "val": val}.items()):
        rng = np.random.default_rng(seed)
        splits[split] = []
        for i in range(n):
            boxes = []
            for label, cell in zip(range(classes), rng.permutation(6)[:classes]):
                x, y = 42 * (cell % 3), 48 * (cell // 3)
                side = rng.integers(16 + 4 * label, 20 + 4 * label, 2)
                # In the corner of the cell that lies outwards, so that some box touches each edge.
                left = x if cell % 3 == 0 else x + 43 - side[0] if cell % 3 == 2 else x + rng.integers(0, 10)
                top = y if cell < 3 else y + 47 - side[1]
                boxes.append([label, int(left) + 1, int(top) + 1, int(left + side[0]), int(top + side[1])])
            splits[split].append(Sample(f"{split}{i}.png", png(1000 * seed + i), boxes))
    return splits


def write(root, layout, splits, classes=CLASSES):
    """Write the splits in the layout; ``classes`` are in the order of their labels."""
    root = Path(root)
    {"yolo": _yolo, "coco": _coco, "voc": _voc}[layout](root, splits, classes)
    return root


def _file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _yolo(root, splits, classes):
    lines = [f"{split}: images/{split}" for split in splits]
    _file(root / "data.yaml", "\n".join([*lines, "names: " + json.dumps(list(classes))]))
    for split, images in splits.items():
        (root / "images" / split).mkdir(parents=True)
        for image in images:
            _file(root / "images" / split / image.name, image.content)
            h, w = image.size
            rows = [
                f"{k} {(x1 + x2) / 2 / w} {(y1 + y2) / 2 / h} {(x2 - x1) / w} {(y2 - y1) / h}"
                for k, x1, y1, x2, y2 in image.boxes
            ]
            if rows:
                _file((root / "labels" / split / image.name).with_suffix(".txt"), "\n".join(rows))


def _coco(root, splits, classes):
    for split, samples in splits.items():
        images, annotations = [], []
        for i, sample in enumerate(samples):
            _file(root / split / sample.name, sample.content)
            images.append({"id": i, "file_name": sample.name, "height": sample.size[0], "width": sample.size[1]})
            for k, x1, y1, x2, y2 in sample.boxes:
                bbox = [x1, y1, x2 - x1, y2 - y1]
                annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": k + 1, "bbox": bbox})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)],
        }
        _file(root / f"annotations/instances_{split}.json", json.dumps(content))


def _voc(root, splits, classes):
    for split, images in splits.items():
        _file(root / f"ImageSets/Main/{split}.txt", "\n".join(Path(image.name).stem for image in images))
        for image in images:
            _file(root / "JPEGImages" / image.name, image.content)
            h, w = image.size
            objects = "\n".join(
                f"<object><name>{classes[k]}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                for k, x1, y1, x2, y2 in image.boxes
            )
            text = f"<annotation><size><width>{w}</width><height>{h}</height></size>\n{objects}</annotation>"
            _file((root / "Annotations" / image.name).with_suffix(".xml"), text)
