"""Reads the description of a YOLO data set: a YAML, Darknet's ``.data`` file (CVAT) or ``classes.txt`` (Label Studio).

Class names are text exactly as written. A plain YAML reader would turn ``yes`` into True and ``1.10`` into 1.1.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinanet.common import safe_yaml
from retinanet.common.errors import RequestError, first_line
from retinanet.common.printable import printable
from retinanet.common.text import DESCRIPTION, lines, read_text
from retinanet.data.formats.listing import WHOLE, image_files
from retinanet.data.formats.safe_paths import leaves
from retinanet.data.formats.split_folders import child, split_folders

SPLITS = ("train", "val", "valid", "validation", "test")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "predefined_classes.txt", "data/predefined_classes.txt")
MOST_CLASSES = 100_000  # that nc may stand for without names
KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")  # the only plain scalars of YAML that are not text


@dataclass(frozen=True)
class Description:
    """The images and the class names of a data set."""

    file: Path
    """The file that describes the data set."""
    names: dict[int, str]
    """Empty where no file names the classes."""
    splits: dict[str, list[str]]
    """The entries of each split: folders, lists of images, or images."""
    bases: list[Path]
    """Entries are relative to the first of these folders in which they exist."""
    keypoints: tuple[int, int] | None = None
    """kpt_shape of the YAML: the number of keypoints, and of columns for each."""
    any_split: bool = field(default=False)
    """There is one list of images without a split; it is used for every split."""


def describe(root: Path) -> Description | None:
    """The description in a folder or in this file; None for a folder without one.

    Raises:
        RequestError: it cannot be read or used, or there are several.
    """
    if root.is_file():
        if root.suffix.lower() == ".data":
            return _from_data(root)
        content = _load(root)
        if not _describes(content):
            raise RequestError(f"{root} describes no data set: it needs names (or nc) and paths for train, val or test")
        return _from_yaml(root, content)
    files = [path for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]) if not path.is_dir()]
    described = [(path, content) for path in files if _describes(content := _load(path))]
    data_files = [] if described else sorted(path for path in root.glob("*.data") if path.is_file())
    several = [path.name for path in (*(path for path, _ in described), *data_files)]
    if len(several) > 1:
        names = ", ".join(several)
        raise RequestError(f"{root} has several YOLO data sets: {names}; give one of these files instead of the folder")
    if described:
        return _from_yaml(*described[0])
    return _from_data(data_files[0]) if data_files else _from_names(root)


# ------------------------------------------------------------------------------------------------------------- YAML


def _load(path: Path) -> Any:
    import yaml

    class Loader(safe_yaml.base()):  # type: ignore[misc]
        """Plain scalars are text, except null. A repeated key is an error."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and key.tag != KEPT[1]:
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"{printable(key.value, 60)} is there twice", key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in KEPT]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    try:
        return safe_yaml.load(read_text(path, DESCRIPTION), Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise RequestError(f"{path}{where} is not valid YAML: {problem}") from None


def _describes(content: Any) -> bool:
    return isinstance(content, dict) and ("names" in content or "nc" in content) and any(content.get(s) for s in SPLITS)


def _from_yaml(path: Path, content: dict[str, Any]) -> Description:
    splits = {}
    for split in SPLITS:
        entries = content.get(split)
        entries = entries if isinstance(entries, list) else [entries]
        if any(entries):
            if not all(isinstance(entry, str) for entry in entries):
                raise RequestError(f"{path}: {split} must be a path or a list of paths")
            splits[split] = entries
    bases = list(dict.fromkeys([path.parent / str(content.get("path") or "."), path.parent]))
    return Description(path, _yaml_names(path, content), splits, bases, _keypoints(path, content.get("kpt_shape")))


def _yaml_names(path: Path, content: dict[str, Any]) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if count is not None and not _whole(count):
        raise RequestError(f"{path}: nc must be the number of classes, not {_short(count)}")
    if count is not None and int(count) > MOST_CLASSES:
        raise RequestError(f"{path}: nc is {count}; there are {MOST_CLASSES} classes at most")
    if names is None and count is not None:
        names = [str(i) for i in range(int(count))]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(_whole(key) for key in names):
        raise RequestError(f"{path}: names must be a list of class names, or a mapping of numbers to names")
    if count is not None and int(count) != len(names):
        raise RequestError(f"{path}: nc is {count}, but there are {len(names)} names")
    for key, name in names.items():
        if not isinstance(name, str):
            kind = (
                "null: write it in quotes, if that is its name" if name is None else f"{_short(name)}, which is no name"
            )
            raise RequestError(f"{path}: the name of class {key} is {kind}")
        if not name.strip():
            raise RequestError(f"{path}: the name of class {key} is empty: give it one")
    if len({int(key) for key in names}) < len(names):
        raise RequestError(f"{path}: names has the same number twice")
    return _unique({int(key): names[key] for key in sorted(names, key=int)}, path)


def _whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and bool(re.fullmatch(r"-?[0-9]{1,18}", value)))


def _keypoints(path: Path, shape: Any) -> tuple[int, int] | None:
    if shape is None:
        return None
    match shape:
        case [count, ("2" | "3") as columns] if _whole(count) and int(count) > 0:
            return int(count), int(columns)
    raise RequestError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3], not {_short(shape)}")


