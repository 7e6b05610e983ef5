"""A data set, opened: one split of labelled images behind a folder, a YAML or a JSON of any known layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retinanet.common.errors import RequestError, WorkError
from retinanet.common.printable import printable
from retinanet.data import image_io
from retinanet.data.faults import Report
from retinanet.data.formats import coco, voc, yolo
from retinanet.data.formats.listing import Layout, Listing, shown
from retinanet.data.validate import Checked, Progress, check, require_some

T = TypeVar("T")
SAME_SPLIT = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
LONGEST = 1000  # characters of a class name, which stands beside each of its detections
KNOWN = (
    "COCO (annotations/*.json, or train/_annotations.coco.json as from Roboflow), "
    "Pascal VOC (JPEGImages, Annotations, ImageSets/Main) or "
    "YOLO (a YAML with train, val and names; obj.data; classes.txt beside images)"
)


def spread(total: int, limit: int | None) -> NDArray[np.int64]:
    """At most ``limit`` places of ``total``, evenly spread; all of them for None."""
    if limit is None or limit >= total:
        return np.arange(total)
    return np.arange(limit) * total // limit


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items, evenly spread."""
    return [items[i] for i in spread(len(items), limit)]


@dataclass(frozen=True)
class Annotations:
    """All annotations of N images with M boxes as flat arrays, the boxes in the order of the images."""

    sizes: NDArray[np.int32]  # (N, 2) height, width of the decoded image
    offsets: NDArray[np.int64]  # (N + 1,) where each image's boxes start
    boxes: NDArray[np.float32]  # (M, 4)
    labels: NDArray[np.int32]  # (M,)
    crowds: NDArray[np.bool_]  # (M,)

    @property
    def images(self) -> NDArray[np.int64]:
        """(M,) the image that each box lies in."""
        return np.repeat(np.arange(len(self.sizes)), np.diff(self.offsets))


class DetectionData:
    """Images with boxes, all annotations in flat arrays (a million boxes take 29 MB, shared by forked processes).

    Boxes are float32 x1 y1 x2 y2 in pixels of the decoded image; labels count from 0 in the order of
    ``class_names``. Images and boxes that were left out do not appear; ``report`` says which and why.

    Attributes:
        root: the DATA argument. kind: the layout's name. split: the split's name on disk.
        class_names: one name a label. category_ids: the data set's own id of each class.
        report: what was found wrong.
    """

    def __init__(
        self,
        checked: Checked,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        report: Report,
        root: Path,
        kind: str,
        split: str,
        box_name: Callable[[int, int], str] | None = None,
    ) -> None:
        self.root, self.kind, self.split, self.report = root, kind, split, report
        self.class_names, self.category_ids = tuple(class_names), tuple(category_ids)
        encoded = [path.encode("utf-8", "surrogateescape") for path in checked.paths]
        self._paths = np.frombuffer(b"".join(encoded), np.uint8)
        self._path_ends = np.cumsum([0, *map(len, encoded)])
        self._ids, self._sizes, self._exif = checked.ids, checked.sizes, checked.exif
        self._offsets, self._boxes, self._labels = checked.offsets, checked.boxes, checked.labels
        self._crowds, self._areas = checked.crowds, checked.areas
        self._name = box_name
        if box_name is not None:
            self._places, self._references = checked.places, checked.references

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.root} {self.split}: {len(self)} images, {self.num_boxes} boxes>"

    @property
    def num_boxes(self) -> int:
        return len(self._boxes)

    @property
    def nbytes(self) -> int:
        """Memory of all annotations and paths."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    @property
    def annotations(self) -> Annotations:
        """Views, not to be written to."""
        return Annotations(self._sizes, self._offsets, self._boxes, self._labels, self._crowds)

    def path(self, index: int) -> Path:
        start, end = self._path_ends[index], self._path_ends[index + 1]
        return Path(self._paths[start:end].tobytes().decode("utf-8", "surrogateescape"))

    def path_names(self) -> list[str]:
        """The paths of all images."""
        whole, ends = self._paths.tobytes(), self._path_ends.tolist()
        return [whole[start:end].decode("utf-8", "surrogateescape") for start, end in pairwise(ends)]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels as :meth:`read` gives them."""
        height, width = self._sizes[index]
        return int(height), int(width)

    def follows_exif(self, index: int) -> bool:
        """Whether :meth:`read` turns the image as its EXIF says; not where its boxes are those before the turn."""
        return bool(self._exif[index])

    def upright(self) -> NDArray[np.bool_]:
        """(N,) bool: the images that are higher than wide."""
        return self._sizes[:, 0] > self._sizes[:, 1]

    def image_id(self, index: int) -> int:
        """COCO's image id; the file name where file names are numbers; else a running number from 1."""
        return int(self._ids[index])

    def _slice(self, index: int) -> slice:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        return slice(int(self._offsets[index]), int(self._offsets[index + 1]))

    def boxes(self, index: int) -> NDArray[np.float32]:
        """(n, 4) float32; a view, not to be written to."""
        return self._boxes[self._slice(index)]

    def labels(self, index: int) -> NDArray[np.int64]:
        """(n,) int64 from 0."""
        return self._labels[self._slice(index)].astype(np.int64)

    def crowd(self, index: int) -> NDArray[np.bool_]:
        """(n,) bool: regions to ignore, COCO's iscrowd and Pascal VOC's difficult."""
        return self._crowds[self._slice(index)]

    def areas(self, index: int) -> NDArray[np.float64]:
        """(n,) float64 square pixels: COCO's segmented area where given, else the box's."""
        return self._areas[self._slice(index)]

    def counts(self) -> list[int]:
        """Boxes of each class, crowd regions not counted."""
        return np.bincount(self._labels[~self._crowds], minlength=len(self.class_names)).tolist()

    def read(self, index: int) -> Tensor:
        """(3, H, W) uint8 RGB.

        Raises:
            WorkError: the image was there when the data set was opened and cannot be decoded now.
        """
        try:
            image = image_io.read(self.path(index), exif=bool(self._exif[index]))
        except image_io.ImageError as error:
            raise WorkError(f"{error}; remove or replace it in the data set {self.root}") from error
        height, width = self.size(index)
        if tuple(image.shape[1:]) != (height, width):
            raise WorkError(f"the image {self.path(index)} changed its size since the data set was opened")
        return image

    def box_name(self, place: int) -> str:
        """Where a person finds the box at this place of :attr:`annotations`: a file and line, or an annotation id.

        Only the image and the box's number in it where the data was opened without ``references``.
        """
        index = int(np.searchsorted(self._offsets, place, "right")) - 1
        if not 0 <= place < self.num_boxes:
            raise IndexError(f"box {place} of {self.num_boxes}")
        if self._name is None:
            return f"{self.image_name(index)} box {place - int(self._offsets[index]) + 1}"
        return self._name(int(self._places[index]), int(self._references[place]))

    def image_name(self, index: int) -> str:
        """The image's path as messages show it: relative to the data set where it lies inside."""
        return shown(self.path(index), self.root if self.root.is_dir() else self.root.parent)

    def label_map_lines(self) -> list[str]:
        """How the data set's ids map onto labels, one line a class."""
        width = max(len(str(ident)) for ident in self.category_ids)
        rows = zip(self.category_ids, self.class_names, self.counts())
        return [f"id {ident:>{width}} -> label {i}: {name} ({n} boxes)" for i, (ident, name, n) in enumerate(rows)]


