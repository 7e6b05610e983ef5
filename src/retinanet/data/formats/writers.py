"""A data set written anew in any of the layouts that are read: images copied, annotations as that layout has them.

Other tools should read the same from it: Pascal VOC's pixels count from 1, YOLO's numbers are fractions of the upright
image, COCO's category ids stay. What a layout cannot hold is left out and reported. Images come first and what
makes a data set of them comes last, so that an interrupted copy is not taken for a whole one.
"""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retinanet.common.atomic_files import replacing, require_new
from retinanet.common.errors import RequestError
from retinanet.data import image_io
from retinanet.data.dataset import DetectionData, plain_name
from retinanet.data.formats import coco, image_copies, yolo
from retinanet.data.validate import Progress

Places = NDArray[np.int64]
Chosen = dict[str, tuple[DetectionData, Places]]
EVERY = 64  # images between two reports of progress
NO_XML = "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
SUFFIX = f"\\.(?=({'|'.join(sorted(suffix[1:] for suffix in image_io.SUFFIXES))})$)"
NOT_KEPT = "images whose boxes have areas of outlines, which {} does not have"


@dataclass
class Written:
    """What was written, and what of it is not as it was in the data set."""

    folder: Path
    images: dict[str, int] = field(default_factory=dict)
    """Of each split, by its name in the copy."""
    boxes: dict[str, int] = field(default_factory=dict)
    """Of each split, crowd regions among them."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    """Everything left out, renamed or changed, by its kind."""

    def add(self, kind: str, example: str) -> None:
        self.changes.setdefault(kind, []).append(example)

    def lines(self, limit: int = 3) -> list[str]:
        """One line for each kind of change, with its first ``limit`` examples."""
        lines = []
        for kind, examples in self.changes.items():
            more = [f"and {len(examples) - limit} more"] if len(examples) > limit else []
            lines.append(f"{kind} ({len(examples)}): {'; '.join(examples[:limit] + more)}")
        return lines


@dataclass(frozen=True)
class _Image:
    """One image of the copy with its n boxes."""

    split: str
    name: str  # of the copied file
    source: str  # as messages show it
    ident: int
    size: tuple[int, int]  # height, width
    boxes: NDArray[np.float64]  # (n, 4) the shortest decimals that are the same in float32
    labels: list[int]
    crowds: list[bool]
    areas: list[float]

    def outlined(self) -> bool:
        """Whether an area is another than its box's."""
        plain = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], 1)
        return bool((np.abs(plain - self.areas) > 1e-3 * plain).any())


class _Writer(Protocol):
    """A layout: where things lie, and what is written about them."""

    by_stem: bool  # annotations are found by the image's name without its suffix, and that must be a known one
    unsafe: str  # a pattern of what cannot be in the name

    def place(self, split: str, name: str) -> Path:
        """Where an image lies."""

    def add(self, image: _Image) -> int:
        """Returns how many boxes were written."""

    def last(self) -> Iterator[tuple[Path, str]]:
        """The files that make a data set of it all: paths and texts."""


class _Coco:
    by_stem, unsafe = False, "(?!)"

    def __init__(self, root: Path, classes: dict[str, int], chosen: Chosen, written: Written) -> None:
        self._root, self._ids = root, list(classes.values())
        self._categories = [{"id": ident, "name": name} for name, ident in classes.items()]
        self._images: dict[str, list[str]] = {split: [] for split in chosen}
        self._boxes: dict[str, list[str]] = {split: [] for split in chosen}
        for split in chosen:
            if coco.split_name(self._json(split)) != split:
                raise RequestError(f"{split!r} is no name for a split in COCO's layout, where it would read otherwise")

    def _json(self, split: str) -> Path:
        return self._root / "annotations" / f"instances_{split}.json"

    def place(self, split: str, name: str) -> Path:
        return self._root / split / name

    def add(self, image: _Image) -> int:
        height, width = image.size
        entry = {"id": image.ident, "file_name": image.name, "height": height, "width": width}
        self._images[image.split].append(json.dumps(entry))
        boxes = self._boxes[image.split]
        corners, sides = image.boxes[:, :2], _sides(image.boxes)
        for box, label, crowd, area in zip(
            np.concatenate([corners, sides], 1).tolist(), image.labels, image.crowds, image.areas
        ):
            annotation = {"id": len(boxes) + 1, "image_id": image.ident, "category_id": self._ids[label]}
            boxes.append(json.dumps(annotation | {"bbox": box, "area": area, "iscrowd": int(crowd)}))
        return len(image.labels)

    def last(self) -> Iterator[tuple[Path, str]]:
        for split, images in self._images.items():
            parts = {
                "images": images,
                "annotations": self._boxes[split],
                "categories": map(json.dumps, self._categories),
            }
            text = ",\n".join(f'"{key}": [\n' + ",\n".join(rows) + "]" for key, rows in parts.items())
            yield self._json(split), f"{{{text}}}\n"


