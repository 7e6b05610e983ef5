"""COCO: one JSON of images, annotations and categories for each split; Roboflow's variant of it."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from retinanet.common.errors import RequestError
from retinanet.common.text import CHUNK, ZEROS, TextError, read_text
from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.coco_folder import ImageFolder, file_of_url, find_folder
from retinanet.data.formats.coco_json import (
    LISTS,
    PACKED,
    CocoAnnotation,
    Ids,
    lacks_bbox,
    load,
    quoted,
    shortened,
    whole_number,
)
from retinanet.data.formats.listing import Layout, Listing, number, shown
from retinanet.data.formats.path_matching import without_first
from retinanet.data.formats.safe_paths import OUTSIDE, leaves
from retinanet.data.formats.split_folders import child, split_folders, subfolders

ROBOFLOW = "_annotations.coco.json"
FOLDERS = 20  # subfolders in which a JSON is looked for
SMALL = 1 << 20  # bytes: a JSON up to this size is parsed to see whether it is COCO's
LIST = re.compile(rb'"images"\s{0,99}:\s{0,99}[\[{]')
MEANINGLESS = re.compile(r"^(instances|annotations?|coco|labels?)[_.-]|[_.-](instances|annotations?|coco|labels?)$")


def find(root: Path) -> Layout | None:
    """Recognise annotations/*.json, a JSON in the folder of each split (as from Roboflow), or one JSON."""
    if root.is_file():
        name = root.parent.name if root.name == ROBOFLOW else split_name(root)
        return _layout(root.parent, {name: root}, any_split=_is_unnamed(name))
    files = {path.parent.name: path for path in sorted(root.glob(f"*/{ROBOFLOW}"))}
    if not files and (root / ROBOFLOW).is_file():
        return find(root / ROBOFLOW)
    if files:
        return _layout(root, files)
    inner = child(root, ("annotations", "annotation"))
    candidates = (inner is not None and _candidates(inner)) or _candidates(root)
    instances = [path for path in candidates if path.name.startswith("instances")]
    for path in instances or candidates:
        _add_file(files, split_name(path), path, root)
    if not files:
        for folder in split_folders(root).values():
            for path in _candidates(folder) or _candidates(folder / "annotations"):
                _add_file(files, folder.name, path, root)
    if not files:
        for path in (path for folder in subfolders(root)[:FOLDERS] for path in _candidates(folder)):
            _add_file(files, split_name(path), path, root)
        if len(files) > 1:  # data sets of their own
            return None
    return _layout(root, files, any_split=len(files) == 1 and all(map(_is_unnamed, files))) if files else None


def _is_unnamed(name: str) -> bool:
    """Whether a name is not that of a split."""
    return not re.search("(?<![a-z])(train|val|test)", name.lower())


def _add_file(files: dict[str, Path], split: str, path: Path, root: Path) -> None:
    other = files.setdefault(split, path)
    if other is not path:
        raise RequestError(
            f"{root} has two files for the split {split}, {shown(other, root)} and {shown(path, root)}: leave one of "
            "them, or name the file instead of the folder"
        )


def _candidates(folder: Path) -> list[Path]:
    """The JSON files that are most likely COCO's: a data set may hold settings, notes or results of a tool too."""
    likeliness = {path: _has_images(path) for path in sorted(folder.glob("*.json")) if path.is_file()}
    return [path for path, rank in likeliness.items() if rank and rank == max(likeliness.values())]


def _has_images(path: Path) -> int:
    """How likely a JSON is COCO's: 2 with images and another of its lists, 1 with images alone, else 0.

    A large file is not parsed: 2 if ``"images": [`` is in it.
    """
    try:
        if path.stat().st_size < SMALL:
            text = read_text(path)
            if '"images"' not in text:  # as the JSON files of other tools, of which there may be one for each image
                return 0
            content = json.loads(text)
            if not isinstance(content, dict) or not isinstance(images := content.get("images"), list | dict):
                return 0
            return 2 if any(key in content for key in LISTS[1:]) else int(bool(images))
    except (TextError, RecursionError):
        pass
    except ValueError:  # not JSON: reading it reports line and column
        return 2
    end = b""
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):  # the list may be the last
                if LIST.search(end + chunk):
                    return 2
                if ZEROS in chunk:  # the rest may be a hole without end
                    return 0
                end = chunk[-256:]
    except OSError:
        pass
    return 0