def find_layout(root: str | Path) -> Layout:
    """Recognise the layout of a folder, YAML or JSON by what lies in it.

    Raises:
        RequestError: it is not there, empty, or of no known layout.
    """
    root = Path(root)
    if not root.exists():
        if root.is_symlink():
            raise RequestError(f"the data set {root} is a link in a circle or to a folder that is not there")
        raise RequestError(f"there is no data set {root}: no such file or folder")
    if root.is_file():
        suffix = root.suffix.lower()
        finder = {".json": coco.find, ".yaml": yolo.find, ".yml": yolo.find, ".data": yolo.find}.get(suffix)
        if finder is None:
            raise RequestError(f"{root} is no data set: give a folder, a YOLO YAML or a COCO JSON")
        layout = finder(root)
        assert layout is not None
        return layout
    if not root.is_dir():
        raise RequestError(f"{root} is neither a file nor a folder")
    layout = _recognise(root)
    if layout is not None:
        return layout
    entries = sorted(path.name + "/" * path.is_dir() for path in root.iterdir() if not path.name.startswith("."))
    if not entries:
        raise RequestError(f"the data set {root} is an empty folder")
    lacking = coco.without_images(root)
    hint = f"; {shown(lacking, root)} is not a COCO detection file: it has no list 'images'" if lacking else ""
    for inner in sorted(path for path in root.iterdir() if path.is_dir())[:20]:
        try:
            layout = _recognise(inner)
        except RequestError:
            continue
        if layout is not None:
            hint = f"; {inner} looks like {layout.kind}: give that folder"
            break
    listed = ", ".join(entries[:6]) + (", …" if len(entries) > 6 else "")
    raise RequestError(f"{root} has no layout known here, which are {KNOWN}; it holds {listed}{hint}")


def _recognise(root: Path) -> Layout | None:
    """The layout of a folder. A YOLO description that can be used says more than what else lies there."""
    try:
        layout = voc.find(root) or coco.find(root)
    except RequestError:
        layout = yolo.find_usable(root)
        if layout is None:
            raise
        return layout
    return yolo.find(root) if layout is None else yolo.find_usable(root) or layout


def splits(root: str | Path) -> dict[str, int]:
    """The splits of a data set by their names on disk, with the number of images that each lists."""
    return {name: count() for name, count in find_layout(root).counts.items()}


