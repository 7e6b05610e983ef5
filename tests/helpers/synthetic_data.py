"""Synthetic data for tests: data sets on disk, scenes for evaluation, and anchors with outputs for losses."""

import io
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from retinanet.config.model_settings import AnchorSettings
from retinanet.data import open_data
from retinanet.inference.detections import Detections
from retinanet.model import Outputs
from retinanet.ops.anchors import make_anchors

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


def rectangles(root, count=10):
    """A COCO data set of red and green rectangles on noise for training; the images with odd numbers have none.

    The noise is in blocks: each evaluation of a run writes enlarged images, and fine noise takes ten times as long to
    compress.
    """
    random = np.random.default_rng(0)
    splits = {}
    for split in ("train", "val"):
        splits[split] = []
        for number in range(count):
            height, width = 64, int(random.integers(48, 97))
            image = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
            image = image[::16, ::16].repeat(16, axis=0).repeat(16, axis=1)[:, :width]
            boxes = []
            for _ in range(0 if number % 2 else int(random.integers(1, 4))):
                w, h = random.integers(14, 30, 2).tolist()
                x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
                label = int(random.integers(0, 2))
                image[y : y + h, x : x + w, label] = 220
                boxes.append([label, x, y, x + w, y + h])
            splits[split].append(Sample(f"{number}.png", encoded(Image.fromarray(image)), boxes, (height, width)))
    return write(root, "coco", splits, ("red", "green"))


def bright_boxes(root, splits=("train", "val"), names=("cat", "dog"), count=4):
    """A COCO data set that trains in seconds: a bright box of each class in noise. Category ids start at 7."""
    rng = np.random.default_rng(0)
    samples = {}
    for split in splits:
        samples[split] = []
        for ident in range(1, count + 1):
            image = rng.integers(0, 60, (3, 4, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
            boxes = []
            for label, x in enumerate((4, 36)):
                image[10:34, x : x + 22] = (240, 200, 40) if label else (30, 90, 250)
                boxes.append([label % len(names), x, 10, x + 22, 34])
            samples[split].append(Sample(f"{ident:03}.png", encoded(Image.fromarray(image)), boxes, (48, 64)))
    return write(root, "coco", samples, names, first_image=1, first_category=7)


def black_images(root, scenes, names=("a", "b")):
    """Black images, for code that uses annotations alone: ((height, width), [(x1, y1, x2, y2, label)]) of each."""
    samples = [
        Sample(f"{i}.png", encoded(Image.new("RGB", size[::-1])), [[label, *box] for *box, label in boxes], size)
        for i, (size, boxes) in enumerate(scenes)
    ]
    return open_data(write(root, "coco", {"train": samples}, names), "train")


def write(root, layout, splits, classes=CLASSES, **options):
    """Write the samples of each split in a layout; ``classes`` are in the order of their labels."""
    root = Path(root)
    {"yolo": _yolo, "coco": _coco, "voc": _voc}[layout](root, splits, classes, **options)
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


def _coco(root, splits, classes, first_image=0, first_category=1):
    for split, samples in splits.items():
        images, annotations = [], []
        for i, sample in enumerate(samples, first_image):
            _file(root / split / sample.name, sample.content)
            images.append({"id": i, "file_name": sample.name, "height": sample.size[0], "width": sample.size[1]})
            for k, x1, y1, x2, y2 in sample.boxes:
                entry = {"id": len(annotations) + 1, "image_id": i, "category_id": k + first_category}
                bbox = [x1, y1, x2 - x1, y2 - y1]
                annotations.append(entry | {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(classes, first_category)],
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


# ------------------------------------------------------------------------------------------ scenes for evaluation

SCENE_CLASSES = ("a", "b", "c")


class Scenes:
    """A data set without images, for evaluation: (label, x1, y1, x2, y2, crowd) for every box of each image."""

    def __init__(self, truth, names=SCENE_CLASSES):
        self.truth, self.class_names = truth, names

    def __len__(self):
        return len(self.truth)

    def boxes(self, i):
        return np.array([row[1:5] for row in self.truth[i]], np.float32).reshape(-1, 4)

    def labels(self, i):
        return np.array([row[0] for row in self.truth[i]], np.int64)

    def crowd(self, i):
        return np.array([row[5] for row in self.truth[i]], bool)

    def areas(self, i):
        boxes = self.boxes(i).astype(np.float64)
        return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def detections(rows, names=SCENE_CLASSES):
    """Detections from rows of (label, x1, y1, x2, y2, score)."""
    rows = sorted(rows, key=lambda row: -row[5])
    boxes = torch.tensor([row[1:5] for row in rows], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([row[5] for row in rows], dtype=torch.float32)
    return Detections(boxes, scores, torch.tensor([row[0] for row in rows], dtype=torch.int64), names)


def scene(*images, names=SCENE_CLASSES):
    """The boxes and the detections of each image -> Scenes, detections by image."""
    data = Scenes([[(*row, False)[:6] for row in truth] for truth, _ in images], names)
    return data, {i: detections(rows, names) for i, (_, rows) in enumerate(images) if rows is not None}


@st.composite
def scenes(draw, classes=3):
    """Few positions, sizes and scores, so that boxes overlap in every way, and overlaps and scores are often equal."""

    def box():
        x, y = draw(st.integers(0, 8)), draw(st.integers(0, 8))
        return x, y, x + draw(st.sampled_from((4, 6, 8))), y + draw(st.sampled_from((4, 8)))

    label, score = st.integers(0, classes - 1), st.integers(1, 16).map(lambda n: n / 16)
    images = []
    for _ in range(draw(st.integers(0, 3))):
        truth = [(draw(label), *box(), draw(st.integers(0, 4)) == 0) for _ in range(draw(st.integers(0, 4)))]
        rows = [(draw(label), *box(), draw(score)) for _ in range(draw(st.integers(0, 6)))]
        images.append((truth, rows if rows or draw(st.booleans()) else None))
    return scene(*images, names=SCENE_CLASSES[:classes])


# ------------------------------------------------------- three images for losses that are summed over a batch

ANCHORS = make_anchors(AnchorSettings(), 64, 96, torch.device("cpu"))
BOXES = [torch.tensor([[4.0, 4, 40, 40], [10, 20, 90, 60]]), torch.zeros((0, 4)), torch.tensor([[30.0, 0, 64, 64]])]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]


def outputs(dtype=torch.float32):
    """Random logits of three classes and box deltas for the three images."""
    generator = torch.Generator().manual_seed(0)
    logits, deltas = (
        [torch.randn((3, len(level), n), generator=generator).to(dtype).requires_grad_() for level in ANCHORS]
        for n in (3, 4)
    )
    return Outputs(logits, deltas)