class _Yolo:
    by_stem, unsafe = True, r"^\."  # hidden files are passed over

    def __init__(self, root: Path, classes: dict[str, int], chosen: Chosen, written: Written) -> None:
        self._root, self._names, self._splits, self._written = root, list(classes), list(chosen), written

    def place(self, split: str, name: str) -> Path:
        return self._root / "images" / split / name

    def add(self, image: _Image) -> int:
        height, width = image.size
        lines: dict[str, None] = {}
        for (x1, y1, x2, y2), label, crowd in zip(image.boxes.tolist(), image.labels, image.crowds):
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            line = " ".join([str(label), *(f"{value:.10g}" for value in values)])
            where = f"{image.source}: {self._names[label]} {x1:g} {y1:g} {x2:g} {y2:g}"
            if crowd:
                self._written.add("crowd regions left out, which YOLO does not have", where)
            elif line in lines:  # which readers take for a slip
                self._written.add("boxes left out that are there twice", where)
            else:
                lines[line] = None
        if image.outlined():
            self._written.add(NOT_KEPT.format("YOLO"), image.source)
        labels = yolo.label_file(Path("images", image.split, image.name))
        _save([(self._root / labels, "".join(f"{line}\n" for line in lines))])
        return len(lines)

    def last(self) -> Iterator[tuple[Path, str]]:
        import yaml

        content: dict[str, Any] = {split: f"images/{split}" for split in self._splits}
        content |= {"nc": len(self._names), "names": self._names}
        yield self._root / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)


class _Voc:
    by_stem = True
    # Lists of images are read word by word, and names in them may have a suffix or not.
    unsafe = rf"^\.|\s|\ufeff|{NO_XML}|{SUFFIX}"

    def __init__(self, root: Path, classes: dict[str, int], chosen: Chosen, written: Written) -> None:
        self._root, self._names, self._written = root, list(classes), written
        self._lists: dict[str, list[str]] = {split: [] for split in chosen}
        self._sheets: set[str] = set()
        named = {data.class_names[i] for data, places in chosen.values() for i in _labels(data, places)}
        if not named:
            raise RequestError("Pascal VOC's layout names classes only at their boxes, and there is no box at all")
        for name in classes:
            if name not in named:
                written.add("classes without a box, which Pascal VOC does not name", name)
            elif not name or re.search(NO_XML, name):
                raise RequestError(f"Pascal VOC's XML cannot hold the class name {name!r}: rename it in the data set")

    def place(self, split: str, name: str) -> Path:
        return self._root / "JPEGImages" / name

    def add(self, image: _Image) -> int:
        stem = Path(image.name).stem
        height, width = image.size
        sheet = ET.Element("annotation")
        _leaves(sheet, folder="JPEGImages", filename=image.name)
        _leaves(ET.SubElement(sheet, "size"), width=str(width), height=str(height), depth="3")
        _leaves(sheet, segmented="0")
        count, is_new = 0, stem not in self._sheets
        for (x1, y1, x2, y2), label, crowd in zip(image.boxes.tolist(), image.labels, image.crowds):
            corners = [f"{value:.10g}" for value in (x1 + 1, y1 + 1, x2, y2)]
            low_x, low_y, high_x, high_y = map(float, corners)
            if low_x >= high_x or low_y >= high_y:
                if is_new:
                    where = f"{image.source}: {self._names[label]} {x1:g} {y1:g} {x2:g} {y2:g}"
                    kind = "boxes of one pixel or less left out, which Pascal VOC does not tell from points"
                    self._written.add(kind, where)
                continue
            thing = ET.SubElement(sheet, "object")
            name = self._names[label]
            _leaves(thing, name=name, pose="Unspecified", truncated="0", difficult=str(int(crowd)))
            _leaves(ET.SubElement(thing, "bndbox"), **dict(zip(("xmin", "ymin", "xmax", "ymax"), corners)))
            count += 1
        if is_new:
            if image.outlined():
                self._written.add(NOT_KEPT.format("Pascal VOC"), image.source)
            self._sheets.add(stem)
            ET.indent(sheet)
            # XML readers make a line feed of a carriage return, unless it is written as its number.
            text = ET.tostring(sheet, "unicode").replace("\r", "&#13;")
            _save([(self._root / "Annotations" / f"{stem}.xml", text + "\n")])
        self._lists[image.split].append(stem)
        return count

    def last(self) -> Iterator[tuple[Path, str]]:
        for split, stems in self._lists.items():
            yield self._root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems)