def open_data(
    root: str | Path,
    split: str,
    *,
    strict: bool = False,
    class_names: Sequence[str] | None = None,
    on_progress: Progress | None = None,
    references: bool = False,
) -> DetectionData:
    """Open and check one split of a data set.

    Args:
        root: a folder in COCO, Pascal VOC or YOLO layout, a YOLO YAML, or a COCO JSON.
        split: train, val, test, trainval, …; ``val``, ``valid`` and ``validation`` are the same.
        strict: refuse any fault, instead of repairing what is harmless and leaving out the rest.
        class_names: the classes of a trained model: labels become places in this list, mapped by name.
        on_progress: called with (images checked, images in all) now and then.
        references: keep what :meth:`DetectionData.box_name` needs to name file and line (8 bytes a box, and the names
            of all files).

    Raises:
        RequestError: the data cannot be used, or ``strict`` found a fault; one line with file and place.
    """
    root = Path(root)
    layout = find_layout(root)
    name = _choose(layout, split, root)
    report = Report()
    try:
        listing = layout.read(name, report)
    except RequestError as error:
        if not (reason := report.reason()):
            raise
        raise RequestError(f"{error}; {reason}") from None
    if layout.any_split:
        report.notes.append(f"{root} is one list of images, and its name tells no split: it is used for {split} too")
    names, ids = listing.class_names, listing.category_ids
    _require_text(names, root)
    if class_names is not None:
        names, ids = _map_classes(listing, class_names, root, report)
    checked = check(listing, layout.root, report, on_progress)
    where = f"{root}, split {name}," if not layout.any_split else str(root)
    if strict and report.count:
        faults = "; ".join(fault.line() for fault in report.faults.values())
        raise RequestError(f"{where} has {report.count} faults, and strict refuses any: {faults}")
    require_some(checked, listing, where, report)
    box_name = listing.box_name if references else None
    return DetectionData(checked, names, ids, report, root, layout.kind, name, box_name)


def plain_name(split: str) -> str:
    """train2017 -> train, valid -> val."""
    bare = split.lower().rstrip("0123456789").rstrip("_-. ") or split
    return SAME_SPLIT.get(bare, bare)


def _choose(layout: Layout, split: str, root: Path) -> str:
    if split in layout.counts:
        return split
    matching = [name for name in layout.counts if plain_name(name) == plain_name(split)]
    if layout.any_split:
        matching = list(layout.counts)
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise RequestError(f"{root} has several splits that could be {split}: {', '.join(matching)}; name one of them")
    there = [f"{name} ({count()} images)" for name, count in layout.counts.items()]
    test = next((name for name in layout.counts if plain_name(name) == "test"), None)
    hint = ""
    if plain_name(split) == "val" and test:
        hint = f"; to measure on {test}, say --data.val {test} (train) or --split {test} (evaluate)"
    elif plain_name(split) == "val" and len(layout.counts) == 1:
        hint = f"; to part it: retinanet data {root} --convert {layout.kind.lower().split()[-1]} NEW --split 0.8"
    raise RequestError(f"{root} has no split {split}; it has {' and '.join(there)}{hint}")


def _require_text(names: Sequence[str], root: Path) -> None:
    """Halves of surrogate pairs, as JSON can hold them, are in no file of UTF-8: refused before anything is written."""
    for name in names:
        if len(name) > LONGEST:
            raise RequestError(f"{root}: a class name has {len(name)} characters, {printable(name, 50)}: shorten it")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RequestError(f"{root}: the class name {printable(name, 100)} is no text: rename the class") from None


def _map_classes(listing: Listing, wanted: Sequence[str], root: Path, report: Report) -> tuple[list[str], list[int]]:
    """Labels of the listing to places in ``wanted``; boxes of other classes are left out and reported."""
    place = {name: label for label, name in enumerate(wanted)}
    if not any(name in place for name in listing.class_names):
        few = ", ".join(listing.class_names[:5]) + (", …" if len(listing.class_names) > 5 else "")
        model = ", ".join(list(wanted)[:5]) + (", …" if len(wanted) > 5 else "")
        raise RequestError(f"no class of {root} ({few}) is one of the model's ({model}); classes are mapped by name")
    table = np.array([place.get(name, -1) for name in listing.class_names], np.int32)
    labels = np.frombuffer(listing.labels, np.int32)
    mapped = table[labels]
    for i in np.flatnonzero(mapped < 0):
        box, name = int(i), listing.class_names[labels[i]]
        where = listing.box_name(listing.images[box], listing.references[box])
        report.add("class that the model does not know", "left out", f"{where}: {name}")
    listing.keep_boxes(mapped >= 0, mapped)
    own = dict(zip(listing.class_names, listing.category_ids))
    unused = max(listing.category_ids) + 1
    ids = []
    for name in wanted:  # classes that the data set has not get ids that it has not
        ids.append(own.get(name, unused))
        unused += name not in own
    return list(wanted), ids