def without_images(root: Path) -> Path | None:
    """A JSON in the folder that seems to be COCO's but has no images, for the message that there is no data set."""
    for path in (*sorted(root.glob("annotations/*.json")), *sorted(root.glob("*.json"))):
        try:
            content = read_text(path)
        except TextError:
            continue
        if path.parent != root or '"annotations"' in content or '"categories"' in content:
            return path
    return None


def split_name(path: Path) -> str:
    """instances_train2017.json -> train2017."""
    name = path.stem
    while (shorter := MEANINGLESS.sub("", name)) != name:
        name = shorter
    return name


def _layout(root: Path, files: dict[str, Path], any_split: bool = False) -> Layout:
    counts = {name: partial(_count, path) for name, path in files.items()}
    return Layout("COCO", root, counts, lambda name, report: read(files[name], name, root, report), any_split)


def _count(path: Path) -> int:
    return len(load(path)["images"])


def read(path: Path, split: str, root: Path, report: Report) -> Listing:
    content = load(path)
    file = shown(path, root)
    names, label_of, ids = _categories(content, path, report)

    def box_name(image: int, reference: int) -> str:
        return f"{file} annotation {reference}" if reference >= 0 else f"{file} annotations[{-1 - reference}]"

    listing = Listing(names, ids, box_name, meaning="corner and sides")
    folder = find_folder(content["images"], path, split, root)
    index = _add_images(listing, content["images"], folder, file, report)
    _add_annotations(listing, content["annotations"], index, label_of, file, report)
    return listing


def _add_images(listing: Listing, images: list[Any], where: ImageFolder, file: str, report: Report) -> dict[Any, int]:
    """Add the images; returns the index in the listing of each image id."""
    folder, steps, root = where
    index: dict[Any, int] = {}
    for position, image in enumerate(images):
        try:
            ident, name = image["id"], image["file_name"]
            hash(ident)
            if isinstance(ident, float) and ident.is_integer():
                ident = int(ident)
            if not isinstance(name, str) or not name or isinstance(ident, float | bool | None):
                raise TypeError
        except (KeyError, TypeError):
            report.add("malformed image entry", "left out", f"{file} images[{position}]: needs id and file_name")
            continue
        if steps is not None:
            short = without_first(name, steps)
        else:
            short = file_of_url(name, folder) if "://" in name else None
        if short and short != name:
            report.add(RENAMED, "repaired", f"{file} image {quoted(ident)}: {name} is {short}")
            name = short
        if ident in index:
            report.add("repeated image id", "left out", f"{file} image {quoted(ident)}: {name}")
            continue
        if leaves(name, folder, root):
            report.add(OUTSIDE, "left out", f"{file} image {quoted(ident)}: {name}")
            continue
        size = number(image.get("height")), number(image.get("width"))
        known = all(0 < side < 1 << 31 for side in size)
        number_id = whole_number(ident)
        if number_id is None or number_id.bit_length() >= 64:
            number_id = position + 1
        index[ident] = listing.add_image(folder / name, number_id, (int(size[0]), int(size[1])) if known else (0, 0))
    return index


