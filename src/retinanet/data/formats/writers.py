"""Writes a data set in any of the layouts that are read: copies of the images, and annotations in that layout.

Other tools must read the same from it. What a layout cannot hold is left out and reported. Images are copied first, and
the files that make the folder a data set come last. Until then a hidden file marks the folder: an interrupted copy is
not taken for a complete one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from retinanet.common.atomic_files import require_new
from retinanet.common.errors import RequestError
from retinanet.data import image_io
from retinanet.data.dataset import DetectionData
from retinanet.data.formats import image_copies
from retinanet.data.formats.coco_writer import CocoWriter
from retinanet.data.formats.layout_writer import Chosen, ImageEntry, Indices, LayoutWriter, Written, save_texts
from retinanet.data.formats.listing import INCOMPLETE
from retinanet.data.formats.voc_writer import VocWriter
from retinanet.data.formats.yolo_writer import YoloWriter, yolo_splits
from retinanet.data.validate import Progress

EVERY = 64  # images between two calls of on_progress
WRITERS: dict[str, Callable[[Path, dict[str, int], Chosen, Written], LayoutWriter]] = {
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "voc": VocWriter,
}
FORMATS = tuple(WRITERS)


def write(
    folder: str | Path,
    layout: str,
    splits: Mapping[str, DetectionData | tuple[DetectionData, Indices]],
    on_progress: Progress | None = None,
) -> Written:
    """Write a data set.

    All splits as they are: ``write(new, "coco", {name: open_data(old, name) for name in splits(old)})``. One split that
    :func:`retinanet.analysis.splitting.split` divided:
    ``write(new, "yolo", {"train": (data, train), "val": (data, val)})``.

    Images are copied byte for byte. They keep their names, unless two names are the same or the layout cannot have the
    name. Where the boxes are those of the image before EXIF rotation, the copy has no EXIF orientation.

    Args:
        folder: new or empty.
        layout: one of :data:`FORMATS`.
        splits: for each split its images: a data set, or a data set and the indices (n,) of the images wanted.
        on_progress: called with (images written, all images) now and then.

    Raises:
        RequestError: the folder is not empty, or the layout cannot hold the splits or class names.
        WorkError: a file cannot be read or written, as on a full disk. The folder is not a data set then.
    """
    root = Path(folder)
    if layout not in WRITERS:
        raise RequestError(f"there is no layout {layout}: choose one of {', '.join(FORMATS)}")
    require_new(root, "")
    chosen = {name: each if isinstance(each, tuple) else (each, np.arange(len(each))) for name, each in splits.items()}
    for name, (data, indices) in chosen.items():
        if not len(indices):
            raise RequestError(f"the split {name} of {data.root} would have no images")
        if name != Path(name).name or name.startswith("."):
            raise RequestError(f"{name!r} cannot be the name of a split: files are named after it")
    written = Written(root)
    if layout == "yolo":
        chosen = yolo_splits(chosen, written)
    classes = _classes([data for data, _ in chosen.values()], written)
    writer = WRITERS[layout](root, classes, chosen, written)
    names = _names(chosen, writer, written)
    label_of = {name: label for label, name in enumerate(classes)}
    total, copied = sum(map(len, names.values())), set[Path]()
    save_texts([(root / INCOMPLETE, "")])
    for split, (data, indices) in chosen.items():
        ids = [data.image_id(i) for i in indices]
        if len(set(ids)) < len(ids):
            ids = list(range(1, len(ids) + 1))
        done = sum(written.images.values())
        written.images[split], written.boxes[split] = len(ids), 0
        for i, ident, name in zip(indices.tolist(), ids, names[split]):
            target = writer.location(split, name)
            if target not in copied:
                for change in image_copies.copy(data, i, target, writer.by_stem):
                    written.add(change, data.image_name(i))
                copied.add(target)
            written.boxes[split] += writer.add(_entry(data, i, split, name, ident, label_of))
            done += 1
            if on_progress and (done == total or done % EVERY == 0):
                on_progress(done, total)
    save_texts(writer.final_files())
    (root / INCOMPLETE).unlink()
    return written


def _entry(
    data: DetectionData, index: int, split: str, name: str, ident: int, label_of: Mapping[str, int]
) -> ImageEntry:
    return ImageEntry(
        split=split,
        name=name,
        source=data.image_name(index),
        ident=ident,
        size=data.size(index),
        boxes=data.boxes(index).astype("U").astype(np.float64),
        labels=[label_of[data.class_names[label]] for label in data.labels(index)],
        crowds=data.crowd(index).tolist(),
        areas=data.areas(index).tolist(),
    )


def _classes(opened: Sequence[DetectionData], written: Written) -> dict[str, int]:
    """All classes with their ids. Where two splits have one id for two classes, the later class gets a new one."""
    classes: dict[str, int] = {}
    new = max(ident for data in opened for ident in data.category_ids) + 1
    for data in opened:
        for name, ident in zip(data.class_names, data.category_ids):
            if name not in classes and ident in classes.values():
                written.add("class ids changed that splits have for different classes", f"{name}: {ident} -> {new}")
                ident, new = new, new + 1
            classes.setdefault(name, ident)
    return classes


def _names(chosen: Chosen, writer: LayoutWriter, written: Written) -> dict[str, list[str]]:
    """For each split the file names of its copies.

    The names in a folder differ by more than their case, because not all file systems tell A from a. An image that is
    in several splits has one copy, where the layout has one folder for all splits and the boxes are the same.
    """

    def key(split: str, name: str) -> tuple[Path, str]:
        """Equal for names that cannot be in use together."""
        return writer.location(split, name).parent, (Path(name).stem if writer.by_stem else name).casefold()

    wanted = {split: [_wanted(data, i, writer) for i in indices.tolist()] for split, (data, indices) in chosen.items()}
    # The image that has each name. None: the name is some image's own, and kept for it.
    owners: dict[tuple[Path, str], object] = {key(split, own): None for split in wanted for own, _ in wanted[split]}
    names: dict[str, list[str]] = {split: [] for split in chosen}
    for split, (data, indices) in chosen.items():
        used = set()
        for i, (own, longer) in zip(indices.tolist(), wanted[split]):
            classes = tuple(data.class_names[label] for label in data.labels(i))
            image = (data.path(i), classes, data.boxes(i).tobytes(), data.crowd(i).tobytes())
            stem, suffix = Path(longer).stem, Path(longer).suffix
            for name in itertools.chain([own, longer], (f"{stem}_{n}{suffix}" for n in itertools.count(2))):
                owner = owners.get(key(split, name), image)
                if (owner == image or (owner is None and name == own)) and key(split, name) not in used:
                    break
            owners[key(split, name)] = image
            used.add(key(split, name))
            names[split].append(name)
            if name != data.path(i).name:
                written.add("images renamed", f"{data.image_name(i)} -> {name}")
    return names


def _wanted(data: DetectionData, index: int, writer: LayoutWriter) -> tuple[str, str]:
    """The image's own name, as far as the layout can have it; and one with its folder, if the first is in use."""
    path = data.path(index)
    known = not writer.by_stem or path.suffix.lower() in image_io.SUFFIXES
    stem, suffix = (path.stem if known else path.name), image_copies.content(data, index, writer.by_stem)[0]
    own, longer = (
        re.sub(writer.unsafe, "_", text, flags=re.IGNORECASE) + suffix for text in (stem, f"{path.parent.name}_{stem}")
    )
    return own, longer
