"""Result files with the detections of many images, for other programs.

Each writer is a context: entering opens a temporary file beside the final path, leaving completes it. So an interrupted
run keeps its detections.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from retinanet.common.atomic_files import replacing, require_new
from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.inference.detection_rows import COLUMNS, csv_cells
from retinanet.inference.detections import Detections
from retinanet.predict.inputs import Sources


class Writer:
    """One format of result files."""

    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None: ...

    def add(self, image: Path, name: str, size: tuple[int, int], detections: Detections) -> None:
        """Add one image: its file, its name in the output folder, (height, width), its detections."""
        raise NotImplementedError

    def problems(self, unreadable: Sequence[tuple[str, str]]) -> None:
        """Add the files that could not be read, and why; called last."""


class _OneFile(Writer):
    """A file that gets its name when it is closed, also after an error: it is valid then."""

    name = ""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / self.name
        self.class_names = class_names
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        temporary = self._stack.enter_context(replacing(self.path))
        # File names may hold bytes that are not UTF-8; they are kept unchanged.
        file = open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape")
        self.file = self._stack.enter_context(file)
        self.begin()
        return self

    def __exit__(self, *error: Any) -> None:
        with self._stack:
            self.end()

    def begin(self) -> None: ...

    def end(self) -> None: ...


class CocoFile(_OneFile):
    """detections.json: a COCO annotation file whose annotations have scores.

    Annotation tools can open it. Category ids count from 1 in the order of the labels; "unreadable" lists the
    files that could not be read.
    """

    name = "detections.json"

    def begin(self) -> None:
        categories = [{"id": label, "name": name} for label, name in enumerate(self.class_names, 1)]
        self.file.write('{"categories": ' + json.dumps(categories) + ',\n"annotations": [')
        self._images: list[str] = []
        self._unreadable: list[dict[str, str]] = []
        self._count = 0

    def add(self, image: Path, name: str, size: tuple[int, int], detections: Detections) -> None:
        entry = {"id": len(self._images) + 1, "file_name": str(image), "height": size[0], "width": size[1]}
        for record in detections.to_coco(len(self._images) + 1, range(1, len(self.class_names) + 1)):
            self._count += 1
            _, _, width, height = record["bbox"]
            record |= {"id": self._count, "area": width * height, "iscrowd": 0}
            self.file.write(("," if self._count > 1 else "") + "\n" + json.dumps(record))
        self._images.append(json.dumps(entry))

    def problems(self, unreadable: Sequence[tuple[str, str]]) -> None:
        self._unreadable = [{"file_name": name, "reason": reason} for name, reason in unreadable]

    def end(self) -> None:
        self.file.write('],\n"images": [\n' + ",\n".join(self._images))
        self.file.write('],\n"unreadable": ' + json.dumps(self._unreadable) + "}\n")


class CsvFile(_OneFile):
    """detections.csv: one row for each detection; x1 y1 x2 y2 in pixels of the image.

    Spreadsheets run text that begins with = + - @ or a tab as a formula. Such a class name gets an apostrophe in front,
    such a path ``./``, which is the same path.
    """

    name = "detections.csv"

    def begin(self) -> None:
        self._rows = csv.writer(self.file)
        self._rows.writerow(COLUMNS)

    def add(self, image: Path, name: str, size: tuple[int, int], detections: Detections) -> None:
        self._rows.writerows(csv_cells(str(image), row) for row in detections.rows())


class YoloFolder(Writer):
    """labels/: one text file for each image, one line for each detection.

    A line has the label, centre, width and height divided by the image's width and height, and the score. classes.txt
    beside the folder has one class name in each line, in the order of the labels; control characters are escaped.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / "labels"
        self.class_names = class_names

    def __enter__(self) -> Self:
        self._write(self.path.parent / "classes.txt", [printable(name) for name in self.class_names])
        return self

    def add(self, image: Path, name: str, size: tuple[int, int], detections: Detections) -> None:
        height, width = size
        lines = []
        for _, label, score, (x1, y1, x2, y2) in detections.rows():
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]))
        self._write((self.path / name).with_suffix(".txt"), lines)

    def _write(self, path: Path, lines: Sequence[str]) -> None:
        with replacing(path) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


FORMATS: dict[str, Callable[[Path, Sequence[str]], Writer]] = {"json": CocoFile, "csv": CsvFile, "yolo": YoloFolder}
"""Constructors by name: (output folder, class names) -> writer."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written for images and videos.

    Raises:
        RequestError: a format does not exist.
    """

    draw: bool = True
    """Whether to write images and videos with their detections drawn."""
    formats: Sequence[str] = ("json",)
    """Result files of images, keys of ``FORMATS``. Videos always have lines of JSON."""
    overwrite: bool = False
    """Write into a folder that has files: those of the same name are replaced, whole, and all others stay."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise RequestError(f"there is no format {unknown[0]}: give {', '.join(FORMATS)}")

    def require_folder(self, folder: Path) -> None:
        """Check the output folder.

        Raises:
            RequestError: it is not empty, or it is a file.
        """
        if not self.overwrite:
            require_new(folder, "with --output, or write into this one with --overwrite")
        elif folder.exists() and not folder.is_dir():
            raise RequestError(f"{folder} is a file: name a folder with --output")

    def keep_sources(self, folder: Path, found: Sources) -> None:
        """
        Raises:
            RequestError: a drawn image or video would replace the one that it is made from.
        """
        if not self.draw:
            return
        sources = {path.resolve() for path, _ in found.images}
        sources |= {Path(video.source).resolve() for video in found.videos if video.kind == "file"}
        drawn = [folder / name for _, name in found.images] + [folder / f"{video.name}.mp4" for video in found.videos]
        if (own := next((path for path in drawn if path.resolve() in sources), None)) is not None:
            raise RequestError(f"{own} would replace the source of that name: name another folder with --output")