def _add_annotations(
    listing: Listing,
    annotations: list[Any],
    index: dict[Any, int],
    label_of: dict[Any, int],
    file: str,
    report: Report,
) -> None:
    """Add the boxes.

    Args:
        index: the index in the listing of each image id.
        label_of: the label of each category id.
    """
    images, categories = Ids(index), Ids(label_of)
    seen: dict[Any, int] = {}
    for position, annotation in enumerate(annotations):
        try:
            fields = CocoAnnotation.of(annotation, position)
        except (KeyError, TypeError, ValueError, AttributeError):
            where = annotation.get("id") if isinstance(annotation, dict) else None
            name = f"annotation {where}" if where is not None else f"annotations[{position}]"
            text = f"{file} {name}: needs image_id, category_id and bbox [x, y, width, height]"
            report.add("malformed annotation", "left out", text)
            continue
        ident, image_id, category, x, y, width, height, area, crowd = fields
        where = f"{file} annotation {ident}"
        image, known_category = images.known(image_id), categories.known(category)
        if image is None:
            text = f"{where}: image {quoted(image_id)}"
            report.add("annotation of an unknown image", "left out", text)
            continue
        if known_category is None:
            report.add("unknown class", "left out", f"{where}: category {quoted(category)}")
            if isinstance(category, int):
                report.facts.unknown[category] += 1
            continue
        first = seen.setdefault(ident, position)
        if first != position:
            if CocoAnnotation.of(annotations[first], first)[1:7] == fields[1:7]:
                report.add("annotation written twice", "left out", where)
                continue
            report.add("repeated annotation id, given a new one", "repaired", where)
        # An id that is not a whole number of 63 bits is replaced by the position, as a negative number.
        reference = ident if isinstance(ident, int) and 0 <= ident < 1 << 63 else -1 - position
        if (image, type(image), type(known_category)) != (image_id, type(image_id), type(category)):
            text = f"{where}: image {quoted(image_id)}, category {quoted(category)}"
            report.add("id written as text or fraction, matched", "repaired", text)
        if isinstance(annotation, dict) and width > 0 < height and lacks_bbox(annotation):
            report.add("no bbox, taken from the segmentation", "repaired", where)
        report.facts.used[known_category] += 1
        box = (x, y, x + width, y + height)
        listing.add_box(index[image], box, label_of[known_category], reference, crowd, area)


def _categories(content: dict[str, Any], path: Path, report: Report) -> tuple[list[str], dict[Any, int], list[int]]:
    """Class names in the order of their ids, the label of each category id, and each class's id."""
    names, parents = _category_names(content["categories"], path, report)
    # Roboflow writes a category 0 that is only the parent of the others; no box has it.
    if len(names) > 1 and 0 in names and names[0] in parents:
        packed = (PACKED.unpack(a)[2] if isinstance(a, bytes) else a for a in content["annotations"])
        used = any(whole_number(a.get("category_id") if isinstance(a, dict) else a) == 0 for a in packed)
        if not used:
            del report.facts.classes[0]
            report.facts.parents.append(names.pop(0))
    if not names:
        raise RequestError(f"{path} has no categories")
    classes: dict[str, int] = {}
    label_of = {ident: classes.setdefault(names[ident], len(classes)) for ident in sorted(names)}
    first: dict[int, int] = {}
    doubled = []
    for ident, label in label_of.items():
        if first.setdefault(label, ident) != ident:
            doubled.append(f"{ident} is {first[label]} ({shortened(names[ident])})")
    if doubled:
        examples = "; ".join(doubled[:3]) + ("; …" if len(doubled) > 3 else "")
        report.notes.append(f"{len(doubled)} category ids have the name of another and are the same class: {examples}")
    return list(classes), label_of, list(first.values())


def _category_names(categories: list[Any], path: Path, report: Report) -> tuple[dict[int, str], set[str]]:
    """The name of each category id, and the names of supercategories.

    Raises:
        RequestError: a category has no id or name that can be used, or an id has two names.
    """
    names: dict[int, str] = {}
    parents = set()
    for category in categories:
        try:
            ident, written = category["id"], category["name"]
        except (KeyError, TypeError):
            raise RequestError(f"{path} has a category without id and name: {shortened(category)}") from None
        if isinstance(written, bool) or not isinstance(written, str | int):
            raise RequestError(
                f"{path}: the category with the id {quoted(ident)} has the name {shortened(written, json.dumps)}: "
                "write it as text, in quotes"
            )
        name, given = str(written).strip(), ident
        ident = whole_number(ident)
        if not name:
            raise RequestError(f"{path}: the category with the id {quoted(given)} has an empty name: give it one")
        if ident is None:
            raise RequestError(
                f"{path} has the category {shortened(name)} with the id {shortened(given)}; ids are whole numbers"
            )
        if type(given) is not int:
            text = f"{shown(path, path.parent)} category {quoted(given)}: {name}"
            report.add("id written as text or fraction, matched", "repaired", text)
        report.facts.classes[ident] = str(written)
        if names.setdefault(ident, name) != name:
            raise RequestError(
                f"{path} uses the category id {ident} for both {shortened(names[ident])} and {shortened(name)}"
            )
        if ident != 0 and isinstance(category.get("supercategory"), str):
            parents.add(category["supercategory"])
    return names, parents
