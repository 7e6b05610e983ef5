"""Recognises the layout of a data set by its files: one table of all layouts, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retinanet.common.errors import RequestError
from retinanet.data.formats import coco, csv_table, cvat, hugging_face, label_studio, labelme, voc, voc_pairs, yolo
from retinanet.data.formats.listing import INCOMPLETE, Layout, shown

KNOWN = (
    "COCO (annotations/*.json, or train/_annotations.coco.json as from Roboflow), "
    "Pascal VOC (JPEGImages, Annotations, ImageSets/Main; an XML beside each image), "
    "YOLO (a YAML with train, val and names; obj.data; classes.txt beside images; images and labels), "
    "CSV (path, x1, y1, x2, y2, class), Hugging Face (Parquet or metadata.jsonl with objects), "
    "CVAT (annotations.xml), Label Studio (JSON) and labelme (a JSON beside each image)"
)
Finder = Callable[[Path], Layout | None]
FOLDERS: tuple[Finder, ...] = (
    yolo.find_usable,  # a description that fits is somebody's intent; the others may be left over from a conversion
    voc.find,
    coco.find,
    yolo.find,
    hugging_face.find,
    cvat.find,
    label_studio.find,
    labelme.find,
    voc_pairs.find,
    csv_table.find,
    yolo.find_nameless,
    yolo.find_described,
)
"""Recognise the layout of a folder; the first that does decides. Files that describe a whole data set come first, then
those of a tool, then those of single images; what is guessed comes last."""
FILES: dict[str, tuple[Finder, ...]] = {
    ".json": (label_studio.find, labelme.find, coco.find),
    ".xml": (cvat.find,),
    ".parquet": (hugging_face.find,),
    ".jsonl": (hugging_face.find,),
    ".csv": (hugging_face.find, csv_table.find),
    ".yaml": (yolo.find,),
    ".yml": (yolo.find,),
    ".data": (yolo.find,),
}
"""Recognise the layout of a file, by its suffix."""


def find_layout(root: str | Path) -> Layout:
    """Recognise the layout of a folder or file by its content.

    Raises:
        RequestError: it does not exist, is empty, or has no known layout.
    """
    root = Path(root)
    if not root.exists():
        if root.is_symlink():
            raise RequestError(f"the data set {root} is a link in a circle or to a folder that is not there")
        raise RequestError(f"there is no data set {root}: no such file or folder")
    if root.is_file():
        finders = FILES.get(root.suffix.lower(), ())
        layout = next((layout for find in finders if (layout := find(root))), None)
        if layout is None:
            raise RequestError(
                f"{root} is not a data set: give a folder, or a YAML (YOLO), JSON (COCO, Label Studio), CSV, "
                "XML (CVAT) or Parquet file"
            )
        return layout
    if not root.is_dir():
        raise RequestError(f"{root} is neither a file nor a folder")
    if (root / INCOMPLETE).exists():
        raise RequestError(f"{root} is a copy of a data set that was interrupted: remove it, and copy again")
    layout = _recognise(root)
    if layout is not None:
        return layout
    entries = sorted(path.name + "/" * path.is_dir() for path in root.iterdir() if not path.name.startswith("."))
    if not entries:
        raise RequestError(f"the data set {root} is an empty folder")
    lacking = coco.without_images(root)
    hint = f"; {shown(lacking, root)} is not a COCO detection file: it has no list 'images'" if lacking else ""
    if broken := csv_table.unreadable(root):
        hint = f"; {broken}"
    for inner in sorted(path for path in root.iterdir() if path.is_dir())[:20]:
        try:
            layout = _recognise(inner)
        except RequestError:
            continue
        if layout is not None:
            hint = f"; {inner} looks like {layout.kind}: give that folder"
            break
    listed = ", ".join(entries[:6]) + (", …" if len(entries) > 6 else "")
    raise RequestError(f"{root} has none of the known layouts, which are {KNOWN}; it holds {listed}{hint}")


def _recognise(root: Path) -> Layout | None:
    """The layout of a folder, or None."""
    return next((layout for find in FOLDERS if (layout := find(root))), None)


def other_kinds(root: Path, kind: str) -> list[str]:
    """The other layouts that a folder has too."""
    kinds: list[str] = []
    for find in FOLDERS:
        try:
            layout = find(root)
        except RequestError:  # it is not read, so its faults do not matter
            continue
        if layout is not None and layout.kind not in (kind, *kinds):
            kinds.append(layout.kind)
    return kinds
