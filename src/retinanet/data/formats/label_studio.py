"""Reads Label Studio's JSON and JSON-MIN: a list of tasks with boxes in percent of the image's sides.

Its COCO and YOLO exports are read as those layouts. The newest annotation of a task counts. Tasks without one, or that
were skipped, are not background images: nobody has said that nothing is on them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from retinanet.common.errors import RequestError
from retinanet.common.text import TextError, read_text
from retinanet.data.faults import Report
from retinanet.data.formats.image_lookup import ImageLookup, has_suffix
from retinanet.data.formats.listing import WHOLE, Layout, Listing, beginning, number, shown
from retinanet.data.formats.outlines import NO_BOX, ROTATED, Box, around, rotated

HEAD = 1 << 20  # characters by which a file is recognised
LIST = re.compile(r"\s*\[\s*\{")
LABELS = ("rectanglelabels", "polygonlabels", "labels")
"""The keys of a shape's names; "labels" is that of the tags Rectangle and Labels together."""
UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # before the name of an uploaded file
MOST_FILES = 20  # JSON files of a folder that are inspected


def find(root: Path) -> Layout | None:
    """Recognise an export, or the only one in a folder."""
    if root.is_file():
        return _layout(root.parent, root) if _is_export(root) else None
    files = [path for path in sorted(root.glob("*.json"))[:MOST_FILES] if path.is_file() and _is_export(path)]
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise RequestError(f"{root} has several Label Studio exports, {names}: give one of them")
    return _layout(root, files[0]) if files else None


def _is_export(path: Path) -> bool:
    head = beginning(path, HEAD)
    keys = ('"rectanglelabels"', '"polygonlabels"', '"annotations"', '"completions"')
    return bool(LIST.match(head)) and any(key in head for key in keys)


def _layout(root: Path, path: Path) -> Layout:
    counts = {WHOLE: lambda: sum(1 for task in _tasks(path) if _results(task) is not None)}
    return Layout("Label Studio", root, counts, lambda _, report: _read(root, path, report), any_split=True)


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise RequestError(f"{path} line {error.lineno} column {error.colno} is not valid JSON: {error.msg}") from None
    except RecursionError:
        raise RequestError(f"{path} is no Label Studio export: its lists are nested too deeply") from None
    except TextError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"cannot read {path}: {error}") from None
    if not isinstance(content, list):
        raise RequestError(f"{path} is no Label Studio export: it is not a list of tasks")
    return [task if isinstance(task, dict) else {} for task in content]


def _results(task: dict[str, Any]) -> list[Any] | None:
    """The shapes of a task; None if it is not annotated."""
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):  # JSON-MIN: the shapes are in a key that is called like their tag
        shapes = [value for key, value in task.items() if isinstance(value, list) and _are_shapes(value)]
        return shapes[0] if shapes else ([] if "annotation_id" in task else None)
    valid = [each for each in annotations if isinstance(each, dict) and isinstance(each.get("result"), list)]
    done = [each for each in valid if not (each.get("was_cancelled") or each.get("skipped"))]
    newest = max(done, key=lambda each: str(each.get("updated_at") or each.get("created_at") or ""), default=None)
    return None if newest is None else newest["result"]


def _are_shapes(values: list[Any]) -> bool:
    return any(isinstance(value, dict) and any(key in value for key in LABELS) for value in values)


class _Shape(NamedTuple):
    """A shape of a task, in percent of the image's sides."""

    names: list[str]
    box: Box | None
    """None for a shape that has none."""
    rotation: float
    outlined: bool
    size: tuple[float, float]
    """Width and height of the image in pixels, NaN where unknown."""
    turned: bool
    """It was drawn on a rotated view of the image."""


def _shape(result: Any) -> _Shape | None:
    """
    Returns:
        None for a result that is not about a shape.

    Raises:
        ValueError, TypeError: it is malformed.
    """
    value = result.get("value", result) if isinstance(result, dict) else None
    if not isinstance(value, dict):
        raise TypeError
    key = next((key for key in (*LABELS, *value) if isinstance(value.get(key), list) and key.endswith("labels")), None)
    if key is None:
        return None
    names = [name.strip() for name in value[key]]
    size = number(result.get("original_width")), number(result.get("original_height"))
    turned = number(result.get("image_rotation", 0)) % 360 != 0
    if isinstance(points := value.get("points"), list) and key != "keypointlabels":
        box = around([[number(x), number(y)] for x, y in points])
        return _Shape(names, box, 0.0, True, size, turned)
    if not all(side in value for side in ("x", "y", "width", "height")) or key == "keypointlabels":
        return _Shape(names, None, 0.0, False, size, turned)
    x, y, width, height = (number(value[side]) for side in ("x", "y", "width", "height"))
    return _Shape(names, (x, y, x + width, y + height), number(value.get("rotation") or 0), False, size, turned)


def _shapes(task: dict[str, Any], where: str, report: Report) -> Iterator[tuple[int, _Shape]]:
    for position, result in enumerate(_results(task) or []):
        try:
            shape = _shape(result)
        except (TypeError, ValueError, AttributeError):
            report.add("malformed annotation", "left out", f"{where} result {position + 1}")
            continue
        if shape is not None:
            yield position, shape