_WRITERS: dict[str, Callable[[Path, dict[str, int], Chosen, Written], _Writer]] = {
    "coco": _Coco,
    "yolo": _Yolo,
    "voc": _Voc,
}
FORMATS = tuple(_WRITERS)


def write(
    folder: str | Path,
    layout: str,
    splits: Mapping[str, DetectionData | tuple[DetectionData, Places]],
    on_progress: Progress | None = None,
) -> Written:
    """Write a data set.

    All splits as they are: ``write(new, "coco", {name: open_data(old, name) for name in splits(old)})``. One list that
    :func:`retinanet.analysis.splitting.split` divided:
    ``write(new, "yolo", {"train": (data, train), "val": (data, val)})``.

    Images are copied byte for byte, under their own names unless two are the same or the layout has no such name.
    Where the data set's boxes are those of the image before EXIF turns it, the copy has no EXIF orientation.

    Args:
        folder: new or empty.
        layout: one of :data:`FORMATS`.
        splits: for each split its images: a data set, or a data set and the places (n,) of the images wanted.
        on_progress: called with (images written, images in all) now and then.

    Raises:
        RequestError: the folder holds something, or the layout cannot hold the splits or class names.
        WorkError: a file cannot be read or written, as on a full disk; what is in the folder then is no data set.
    """
    root = Path(folder)
    if layout not in _WRITERS:
        raise RequestError(f"there is no layout {layout}: choose one of {', '.join(FORMATS)}")
    require_new(root, "")
    chosen = {name: part if isinstance(part, tuple) else (part, np.arange(len(part))) for name, part in splits.items()}
    for name, (data, places) in chosen.items():
        if not len(places):
            raise RequestError(f"the split {name} of {data.root} would have no images")
        if name != Path(name).name or name.startswith("."):
            raise RequestError(f"{name!r} is no name for a split: files are named after it")
    written = Written(root)
    if layout == "yolo":
        chosen = _yolo_splits(chosen, written)
    classes = _classes([data for data, _ in chosen.values()], written)
    writer = _WRITERS[layout](root, classes, chosen, written)
    names = _names(chosen, writer, written)
    label_of = {name: label for label, name in enumerate(classes)}
    total, done, copied = sum(map(len, names.values())), 0, set[Path]()
    for split, (data, places) in chosen.items():
        ids = [data.image_id(i) for i in places]
        if len(set(ids)) < len(ids):
            ids = list(range(1, len(ids) + 1))
        written.images[split], written.boxes[split] = len(ids), 0
        for i, ident, name in zip(places.tolist(), ids, names[split]):
            target = writer.place(split, name)
            if target not in copied:
                for change in image_copies.copy(data, i, target, writer.by_stem):
                    written.add(change, data.image_name(i))
                copied.add(target)
            boxes = data.boxes(i).astype("U").astype(np.float64)
            labels = [label_of[data.class_names[label]] for label in data.labels(i)]
            crowds, areas = data.crowd(i).tolist(), data.areas(i).tolist()
            written.boxes[split] += writer.add(
                _Image(split, name, data.image_name(i), ident, data.size(i), boxes, labels, crowds, areas)
            )
            done += 1
            if on_progress and (done == total or done % EVERY == 0):
                on_progress(done, total)
    _save(writer.last())
    return written


def _yolo_splits(chosen: Chosen, written: Written) -> Chosen:
    """The splits by the names that YOLO has for them; one whose images are in others, as trainval's, is left out."""
    called = {name: name if name in yolo.SPLITS else plain_name(name) for name in chosen}
    kept = {called[name]: part for name, part in chosen.items() if called[name] in yolo.SPLITS}
    there = {data.path(i) for data, places in kept.values() for i in places}
    for name, (data, places) in chosen.items():
        if called[name] in kept and list(called.values()).count(called[name]) > 1:
            raise RequestError(f"more than one of the splits {', '.join(chosen)} would be YOLO's {called[name]}")
        if called[name] not in kept:
            if any(data.path(i) not in there for i in places):
                raise RequestError(f"YOLO has no split {name}: it has train, val and test")
            written.add("splits left out that YOLO does not have, their images being in others", name)
    return kept


