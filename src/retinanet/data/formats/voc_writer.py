"""Writes Pascal VOC's layout: pixels count from 1."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from retinanet.common.errors import RequestError
from retinanet.data import image_io
from retinanet.data.formats.layout_writer import NO_OUTLINES, Chosen, ImageEntry, Written, save_texts

NO_XML = "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
SUFFIX = f"\\.(?=({'|'.join(sorted(suffix[1:] for suffix in image_io.SUFFIXES))})$)"
TOO_THIN = "boxes of one pixel or less left out, which Pascal VOC does not tell from points"


class VocWriter:
    by_stem = True
    # Lists of images are read word by word, and names in them may have a suffix or not.
    unsafe = rf"^\.|\s|\ufeff|{NO_XML}|{SUFFIX}"

    def __init__(self, root: Path, classes: dict[str, int], chosen: Chosen, written: Written) -> None:
        self._root, self._names, self._written = root, list(classes), written
        self._lists: dict[str, list[str]] = {split: [] for split in chosen}
        self._sheets: set[str] = set()
        used = set[str]()
        for data, indices in chosen.values():
            labels = data.annotations.labels[np.isin(data.annotations.images, indices)]
            used.update(data.class_names[label] for label in np.unique(labels))
        if not used:
            raise RequestError("Pascal VOC's layout only names classes at their boxes, and there is no box at all")
        for name in classes:
            if name not in used:
                written.add("classes without a box, which Pascal VOC does not name", name)
            elif not name or re.search(NO_XML, name):
                raise RequestError(f"Pascal VOC's XML cannot hold the class name {name!r}: rename it in the data set")

    def location(self, split: str, name: str) -> Path:
        return self._root / "JPEGImages" / name

    def add(self, image: ImageEntry) -> int:
        stem = Path(image.name).stem
        self._lists[image.split].append(stem)
        rows = (image.boxes + np.array([1, 1, 0, 0])).tolist()
        corners = np.array([[float(f"{value:.10g}") for value in row] for row in rows]).reshape(-1, 4)
        kept = np.flatnonzero((corners[:, :2] < corners[:, 2:]).all(1)).tolist()
        if stem not in self._sheets:  # an image of several splits has one annotation file
            self._sheets.add(stem)
            for i in sorted(set(range(len(corners))) - set(kept)):
                self._written.add(TOO_THIN, image.box_text(i, self._names))
            if image.has_outlines():
                self._written.add(NO_OUTLINES.format("Pascal VOC"), image.source)
            # XML readers turn a carriage return into a line feed, unless it is written as its number.
            text = ET.tostring(self._sheet(image, corners, kept), "unicode").replace("\r", "&#13;")
            save_texts([(self._root / "Annotations" / f"{stem}.xml", text + "\n")])
        return len(kept)

    def _sheet(self, image: ImageEntry, corners: np.ndarray, kept: list[int]) -> ET.Element:
        height, width = image.size
        sheet = ET.Element("annotation")
        _leaves(sheet, folder="JPEGImages", filename=image.name)
        _leaves(ET.SubElement(sheet, "size"), width=str(width), height=str(height), depth="3")
        _leaves(sheet, segmented="0")
        for i in kept:
            item = ET.SubElement(sheet, "object")
            name, crowd = self._names[image.labels[i]], image.crowds[i]
            _leaves(item, name=name, pose="Unspecified", truncated="0", difficult=str(int(crowd)))
            numbers = (f"{value:.10g}" for value in corners[i].tolist())
            _leaves(ET.SubElement(item, "bndbox"), **dict(zip(("xmin", "ymin", "xmax", "ymax"), numbers)))
        ET.indent(sheet)
        return sheet

    def final_files(self) -> Iterator[tuple[Path, str]]:
        for split, stems in self._lists.items():
            yield self._root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems)


def _leaves(element: ET.Element, **texts: str) -> None:
    for tag, text in texts.items():
        ET.SubElement(element, tag).text = text