def _read(root: Path, path: Path, report: Report) -> Listing:
    tasks = _tasks(path)
    file = shown(path, root)
    named = {name for task in tasks for _, shape in _shapes(task, "", Report()) for name in shape.names[:1] if name}
    names = sorted(named)
    if not names:
        raise RequestError(f"{path} has no box with a label: export the annotated tasks as JSON")
    label_of = {name: label for label, name in enumerate(names)}
    listing = Listing(
        names,
        list(range(len(names))),
        lambda _, reference: f"{file} task {_ident(tasks, reference >> 32)} result {(reference & 0xFFFFFFFF) + 1}",
        fractions=True,
        meaning="corner and sides",
    )
    lookup = ImageLookup(root, [path.parent, path.parent / "images", path.parent / "upload"])
    pending, several, seen = 0, 0, set[str]()
    for position, task in enumerate(tasks):
        where = f"{file} task {_ident(tasks, position)}"
        if _results(task) is None:
            pending += 1
            continue
        several += len(task.get("annotations") or ()) > 1 if isinstance(task.get("annotations"), list) else 0
        image = _add_image(listing, lookup, task, where, seen, report)
        if image is None:
            continue
        for index, shape in _shapes(task, where, report):
            _add(listing, image, shape, label_of, f"{where} result {index + 1}", position << 32 | index, report)
    if pending:
        report.notes.append(f"{pending} tasks are not annotated or were skipped: they are left out")
    if several:
        report.notes.append(f"{several} tasks have several annotations: the newest of each is read")
    return listing


def _ident(tasks: list[dict[str, Any]], position: int) -> Any:
    return tasks[position].get("id", f"number {position + 1}")


def _add_image(
    listing: Listing, lookup: ImageLookup, task: dict[str, Any], where: str, seen: set[str], report: Report
) -> int | None:
    names = [name for text in _texts(task) for name in _names(text)]
    if not names:
        report.add("malformed image entry", "left out", f"{where}: it names no image")
        return None
    found = next((name for name in names if lookup.find(name) is not None), names[0])
    path = lookup.locate(found, where, Report()) or lookup.locate(names[0], where, report)
    if path is None:
        return None
    if str(path) in seen:
        report.add("image listed twice", "left out", f"{where}: {path.name}")
        return None
    seen.add(str(path))
    ident = task.get("id")
    if not isinstance(ident, int) or isinstance(ident, bool) or not 0 <= ident < 1 << 63:
        ident = len(listing.paths) + 1
    sizes = (shape.size for _, shape in _shapes(task, where, Report()))
    width, height = next((size for size in sizes if all(1 <= side < 1 << 31 for side in size)), (0, 0))
    return listing.add_image(path, ident, (int(height), int(width)))


def _texts(task: dict[str, Any]) -> Iterator[str]:
    """The texts of a task that may name its image."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    for value in (data or {}).values():
        if isinstance(value, str) and (has_suffix(path_of_url(value)) or "?d=" in value):
            yield value
    if isinstance(uploaded := task.get("file_upload"), str):
        yield uploaded


def path_of_url(url: str) -> str:
    """The path of a URL, or a path as it is."""
    try:
        return urlsplit(url).path or url
    except ValueError:
        return url


def _names(text: str) -> Iterator[str]:
    """The names that an image may have, for /data/upload/1/0123abcd-a.jpg, /data/local-files/?d=b/a.jpg or a URL."""
    try:
        local = parse_qs(urlsplit(text).query).get("d", []) if "?d=" in text else []
    except ValueError:
        local = []
    name = local[0] if local else unquote(path_of_url(text)) if "://" in text or text.startswith("/") else text
    yield name.removeprefix("/data/")
    last = name.replace("\\", "/").rpartition("/")[2]
    yield last
    if UPLOADED.match(last):
        yield UPLOADED.sub("", last)


def _add(
    listing: Listing, image: int, shape: _Shape, label_of: dict[str, int], where: str, reference: int, report: Report
) -> None:
    if shape.box is None:
        report.add(NO_BOX, "left out", where)
        return
    if not shape.names or not shape.names[0]:
        report.add("malformed annotation", "left out", f"{where}: no label")
        return
    if shape.turned:
        report.add("box on a rotated view of the image", "left out", where)
        return
    if len(shape.names) > 1:
        report.add("box with several labels, the first is read", "repaired", f"{where}: {', '.join(shape.names)}")
    box = shape.box
    if shape.rotation % 360 != 0:
        width, height = shape.size
        if math.isnan(width + height):
            report.add("malformed annotation", "left out", f"{where}: rotated, without original_width and height")
            return
        pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        x1, y1, x2, y2 = rotated(pixels, shape.rotation, pixels[:2])
        box = (x1 / width, y1 / height, x2 / width, y2 / height)
        report.add(ROTATED, "repaired", f"{where}: {shape.rotation:g} degrees")
    report.facts.polygons += shape.outlined
    x1, y1, x2, y2 = box
    listing.add_box(image, (x1 / 100, y1 / 100, x2 / 100, y2 / 100), label_of[shape.names[0]], reference)