def _classes(parts: Sequence[DetectionData], written: Written) -> dict[str, int]:
    """All classes with their ids; where splits have one id for two classes, the later class gets a new one."""
    classes: dict[str, int] = {}
    new = max(ident for data in parts for ident in data.category_ids) + 1
    for data in parts:
        for name, ident in zip(data.class_names, data.category_ids):
            if name not in classes and ident in classes.values():
                written.add("class ids changed that splits have for different classes", f"{name}: {ident} -> {new}")
                ident, new = new, new + 1
            classes.setdefault(name, ident)
    return classes


def _labels(data: DetectionData, places: Places) -> NDArray[np.int32]:
    """The labels that boxes of these images have, each once."""
    return np.unique(data.annotations.labels[np.isin(data.annotations.images, places)])


def _names(chosen: Chosen, writer: _Writer, written: Written) -> dict[str, list[str]]:
    """For each split the names of its copies.

    Names differ by more than their case, as not all file systems tell A from a. An image that lies in several splits
    has one copy where the layout has one folder for all, and the splits have the same boxes for it.
    """

    def key(name: str) -> str:
        return (Path(name).stem if writer.by_stem else name).casefold()

    wanted = {split: [_wanted(data, i, writer) for i in places.tolist()] for split, (data, places) in chosen.items()}
    folders: dict[Path, dict[str, object]] = {}  # for each name in it whose it is; None: it is only wanted
    for split, ways in wanted.items():
        folder = folders.setdefault(writer.place(split, "x").parent, {})
        folder.update((key(name), None) for name, _ in ways)
    names: dict[str, list[str]] = {}
    for split, (data, places) in chosen.items():
        folder, here = folders[writer.place(split, "x").parent], set[str]()
        names[split] = []
        for i, (first, second) in zip(places.tolist(), wanted[split]):
            classes = tuple(data.class_names[label] for label in data.labels(i))
            whose = (data.path(i), classes, data.boxes(i).tobytes(), data.crowd(i).tobytes())
            stem, suffix = Path(second).stem, Path(second).suffix
            for name in itertools.chain([first, second], (f"{stem}_{n}{suffix}" for n in itertools.count(2))):
                free = key(name) not in folder or (name == first and folder[key(name)] is None)
                if (free or folder[key(name)] == whose) and key(name) not in here:
                    break
            folder[key(name)] = whose
            here.add(key(name))
            names[split].append(name)
            if name != data.path(i).name:
                written.add("images renamed", f"{data.image_name(i)} -> {name}")
    return names


def _wanted(data: DetectionData, index: int, writer: _Writer) -> tuple[str, str]:
    """The image's own name, as far as the layout has it, and one with its folder for where the first is taken."""
    path = data.path(index)
    known = not writer.by_stem or path.suffix.lower() in image_io.SUFFIXES
    stem, suffix = (path.stem if known else path.name), image_copies.content(data, index, writer.by_stem)[0]
    first, second = (
        re.sub(writer.unsafe, "_", text, flags=re.IGNORECASE) + suffix for text in (stem, f"{path.parent.name}_{stem}")
    )
    return first, second


def _sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) width and height with few digits, such that corner + sides is the same float32, and not beyond."""
    low, high = boxes[:, :2], boxes[:, 2:]
    exact = high - low
    exact = np.where(low + exact > high, np.nextafter(exact, 0), exact)
    short = exact.astype(np.float32).astype("U").astype(np.float64)
    same = ((low + short).astype(np.float32) == high.astype(np.float32)) & (low + short <= high)
    return np.where(same, short, exact)


def _leaves(element: ET.Element, **texts: str) -> None:
    for tag, text in texts.items():
        ET.SubElement(element, tag).text = text


def _save(files: Iterator[tuple[Path, str]] | list[tuple[Path, str]]) -> None:
    """Write texts; they get their names when all are whole."""
    with ExitStack() as stack:
        for path, text in files:
            place = stack.enter_context(replacing(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8", newline="\n")
