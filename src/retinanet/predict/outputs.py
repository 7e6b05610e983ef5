"""What was found in many images, as files for other programs, written image by image.

Each writer is a context: entering opens the file beside its place, leaving finishes it, so that an interrupted run
keeps what it found.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from retinanet.common.atomic_files import replacing
from retinanet.common.printable import printable
from retinanet.inference.detections import Detections


class Writer(Protocol):
    """What a format offers."""

    path: Path

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def add(self, image: Path, name: str, size: tuple[int, int], found: Detections) -> None:
        """One image: its file, its name in the output folder, (height, width), what was found."""

    def problems(self, unreadable: Sequence[tuple[str, str]]) -> None:
        """Files that could not be read, and why; told last."""


class _OneFile:
    """A file that gets its name when it is closed, after an error too: what is in it is sound."""

    name = ""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / self.name
        self.class_names = class_names
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        place = self._stack.enter_context(replacing(self.path))
        # File names may hold bytes that are no UTF-8; they are kept as they are.
        file = open(place, "w", newline="", encoding="utf-8", errors="surrogateescape")
        self.file = self._stack.enter_context(file)
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._stack:
            self.end()

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def problems(self, unreadable: Sequence[tuple[str, str]]) -> None: ...


class CocoFile(_OneFile):
    """detections.json: a COCO annotation file whose annotations have scores.

    Annotation tools open it as it is. Category ids count from 1 in the order of the labels; "unreadable" lists the
    files that could not be read.
    """

    name = "detections.json"

    def begin(self) -> None:
        categories = [{"id": label, "name": name} for label, name in enumerate(self.class_names, 1)]
        self.file.write('{"categories": ' + json.dumps(categories) + ',\n"annotations": [')
        self._images: list[str] = []
        self._unreadable: list[dict[str, str]] = []
        self._count = 0

    def add(self, image: Path, name: str, size: tuple[int, int], found: Detections) -> None:
        entry = {"id": len(self._images) + 1, "file_name": str(image), "height": size[0], "width": size[1]}
        for record in found.to_coco(len(self._images) + 1, range(1, len(self.class_names) + 1)):
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


def _no_formula(text: str) -> str:
    return (
        f"'{text}"
        if text.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
        else text
    )


class CsvFile(_OneFile):
    """detections.csv: one row a detection; x1 y1 x2 y2 in pixels of the image.

    Spreadsheets calculate what begins with = + - @ or a tab. A class name that does is written behind an apostrophe, a
    relative path behind ``./``, which is the same path.
    """

    name = "detections.csv"

    def begin(self) -> None:
        self._rows = csv.writer(self.file)
        self._rows.writerow(["image", "name", "score", "x1", "y1", "x2", "y2"])

    def add(self, image: Path, name: str, size: tuple[int, int], found: Detections) -> None:
        file = str(image) if _no_formula(str(image)) == str(image) else f"./{image}"
        for label, score, box in zip(found.names, found.scores.tolist(), found.boxes.tolist(), strict=True):
            self._rows.writerow([file, _no_formula(label), f"{score:.6g}", *(f"{v:.2f}" for v in box)])


class YoloFolder:
    """labels/: one text file an image, a line a detection: label, centre, width and height in units of the image's
    sides, score. classes.txt beside it has the class names in the order of the labels, each in a line: line breaks and
    other control characters in them are escaped."""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / "labels"
        self.class_names = class_names

    def __enter__(self) -> Self:
        self._write(self.path.parent / "classes.txt", [printable(name) for name in self.class_names])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def add(self, image: Path, name: str, size: tuple[int, int], found: Detections) -> None:
        height, width = size
        lines = []
        for label, score, (x1, y1, x2, y2) in zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
        ):
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]))
        self._write((self.path / name).with_suffix(".txt"), lines)

    def problems(self, unreadable: Sequence[tuple[str, str]]) -> None: ...

    def _write(self, path: Path, lines: Sequence[str]) -> None:
        with replacing(path) as place:
            path.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


FORMATS: dict[str, Callable[[Path, Sequence[str]], Any]] = {"json": CocoFile, "csv": CsvFile, "yolo": YoloFolder}
"""Constructors by name: (output folder, class names) -> a :class:`Writer`."""
