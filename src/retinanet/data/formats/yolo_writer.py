"""Writes YOLO's layout: boxes are fractions of the upright image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from retinanet.common.errors import RequestError
from retinanet.data.formats import yolo
from retinanet.data.formats.layout_writer import NO_OUTLINES, Chosen, ImageEntry, Written, save_texts
from retinanet.data.formats.split_folders import plain_name


class YoloWriter:
    by_stem, unsafe = True, r"^\."  # hidden files are not read

    def __init__(self, root: Path, classes: dict[str, int], chosen: Chosen, written: Written) -> None:
        self._root, self._names, self._splits, self._written = root, list(classes), list(chosen), written

    def location(self, split: str, name: str) -> Path:
        return self._root / "images" / split / name

    def add(self, image: ImageEntry) -> int:
        height, width = image.size
        lines: dict[str, None] = {}
        for i, ((x1, y1, x2, y2), label) in enumerate(zip(image.boxes.tolist(), image.labels)):
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            line = " ".join([str(label), *(f"{value:.10g}" for value in values)])
            if image.crowds[i]:
                kind = "crowd regions left out, which YOLO does not have"
                self._written.add(kind, image.box_text(i, self._names))
            elif line in lines:  # readers report it as a fault
                self._written.add("boxes left out that are there twice", image.box_text(i, self._names))
            else:
                lines[line] = None
        if image.has_outlines():
            self._written.add(NO_OUTLINES.format("YOLO"), image.source)
        labels = yolo.label_file(Path("images", image.split, image.name))
        save_texts([(self._root / labels, "".join(f"{line}\n" for line in lines))])
        return len(lines)

    def final_files(self) -> Iterator[tuple[Path, str]]:
        content: dict[str, Any] = {split: f"images/{split}" for split in self._splits}
        content |= {"nc": len(self._names), "names": self._names}
        yield self._root / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)


def yolo_splits(chosen: Chosen, written: Written) -> Chosen:
    """The splits under the names that YOLO has for them.

    Another split is left out if all of its images are in those, such as trainval.

    Raises:
        RequestError: two splits would have the same name, or the images of a split would be lost.
    """
    yolo_name = {name: name if name in yolo.SPLITS else plain_name(name) for name in chosen}
    kept = {yolo_name[name]: images for name, images in chosen.items() if yolo_name[name] in yolo.SPLITS}
    paths = {data.path(i) for data, indices in kept.values() for i in indices}
    for name, (data, indices) in chosen.items():
        if yolo_name[name] in kept and list(yolo_name.values()).count(yolo_name[name]) > 1:
            raise RequestError(f"more than one of the splits {', '.join(chosen)} would be YOLO's {yolo_name[name]}")
        if yolo_name[name] not in kept:
            if any(data.path(i) not in paths for i in indices):
                raise RequestError(f"YOLO has no split {name}: it has train, val and test")
            written.add("splits left out that YOLO does not have, their images being in others", name)
    return kept
