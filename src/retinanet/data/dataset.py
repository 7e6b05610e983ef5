"""``open_data``: one split of labelled images, from a folder or file of any known layout."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.common import fields
from retinanet.common.arguments import class_names_of, path_of
from retinanet.common.errors import RequestError, WorkError
from retinanet.common.printable import printable
from retinanet.data import image_io
from retinanet.data.annotations import Annotations
from retinanet.data.faults import Report
from retinanet.data.formats.listing import Layout, Listing, shown
from retinanet.data.formats.split_folders import plain_name
from retinanet.data.layouts import find_layout, other_kinds
from retinanet.data.validate import Progress, check, require_images
from retinanet.ops.iou_assigner import IGNORED

T = TypeVar("T")
LONGEST_NAME = 1000  # characters of a class name: it is drawn beside each detection


def spread(total: int, limit: int | None) -> NDArray[np.int64]:
    """At most ``limit`` of the indices below ``total``, evenly spread; all of them for None."""
    if limit is None or limit >= total:
        return np.arange(total)
    return np.arange(limit) * total // limit


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items, evenly spread."""
    return [items[i] for i in spread(len(items), limit)]


class DetectionData:
    """Images with boxes.

    Boxes are float32 x1 y1 x2 y2 in pixels of the decoded image. Labels count from 0 in the order of ``class_names``.
    Images and boxes that were left out do not appear; ``report`` says which and why.

    Attributes:
        annotations: flat arrays: a million boxes take 29 MB, and forked processes share them.
        root: the DATA argument. kind: the layout's name. split: the split's name on disk.
        class_names: the name of each label. category_ids: the data set's own id of each class.
        report: the faults of the data set.
        held_out: for a validation set that is a share of the training split, how its images were chosen
            (:class:`retinanet.analysis.holdout.HoldOut` as plain values); otherwise None.

    Examples:
        >>> import retinanet
        >>> data = retinanet.open_data("animals", "train")
        >>> len(data), data.num_boxes, data.counts()
        (4, 8, [4, 4])
        >>> data.read(0).shape, data.size(0)
        (torch.Size([3, 48, 64]), (48, 64))
        >>> data.boxes(0).tolist(), data.labels(0).tolist()
        ([[4.0, 10.0, 26.0, 34.0], [36.0, 10.0, 58.0, 34.0]], [0, 1])
    """

    held_out: dict[str, Any] | None = None

    def __init__(
        self,
        annotations: Annotations,
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
        if box_name is None:
            annotations = replace(annotations, references=np.zeros(0, np.int64))
        self.annotations, self._box_name = annotations, box_name

    def __len__(self) -> int:
        return len(self.annotations.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """An image with its boxes, as torchvision's detection models are trained with.

        For a ``DataLoader``, :func:`retinanet.data.collate` keeps images of different sizes apart:

            loader = DataLoader(data, batch_size=8, shuffle=True, collate_fn=collate)
            for images, targets in loader:
                losses = model(images, targets)

        Returns:
            The image (3, H, W) uint8 RGB, and a dict: "boxes" (n, 4) float32 x1 y1 x2 y2 in its pixels, "labels" (n,)
            int64 from 0, "image_id" an int, "area" (n,) float32 square pixels, "iscrowd" (n,) int64, 1 for a region to
            ignore.

        Raises:
            IndexError: there is no such image.
            RequestError: ``index`` is not one whole number.
            WorkError: the image can no longer be read.

        Examples:
            >>> import retinanet
            >>> image, target = retinanet.open_data("animals", "train")[0]
            >>> image.shape, target["labels"]
            (torch.Size([3, 48, 64]), tensor([0, 1]))
        """
        if not isinstance(index, SupportsIndex):
            raise RequestError(
                f"data[i] takes one index, not {printable(str(index), 50)}; for several images use "
                "torch.utils.data.Subset(data, range(100))"
            )
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"image {number} of {len(self)}")
        number %= len(self)
        return self.read(number), {
            "boxes": torch.from_numpy(self.boxes(number).copy()),
            "labels": torch.from_numpy(self.labels(number)),
            "image_id": self.image_id(number),
            "area": torch.from_numpy(self.areas(number).astype(np.float32)),
            "iscrowd": torch.from_numpy(self.crowd(number).astype(np.int64)),
        }

    def __repr__(self) -> str:
        return f"<{self.kind} {self.root} {self.split}: {len(self)} images, {self.num_boxes} boxes>"

    def subset(self, indices: NDArray[np.int64], split: str, report: Report) -> DetectionData:
        """The images with these indices, as a data set of its own with another name of the split and another report."""
        annotations, names, ids = self.annotations.take(indices), self.class_names, self.category_ids
        return DetectionData(annotations, names, ids, report, self.root, self.kind, split, self._box_name)

    @property
    def num_boxes(self) -> int:
        return len(self.annotations.boxes)

    def path(self, index: int) -> Path:
        return Path(self.annotations.path(index))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels as :meth:`read` gives them."""
        height, width = self.annotations.sizes[index]
        return int(height), int(width)

    def portrait(self) -> NDArray[np.bool_]:
        """(N,) bool: the images that are higher than wide."""
        return self.annotations.sizes[:, 0] > self.annotations.sizes[:, 1]

    def image_id(self, index: int) -> int:
        """COCO's image id; the file name where all file names are numbers; else a number that counts from 1."""
        return int(self.annotations.ids[index])

    def box_range(self, index: int) -> slice:
        """The boxes of an image as a slice of the arrays of :attr:`annotations`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        return slice(int(self.annotations.offsets[index]), int(self.annotations.offsets[index + 1]))

    def boxes(self, index: int) -> NDArray[np.float32]:
        """(n, 4) float32; a view, not to be written to."""
        return self.annotations.boxes[self.box_range(index)]

    def labels(self, index: int) -> NDArray[np.int64]:
        """(n,) int64 from 0."""
        return self.annotations.labels[self.box_range(index)].astype(np.int64)

    def training_labels(self, index: int) -> NDArray[np.int64]:
        """(n,) int64: the labels, with IGNORED (-2) for crowd regions."""
        return np.where(self.crowd(index), IGNORED, self.labels(index))

    def crowd(self, index: int) -> NDArray[np.bool_]:
        """(n,) bool: regions to ignore, COCO's iscrowd and Pascal VOC's difficult."""
        return self.annotations.crowds[self.box_range(index)]

    def areas(self, index: int) -> NDArray[np.float64]:
        """(n,) float64 square pixels: COCO's segmented area where given, else the box's."""
        return self.annotations.areas[self.box_range(index)]

    def counts(self) -> list[int]:
        """Number of boxes of each class, without crowd regions."""
        notes = self.annotations
        counts: list[int] = np.bincount(notes.labels[~notes.crowds], minlength=len(self.class_names)).tolist()
        return counts

    def read(self, index: int) -> Tensor:
        """(3, H, W) uint8 RGB.

        Raises:
            WorkError: the image can no longer be decoded, or its size changed since the data set was opened.
        """
        try:
            image = image_io.read(self.path(index), exif=bool(self.annotations.exif[index]))
        except image_io.ImageError as error:
            raise WorkError(f"{error}; remove or replace it in the data set {self.root}") from error
        if tuple(image.shape[1:]) != self.size(index):
            raise WorkError(f"the image {self.path(index)} changed its size since the data set was opened")
        return image

    def box_name(self, box: int) -> str:
        """Where a person finds box number ``box`` of :attr:`annotations`: a file and line, or an annotation id.

        Where the data set was opened without ``references``, it is the image and the number of the box in it.
        """
        if not 0 <= box < self.num_boxes:
            raise IndexError(f"box {box} of {self.num_boxes}")
        notes = self.annotations
        index = int(np.searchsorted(notes.offsets, box, "right")) - 1
        if self._box_name is None:
            return f"{self.image_name(index)} box {box - int(notes.offsets[index]) + 1}"
        return self._box_name(int(notes.listed[index]), int(notes.references[box]))

    def image_name(self, index: int) -> str:
        """The image's path as messages show it: relative to the data set where it lies inside."""
        return shown(self.path(index), self.root if self.root.is_dir() else self.root.parent)

    def label_map_lines(self) -> list[str]:
        """One line for each class: the data set's id, the label, the name and the number of boxes."""
        width = max(len(str(ident)) for ident in self.category_ids)
        rows = zip(self.category_ids, self.class_names, self.counts())
        return [f"id {ident:>{width}} -> label {i}: {name} ({n} boxes)" for i, (ident, name, n) in enumerate(rows)]


def collate(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Images and targets of a batch as two lists, for the argument ``collate_fn`` of a ``DataLoader``."""
    return [image for image, _ in samples], [target for _, target in samples]


def splits(root: str | Path) -> dict[str, int]:
    """The names of the splits on disk, each with the number of images that it lists."""
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
    """Open one split of a data set and check its images and boxes.

    Args:
        root: a folder or file of a known layout, such as a folder in COCO or YOLO layout, a YAML or a CSV.
        split: train, val, test, trainval, …; ``val``, ``valid`` and ``validation`` are the same.
        strict: refuse any fault. By default harmless faults are repaired, and what cannot be used is left out.
        class_names: the classes of a trained model. Labels become indices into this list, mapped by name.
        on_progress: called with (images checked, all images) now and then.
        references: keep what :meth:`DetectionData.box_name` needs to name file and line (8 bytes a box, and the names
            of all files).

    Raises:
        RequestError: the data cannot be used, or ``strict`` found a fault. The message is one line that names the file.

    Examples:
        >>> import retinanet
        >>> data = retinanet.open_data("animals", "train")
        >>> data.kind, data.split, data.class_names
        ('COCO', 'train', ('cat', 'dog'))
    """
    root = path_of("the data set", root)
    if not isinstance(split, str):
        raise RequestError(f'split must be the name of one, such as "train" or "val", not {fields.shown(split)}')
    class_names = None if class_names is None else class_names_of(class_names)
    layout = find_layout(root)
    name = _choose(layout, split, root)
    report = Report()
    try:
        listing = layout.read(name, report)
    except RequestError as error:
        if not (reason := report.reason()):
            raise
        raise RequestError(f"{error}; {reason}") from None
    if root.is_dir() and (others := other_kinds(root, layout.kind)):
        report.notes.append(f"{root} is read as {layout.kind}; it also has the layout of {' and '.join(others)}")
    if layout.any_split:
        report.notes.append(f"{root} is one list of images without the name of a split: it is used as {split}")
    names, ids = listing.class_names, listing.category_ids
    _require_encodable(names, root)
    if class_names is not None:
        names, ids = _map_classes(listing, class_names, root, report)
    annotations = check(listing, layout.root, report, on_progress)
    where = f"{root}, split {name}," if not layout.any_split else str(root)
    if strict and report.count:
        faults = "; ".join(fault.line() for fault in report.faults.values())
        raise RequestError(f"{where} has {report.count} faults, and strict refuses any: {faults}")
    require_images(annotations, listing, where, report)
    box_name = listing.box_name if references else None
    return DetectionData(annotations, names, ids, report, root, layout.kind, name, box_name)


def _choose(layout: Layout, split: str, root: Path) -> str:
    """The name on disk of the split that the user means by ``split``."""
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
        hint = f"; to evaluate on {test}, give --data.val {test} (train) or --split {test} (evaluate)"
    elif plain_name(split) == "val" and len(layout.counts) == 1:
        hint = "; to hold out a share of it in training, give --val 0.2"
    raise RequestError(f"{root} has no split {split}; it has {' and '.join(there)}{hint}")


def _require_encodable(names: Sequence[str], root: Path) -> None:
    """Refuse class names that are too long, or that UTF-8 cannot encode: JSON can hold halves of surrogate pairs."""
    for name in names:
        if len(name) > LONGEST_NAME:
            raise RequestError(f"{root}: a class name has {len(name)} characters, {printable(name, 50)}: shorten it")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"{root}: the class name {printable(name, 100)} is not text that UTF-8 can encode: rename the class"
            ) from None


def _map_classes(listing: Listing, wanted: Sequence[str], root: Path, report: Report) -> tuple[list[str], list[int]]:
    """Change the listing's labels to indices into ``wanted``; boxes of other classes are left out and reported.

    Returns:
        ``wanted``, and for each of its classes the data set's category id, or an unused id.
    """
    label_of = {name: label for label, name in enumerate(wanted)}
    if not any(name in label_of for name in listing.class_names):
        few = ", ".join(listing.class_names[:5]) + (", …" if len(listing.class_names) > 5 else "")
        model = ", ".join(list(wanted)[:5]) + (", …" if len(wanted) > 5 else "")
        raise RequestError(f"no class of {root} ({few}) is one of the model's ({model}); classes are mapped by name")
    table = np.array([label_of.get(name, -1) for name in listing.class_names], np.int32)
    labels = np.frombuffer(listing.labels, np.int32)
    mapped = table[labels]
    for i in np.flatnonzero(mapped < 0):
        box, name = int(i), listing.class_names[labels[i]]
        where = listing.box_name(listing.images[box], listing.references[box])
        report.add("class that the model does not know", "left out", f"{where}: {name}")
    listing.keep_boxes(mapped >= 0, mapped)
    known = dict(zip(listing.class_names, listing.category_ids))
    unused = max(listing.category_ids) + 1
    ids = []
    for name in wanted:
        ids.append(known.get(name, unused))
        unused += name not in known
    return list(wanted), ids
