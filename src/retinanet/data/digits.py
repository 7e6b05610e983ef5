"""Scenes of handwritten digits on photographs: a real, small data set that needs no download.

The digits are scikit-learn's ``load_digits`` (scanned from paper, 8 x 8 pixels), the photographs its two sample
images (china.jpg by danielbuechele and flower.jpg by vultilion, CC BY 2.0); both lie inside its wheel. Scenes are
stored in COCO's layout. Training and validation share neither a digit nor a region of a photograph. Frequencies fall by
a constant factor from digit 0 to digit 9, so that some classes are rare.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet.common.atomic_files import require_new
from retinanet.common.errors import RequestError, WorkError

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RAREST = 0.3  # nines for each zero
HELD_OUT = 5  # every fifth digit is in the validation set
SPLITS = {"train": 0, "val": 1}


def write(
    folder: str | os.PathLike[str],
    *,
    train: int = 320,
    val: int = 80,
    size: int = 160,
    digits: tuple[int, int] = (3, 8),
    sides: tuple[float, float] = (20, 46),
    seed: int = 0,
    on_scene: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``train/``, ``val/`` and ``annotations/instances_{train,val}.json`` into a folder.

    Args:
        folder: created if it is missing; must be empty.
        train: number of scenes for training, on the upper rows of each photograph.
        val: number of scenes for validation, on the lower rows, with other digits.
        size: side of a scene in pixels.
        digits: fewest and most digits of a scene.
        sides: smallest and largest side of a digit's 8 x 8 field in pixels of the scene.
        seed: the same seed gives the same files, whatever the number of scenes.
        on_scene: called with (scenes written, all scenes).

    Raises:
        RequestError: the folder is not empty, or scikit-learn is not installed.
        WorkError: the folder cannot be written.
    """
    root = Path(folder)
    require_new(root, "for the digit scenes")
    ink, labels, photographs = _material()
    try:
        for split, count in (("train", train), ("val", val)):
            (root / split).mkdir(parents=True)
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for number in range(count):
                rng = np.random.default_rng([seed, SPLITS[split], number])
                scene, boxes, classes = _scene(rng, split, ink, labels, photographs, size, digits, sides)
                name = f"{number:05d}.jpg"
                Image.fromarray(scene).save(root / split / name, quality=92)
                images.append({"id": number + 1, "file_name": name, "width": size, "height": size})
                for (x1, y1, x2, y2), label in zip(boxes, classes):
                    box = [x1, y1, x2 - x1, y2 - y1]
                    annotations.append(
                        {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label + 1, "bbox": box,
                         "area": box[2] * box[3], "iscrowd": 0}
                    )  # fmt: skip
                if on_scene is not None:
                    on_scene(number + 1 + (train if split == "val" else 0), train + val)
            categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
            path = root / "annotations" / f"instances_{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(
                json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8"
            )
    except OSError as error:
        raise WorkError(f"{root}: the digit scenes cannot be written: {error}") from None
    return root


def _material() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Ink (1797, 8, 8) in 0..1, labels (1797,), and the photographs (H, W, 3) uint8."""
    try:
        from sklearn.datasets import load_digits, load_sample_image
    except ImportError:
        raise RequestError(
            "the digit scenes need scikit-learn: install it with pip install 'retinanet[demo]'"
        ) from None
    ink, labels = load_digits(return_X_y=True)
    photographs = [np.asarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    return ink.reshape(-1, 8, 8).astype(np.float32) / 16, labels, photographs


def samples(split: str, count: int) -> np.ndarray:
    """Indices (n,) of the digits, out of ``count``, that belong to a split."""
    held_out = np.arange(count) % HELD_OUT == HELD_OUT - 1
    return np.flatnonzero(held_out if split == "val" else ~held_out)


def rows_of(split: str, height: int) -> tuple[int, int]:
    """The rows of a photograph that belong to a split: [first, last)."""
    edge = round(height * 0.55)
    return (0, edge) if split == "train" else (edge, height)


def _scene(
    rng: np.random.Generator,
    split: str,
    ink: np.ndarray,
    labels: np.ndarray,
    photographs: list[np.ndarray],
    size: int,
    digits: tuple[int, int],
    sides: tuple[float, float],
) -> tuple[np.ndarray, list[list[float]], list[int]]:
    scene = _background(rng, split, photographs, size)  # (size, size, 3) float32
    usable = samples(split, len(labels))
    frequency = RAREST ** (np.arange(10) / 9)
    taken = np.zeros((size, size), dtype=bool)
    boxes: list[list[float]] = []
    classes: list[int] = []
    for _ in range(int(rng.integers(digits[0], digits[1] + 1))):
        label = int(rng.choice(10, p=frequency / frequency.sum()))
        which = int(rng.choice(usable[labels[usable] == label]))
        mask = _drawn(rng, ink[which], np.exp(rng.uniform(*np.log(sides))))  # (h, w), cut to the ink
        height, width = mask.shape
        for _ in range(20):  # if no free position is found, the digit is left out
            top, left = (int(rng.integers(2, size - side - 2)) for side in mask.shape)
            around = taken[max(top - 3, 0) : top + height + 3, max(left - 3, 0) : left + width + 3]
            if around.any():
                continue
            around[:] = True
            window = scene[top : top + height, left : left + width]
            window += mask[..., None] * (_colour(rng, window) - window)
            boxes.append([float(left), float(top), float(left + width), float(top + height)])
            classes.append(label)
            break
    scene += rng.normal(0, 2, scene.shape)
    return scene.clip(0, 255).astype(np.uint8), boxes, classes


def _background(rng: np.random.Generator, split: str, photographs: list[np.ndarray], size: int) -> np.ndarray:
    """A random square of the split's rows of a photograph, mirrored half of the time."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    first, last = rows_of(split, photograph.shape[0])
    side = int(rng.uniform(0.7, 1.0) * min(last - first, photograph.shape[1]))
    top = first + int(rng.integers(last - first - side + 1))
    left = int(rng.integers(photograph.shape[1] - side + 1))
    cut = Image.fromarray(photograph[top : top + side, left : left + side])
    array = np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    return (array[:, ::-1] if rng.random() < 0.5 else array) * np.float32(rng.uniform(0.75, 1.15))


def _drawn(rng: np.random.Generator, ink: np.ndarray, side: float) -> np.ndarray:
    """A digit at its size in the scene, rotated a little and cropped to its ink: opacity (h, w) in 0..1."""
    field = Image.fromarray(np.pad(ink, 2))  # 12 x 12: room for the rotation
    pixels = max(round(side * 12 / 8), 12)
    field = field.resize((pixels, pixels), Image.Resampling.BICUBIC)
    field = field.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    # Eight enlarged pixels are blurred; a steeper edge at half the ink makes them a stroke again.
    mask = np.clip((np.asarray(field) - 0.5) * 2.5 + 0.5, 0, 1)
    rows, columns = (np.flatnonzero((mask > 0.5).any(axis=axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _colour(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """A colour (3,) that differs from the photograph in the window."""
    behind = window.mean(axis=(0, 1))
    inks = rng.uniform(0, 255, (8, 3))
    return np.asarray(inks[np.abs(inks - behind).sum(axis=1).argmax()], dtype=np.float32)