def _short(value: Any) -> str:
    return printable(repr(value), 100)


# ------------------------------------------------------------------------------------------------ without a YAML


def _from_data(path: Path) -> Description:
    """Read Darknet's file of ``key = value`` lines, which CVAT and Darknet name obj.data."""
    rows = (line.split("#")[0].partition("=") for line in lines(read_text(path, DESCRIPTION)))
    content = {key.strip(): value.strip() for key, _, value in rows if value.strip()}
    splits = {split: [content[split]] for split in SPLITS if content.get(split)}
    if not splits or "names" not in content:
        raise RequestError(f"{path} describes no data set: it needs 'names = FILE' and 'train = LIST'")
    named = content["names"]
    # Not outside the folder: the lines of a private file would be shown as classes.
    tried = [path.parent / step for step in (named, *shorter(named)) if not leaves(step, path.parent, path.parent)]
    file = next((path for path in tried if os.path.isfile(path)), None)
    if file is None:
        raise RequestError(f"{path}: there is no list of class names {printable(named, 100)} in {path.parent}")
    names = _listed_names(file)
    count = content.get("classes", str(len(names)))
    if count != str(len(names)):
        raise RequestError(f"{path}: classes is {printable(count, 100)}, but {file.name} has {len(names)} names")
    return Description(path, names, splits, [path.parent])


def _from_names(root: Path) -> Description | None:
    """Read a list of class names. The splits are given by the names of folders or of lists of images."""
    file = _names_file(root)
    if file is None:
        return None
    splits = _splits(root)
    if splits:
        return Description(file, _listed_names(file), splits, [root])
    whole = _image_folder(root)
    if not _has_images(root / whole):
        return None
    return Description(file, _listed_names(file), {WHOLE: [whole]}, [root], any_split=True)


def describe_nameless(root: Path) -> Description | None:
    """Folders that may have images and label files, without a list of class names anywhere."""
    splits = _splits(root)
    if splits:
        return Description(root, {}, splits, [root])
    whole = _image_folder(root)
    if whole == "." and not any(path.parent == root for path in image_files(root)):
        return None  # one folder deeper is a data set of its own, perhaps with splits
    return Description(root, {}, {WHOLE: [whole]}, [root], any_split=True)


def _image_folder(root: Path) -> str:
    """The folder of all images, relative to the data set."""
    images = child(root, ("images",))
    return "." if images is None else images.name


def _names_file(root: Path) -> Path | None:
    """The list of class names in a folder, or in the folders of its splits.

    Raises:
        RequestError: the splits have lists that differ.
    """
    file = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    if file is not None:
        return file
    images, labels = split_folders(root / "images").values(), split_folders(root / "labels").values()
    whole = (child(root, (name,)) for name in ("images", "labels"))
    folders = [*filter(None, whole), *split_folders(root).values(), *images, *labels]
    files = [folder / name for folder in folders for name in NAME_FILES if (folder / name).is_file()]
    for other in files[1:]:
        if read_text(other, DESCRIPTION).split() != read_text(files[0], DESCRIPTION).split():
            raise RequestError(f"{files[0]} and {other} list different classes: make them the same")
    return files[0] if files else None


def _splits(root: Path) -> dict[str, list[str]]:
    """The entry of each split, by the names of lists and folders."""
    splits = {}
    for split in SPLITS:
        entries = (f"{split}.txt", f"images/{split}", f"{split}/images", split)
        entry = next((entry for entry in entries if _has_images(root / entry)), None)
        if entry is not None:
            splits[split] = [entry]
    for base in () if splits else ("images/", ""):  # images/train2017, train2017/images
        for name, folder in split_folders(root / base).items():
            if _has_images(folder):
                splits[name] = [f"{base}{name}/images" if _has_images(folder / "images") else f"{base}{name}"]
        if splits:
            break
    return splits


def _has_images(path: Path) -> bool:
    return path.is_file() if path.suffix == ".txt" else path.is_dir() and next(image_files(path), None) is not None


def _listed_names(path: Path) -> dict[int, str]:
    """Class names, one on each line; the number of a class is that of its line, from 0."""
    names = lines(read_text(path, DESCRIPTION))
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise RequestError(f"{path} names no class: it is empty")
    blank = next((i for i, name in enumerate(names) if not name.strip()), None)
    if blank is not None:
        raise RequestError(f"{path} line {blank + 1} is blank: class {blank} would have no name")
    return _unique(dict(enumerate(names)), path)


def _unique(names: dict[int, str], path: Path) -> dict[int, str]:
    first: dict[str, int] = {}
    for key, name in names.items():
        other = first.setdefault(name.strip(), key)
        if other != key:
            raise RequestError(
                f"{path}: the classes {other} and {key} are both called {_short(name.strip())}: give each its own name"
            )
    return names


def shorter(entry: str) -> list[str]:
    """A path of a description without its first folder.

    Roboflow writes ../train for a folder beside the YAML, and CVAT data/ for the folder of the description itself.
    """
    first, _, rest = entry.replace("\\", "/").partition("/")
    return [rest] if rest and first else []
