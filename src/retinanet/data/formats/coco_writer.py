"""Writes COCO's layout: category ids stay the same, image ids too where they are unique."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from retinanet.common.errors import RequestError
from retinanet.data.formats import coco
from retinanet.data.formats.layout_writer import Chosen, ImageEntry, Written


class CocoWriter:
    by_stem, unsafe = False, "(?!)"

    def __init__(self, root: Path, classes: dict[str, int], chosen: Chosen, written: Written) -> None:
        self._root, self._ids = root, list(classes.values())
        self._categories = [json.dumps({"id": ident, "name": name}) for name, ident in classes.items()]
        self._images: dict[str, list[str]] = {split: [] for split in chosen}
        self._annotations: dict[str, list[str]] = {split: [] for split in chosen}
        for split in chosen:
            if coco.split_name(self._json(split)) != split:
                raise RequestError(f"{split!r} cannot name a split in COCO's layout: it would be read as another name")

    def _json(self, split: str) -> Path:
        return self._root / "annotations" / f"instances_{split}.json"

    def location(self, split: str, name: str) -> Path:
        return self._root / split / name

    def add(self, image: ImageEntry) -> int:
        height, width = image.size
        entry = {"id": image.ident, "file_name": image.name, "height": height, "width": width}
        self._images[image.split].append(json.dumps(entry))
        rows = self._annotations[image.split]
        for (x1, y1, x2, y2), label, crowd, area in zip(image.boxes.tolist(), image.labels, image.crowds, image.areas):
            # 15 digits cut the noise off float64 differences, such as 639.9000000000001.
            box = [x1, y1, float(f"{x2 - x1:.15g}"), float(f"{y2 - y1:.15g}")]
            annotation = {"id": len(rows) + 1, "image_id": image.ident, "category_id": self._ids[label]}
            rows.append(json.dumps(annotation | {"bbox": box, "area": area, "iscrowd": int(crowd)}))
        return len(image.labels)

    def final_files(self) -> Iterator[tuple[Path, str]]:
        for split, images in self._images.items():
            lists = {"images": images, "annotations": self._annotations[split], "categories": self._categories}
            text = ",\n".join(f'"{key}": [\n' + ",\n".join(rows) + "]" for key, rows in lists.items())
            yield self._json(split), f"{{{text}}}\n"
